"""Pages of long lists."""

from uuid import UUID

from pydantic import BaseModel, Field

from shared.bounded import Bounded


class PageQuery(Bounded):
    """Selects a page."""

    limit: int = Field(50, ge=1, le=500, description="Maximum number of rows in the answer.")
    before: UUID | None = Field(None, description="Only rows older than this one: `next` of the previous page.")


class Page(BaseModel):
    """The common fields of all pages."""

    #: `before` of the next page; None on the last one.
    next: UUID | None
