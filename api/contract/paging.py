"""Pages of long lists."""

from uuid import UUID

from pydantic import BaseModel, Field

from shared.bounded import Bounded


class PageQuery(Bounded):
    """Selects a page."""

    limit: int = Field(50, ge=1, le=500, description="The most rows to answer.")
    before: UUID | None = Field(None, description="Only rows older than this one: `next` of the page before.")


class Page(BaseModel):
    """The common fields of all pages."""

    #: `before` of the next page; None on the last one.
    next: UUID | None
