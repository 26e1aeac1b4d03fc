"""Models."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.ids import new_id
from shared.tables.rows import NOW, Row, one_of
from shared.vocabulary.states import ModelState


class Model(Row):
    """A detector: its card (classes, canvas, thresholds, anchors, digests) and the digest of its weights.

    All projects share it.
    """

    __tablename__ = "model"
    __table_args__ = (
        one_of("state", ModelState),
        Index("model_active", "state", unique=True, postgresql_where=text("state = 'active'")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    card: Mapped[dict[str, Any]]
    weights_sha256: Mapped[str]
    #: Digest of the weights' content, independent of file, name and precision; set by the trainer when it needs it.
    content_sha256: Mapped[str | None]
    state: Mapped[str] = mapped_column(default=ModelState.CANDIDATE)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    promoted_at: Mapped[datetime | None]
    retired_at: Mapped[datetime | None]
