"""What readers said about findings."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from shared.tables.rows import NOW, Owned, Row, one_of
from shared.vocabulary.review_actions import ReviewAction


class ReviewEvent(Owned, Row):
    """One thing that a reader said of a job's findings. Rows are only ever added: see `shared.reviews.fold`."""

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
    #: From 1, in the order in which they were said.
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    image_id: Mapped[UUID] = mapped_column(ForeignKey("image.id"))
    model_id: Mapped[UUID] = mapped_column(ForeignKey("model.id"))
    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_key.id"))
    #: What the key was called then.
    reader: Mapped[str]
    action: Mapped[str]
    #: What it is about: a detection, a box that the event of this number drew, or, for both None, the whole image.
    rank: Mapped[int | None] = mapped_column(sa.SmallInteger)
    drawn: Mapped[int | None]
    #: Of an undo: the event that counts no more. Of a redo: the undo.
    undoes: Mapped[int | None]
    #: Of what was drawn or changed: what it is from now on, in pixels of the original image.
    class_id: Mapped[int | None]
    class_name: Mapped[str | None]
    x_min_px: Mapped[float | None]
    y_min_px: Mapped[float | None]
    x_max_px: Mapped[float | None]
    y_max_px: Mapped[float | None]
    #: Of `complete`: findings with a lower score were not looked at, and count as rejected.
    min_score: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
