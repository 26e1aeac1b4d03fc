"""Audit rows."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.contract.paging import Page, PageQuery


class AuditQuery(PageQuery):
    """Selects audit rows."""

    action: str | None = Field(None, max_length=100, description="Only this action, for example `images.rendition`.")
    api_key_id: UUID | None = Field(None, description="Only actions of this key.")
    api_key_prefix: str | None = Field(None, max_length=100, description="Only actions of the key with this prefix.")
    since: AwareDatetime | None = Field(None, description="Only actions since this time.")
    project: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="The name of a project, instead of the key's own. `*`: all projects, and actions without a "
        "project, such as those with the credentials of the database. Needs the scope `system`.",
    )


class AuditEventAnswer(BaseModel):
    """One audited action: who did it, and on which objects."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    #: None if it concerned no project's rows, or used the database's own credentials.
    project_id: UUID | None
    api_key_id: UUID | None
    #: The public part of this key.
    api_key_prefix: str | None = None
    #: The acting program if there was no key.
    actor: str | None
    action: str
    #: Ids and counts of the objects concerned.
    subject: dict[str, Any]
    status: int | None
    remote_address: str | None
    created_at: datetime


class AuditEventsAnswer(Page):
    """A page of audit rows, the newest first."""

    events: list[AuditEventAnswer]
