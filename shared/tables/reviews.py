"""Readers' reviews of findings."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from shared.tables.rows import NOW, Owned, Row, one_of
from shared.vocabulary.review_actions import ReviewAction


class ReviewEvent(Owned, Row):
    """One action of a reader in the review of a job. Rows are never changed: see `shared.reviews.fold`."""

    __tablename__ = "review_event"
    __table_args__ = (
        one_of("action", ReviewAction),
        sa.CheckConstraint("(action IN ('undo', 'redo')) = (undoes IS NOT NULL)", name="undoes"),
        sa.CheckConstraint("(action = 'complete') = (min_score IS NOT NULL)", name="min_score"),
        sa.ForeignKeyConstraint(("job_id", "rank"), ("detection.job_id", "detection.rank")),
        sa.ForeignKeyConstraint(("job_id", "drawn"), ("review_event.job_id", "review_event.number")),
        sa.ForeignKeyConstraint(("job_id", "undoes"), ("review_event.job_id", "review_event.number")),
        Index("review_event_of_image", "image_id", "created_at"),
        Index("review_event_of_project", "project_id", "job_id"),
    )

    job_id: Mapped[UUID] = mapped_column(ForeignKey("job.id"), primary_key=True)
    #: Number of the event in its job, from 1.
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    image_id: Mapped[UUID] = mapped_column(ForeignKey("image.id"))
    model_id: Mapped[UUID] = mapped_column(ForeignKey("model.id"))
    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_key.id"))
    #: The name of the key at that time.
    reader: Mapped[str]
    action: Mapped[str]
    #: The subject: a detection, a box drawn by the event of this number, or the whole image if both are None.
    rank: Mapped[int | None] = mapped_column(sa.SmallInteger)
    drawn: Mapped[int | None]
    #: For an undo: the retracted event. For a redo: the undo.
    undoes: Mapped[int | None]
    #: For a drawn or changed finding: its new class and box, in pixels of the original.
    class_id: Mapped[int | None]
    class_name: Mapped[str | None]
    x_min_px: Mapped[float | None]
    y_min_px: Mapped[float | None]
    x_max_px: Mapped[float | None]
    y_max_px: Mapped[float | None]
    #: For `complete`: findings with a lower score were not reviewed, and count as rejected.
    min_score: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
