"""Audit rows."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.contract.paging import Page, PageQuery


class AuditQuery(PageQuery):
    """Which rows."""

    action: str | None = Field(None, max_length=100, description="Only this action, as `images.rendition`.")
    api_key_id: UUID | None = Field(None, description="Only what this key did.")


class AuditEventAnswer(BaseModel):
    """Who did what, or saw whose pixels."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    api_key_id: UUID | None
    #: Who acted where there was no key.
    actor: str | None
    action: str
    #: Ids and counts of what was acted upon.
    subject: dict[str, Any]
    status: int | None
    remote_address: str | None
    created_at: datetime


class AuditEventsAnswer(Page):
    """A page of audit rows, the newest first."""

    events: list[AuditEventAnswer]
