"""Jobs and their detections, workers, and samples of the queue."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.ids import new_id
from shared.tables.rows import APPENDED, CHANGED_OFTEN, NOW, Leased, Owned, Row, leased_by, listed, one_of
from shared.vocabulary.states import JobState, Phase, WorkerKind

_OPEN = f"state IN ({listed(JobState.open())})"
_WAITING = text(f"state IN ({listed(JobState.in_phase(Phase.WAITING))})")
_LEASED = text(f"state IN ({listed(JobState.in_phase(Phase.LEASED))})")
_IS_RATED = "abnormality IS NOT NULL"
_TENTH = "floor(abnormality * 10)"


class Job(Owned, Leased, Row):
    """One image under one model. Jobs are claimed by priority, then by age, which the id contains."""

    __tablename__ = "job"
    states = JobState
    __table_args__ = (
        *leased_by(JobState),
        sa.CheckConstraint("priority BETWEEN 0 AND 9", name="priority"),
        Index("job_waiting", "state", sa.desc("priority"), "id", postgresql_where=_WAITING),
        # Few rows, so the times are compared in the table: no index contains them, and renewing a lease changes none.
        Index("job_held", "id", postgresql_where=_LEASED),
        Index("job_open", "submission_id", postgresql_where=text(f"submission_id IS NOT NULL AND {_OPEN}")),
        Index("job_counted_on", "id", postgresql_where=text(f"counted_on AND {_OPEN}")),
        Index("job_result", "image_id", "model_id", unique=True, postgresql_where=text("state = 'succeeded'")),
        Index("job_of_image", "image_id", "id"),
        # The next two are scanned backwards, for the newest studies with such a job.
        Index("job_by_state", "project_id", "state", "priority", "study_id"),
        Index("job_of_submission", "submission_id", "study_id", postgresql_where=text("submission_id IS NOT NULL")),
        # The next two are scanned for the studies with the highest probabilities, and for the newest studies above one.
        Index(
            "job_by_abnormality", "project_id", "model_id", "abnormality", "study_id", postgresql_where=text(_IS_RATED)
        ),
        Index(
            "job_by_abnormality_tenth",
            *("project_id", "model_id", text(f"({_TENTH})"), "study_id", "abnormality"),
            postgresql_where=text(_IS_RATED),
        ),
        Index("job_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        Index("job_unfit", "project_id", "finished_at", postgresql_where=text("state IN ('rejected', 'failed')")),
        CHANGED_OFTEN,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    image_id: Mapped[UUID] = mapped_column(ForeignKey("image.id"))
    #: The study of the image, copied for the order of a search.
    study_id: Mapped[UUID] = mapped_column(ForeignKey("study.id"))
    #: The bulk submission of the job, if any.
    submission_id: Mapped[UUID | None] = mapped_column(ForeignKey("submission.id"))
    #: The model in the request, if any.
    requested_model_id: Mapped[UUID | None] = mapped_column(ForeignKey("model.id"))
    #: The model of this attempt: the requested one, else the one active at the claim.
    model_id: Mapped[UUID | None] = mapped_column(ForeignKey("model.id"))
    state: Mapped[str] = mapped_column(default=JobState.QUEUED)
    priority: Mapped[int] = mapped_column(sa.SmallInteger, default=5)
    #: Whether the next claim takes this job alone, because it may be the cause of a failed batch.
    alone: Mapped[bool] = mapped_column(default=False)
    #: Whether a later request shares the job: see `shared.queue.shared_jobs`.
    counted_on: Mapped[bool] = mapped_column(default=False, server_default=sa.false())
    #: The version of Carina that produced the result.
    code_version: Mapped[str | None]
    ready_at: Mapped[datetime | None]
    #: The model's probability that the image shows any finding; None if it has no abnormality head.
    abnormality: Mapped[float | None] = mapped_column(sa.REAL)


def abnormality_tenth(abnormality: Any) -> sa.ColumnElement[float]:
    """Return the first decimal of a probability, so that the newest studies above one are in at most 11 ranges."""
    return sa.func.floor(abnormality * sa.literal_column("10"))


class Detection(Row):
    """One box from a model, in pixel coordinates of the original. Rank 0 has the highest score."""

    __tablename__ = "detection"
    __table_args__ = (APPENDED,)

    job_id: Mapped[UUID] = mapped_column(ForeignKey("job.id"), primary_key=True)
    rank: Mapped[int] = mapped_column(sa.SmallInteger, primary_key=True)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("model.id"))
    class_id: Mapped[int]
    class_name: Mapped[str]
    score: Mapped[float]
    x_min_px: Mapped[float]
    y_min_px: Mapped[float]
    x_max_px: Mapped[float]
    y_max_px: Mapped[float]


class TopScore(Owned, Row):
    """The highest score of a class in a job, for the search of studies; see `shared.studies.results`."""

    __tablename__ = "top_score"
    __table_args__ = (
        Index("top_score_job", "job_id", postgresql_using="hash"),
        Index("top_score_of_class", "project_id", "class_name", "tenth", "study_id", "score"),
        APPENDED,
    )

    # The other ids are copied from the job. Foreign keys would cost as much per batch as its detections.
    study_id: Mapped[UUID] = mapped_column(primary_key=True)
    class_name: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("job.id"), primary_key=True)
    project_id: Mapped[UUID] = mapped_column()
    image_id: Mapped[UUID]
    score: Mapped[float]
    #: The first decimal of the score, so that the newest studies above a score are in at most 11 ranges of the index.
    tenth: Mapped[int] = mapped_column(sa.SmallInteger)


class Worker(Row):
    """A worker process: its heartbeat, and counts of its work, which `/metrics` adds up."""

    __tablename__ = "worker"
    # A row for each process, changed at each heartbeat and batch.
    __table_args__ = (one_of("stage", WorkerKind), {"postgresql_with": {"fillfactor": "50"}})

    #: The `lease_owner` of its rows; unique to the process.
    id: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[str]
    device: Mapped[str | None]
    model_id: Mapped[UUID | None] = mapped_column(ForeignKey("model.id"))
    started_at: Mapped[datetime] = mapped_column(server_default=NOW)
    seen_at: Mapped[datetime] = mapped_column(server_default=NOW)
    stopped_at: Mapped[datetime | None]
    batches: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    images: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    step_s: Mapped[float] = mapped_column(default=0.0)
    expired_leases: Mapped[int] = mapped_column(sa.BigInteger, default=0)


class QueueSample(Row):
    """The queue at one time: see `shared.queue.samples`. A column for each state of a job is added below."""

    __tablename__ = "queue_sample"

    #: The start of the interval of the sample.
    at: Mapped[datetime] = mapped_column(primary_key=True)
    #: How long the oldest waiting job had waited.
    oldest_waiting_s: Mapped[float]
    #: The time since the previous sample.
    elapsed_s: Mapped[float]
    #: Totals of all detect workers, since the first one.
    batches: Mapped[int] = mapped_column(sa.BigInteger)
    images: Mapped[int] = mapped_column(sa.BigInteger)
    step_s: Mapped[float]


for _state in JobState:
    # For an open state: the jobs in it at that time. For a final state: the jobs that entered it since the last sample.
    setattr(QueueSample, _state, mapped_column(sa.BigInteger, nullable=False))
