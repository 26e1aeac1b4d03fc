"""What the API takes and gives of audit rows; see `api.contract.schemas`."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from api.contract.paging import Page, PageQuery
from shared.tables import AuditEvent


class AuditQuery(PageQuery):
    """Which rows."""

    action: str | None = Field(None, max_length=100, description="Only this action, as `images.rendition`.")
    api_key_id: UUID | None = Field(None, description="Only what this key did.")


class AuditEventAnswer(BaseModel):
    """Who did what, or saw whose pixels."""

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

    @classmethod
    def of(cls, row: AuditEvent) -> "AuditEventAnswer":
        """Describe a row."""
        return cls.model_validate(row, from_attributes=True)


class AuditEventsAnswer(Page):
    """A page of audit rows, the newest first."""

    events: list[AuditEventAnswer]
