"""The trainer's tasks: datasets, trainings, evaluations, the gate's decisions; and schedules."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.ids import new_id
from shared.tables.rows import NOW, Leased, Owned, Row, leased_by, listed, one_of
from shared.vocabulary.states import Overlap, Phase, TaskState


class Task(Owned, Leased, Row):
    """The columns of the trainer's tasks: see `shared.training.tasks`."""

    __abstract__ = True

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    state: Mapped[str] = mapped_column(default=TaskState.QUEUED)
    #: Attempts that were lost since the task last made progress.
    losses: Mapped[int] = mapped_column(default=0)
    #: How far it is, for whoever waits: its keys depend on the kind of task.
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    #: The last lines that its processes wrote.
    log_tail: Mapped[str] = mapped_column(default="")
    started_at: Mapped[datetime | None]


def _task_args(name: str) -> tuple[Any, ...]:
    waiting = text(f"state IN ({listed(TaskState.in_phase(Phase.WAITING))})")
    return (
        *leased_by(TaskState),
        Index(f"{name}_waiting", "id", postgresql_where=waiting),
        Index(f"{name}_of_project", "project_id", "id"),
    )


class Dataset(Task):
    """An import, and once it has succeeded an immutable dataset: a COCO document in the object store."""

    __tablename__ = "dataset"
    __table_args__ = (*_task_args("dataset"), Index("dataset_named", "project_id", "name", "id"))

    #: Datasets of one name in a project are versions of it; the newest one that succeeded is the latest.
    name: Mapped[str]
    #: What it is made from and how: format, files, consensus, splits.
    source: Mapped[dict[str, Any]]
    #: SHA-256 of the document, from which its object key follows.
    digest: Mapped[str | None]
    rendition_version: Mapped[int | None]
    image_count: Mapped[int | None]
    box_count: Mapped[int | None]
    failure_count: Mapped[int | None]
    #: Counts per split, class, reader and box size; failures by code.
    summary: Mapped[dict[str, Any] | None]
    #: SHA-256 of the list of images that failed, as JSON lines.
    failures_sha256: Mapped[str | None]
    #: Images whose study was erased since: nothing can be trained on the dataset any more.
    erased_count: Mapped[int] = mapped_column(default=0, server_default="0")


class Schedule(Owned, Row):
    """When to train again, on what, and what has to hold for the result to become active."""

    __tablename__ = "schedule"
    __table_args__ = (
        one_of("overlap", Overlap),
        Index("schedule_named", "project_id", "name", unique=True),
        Index("schedule_due", "next_at", postgresql_where=text("enabled")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    #: Five fields, in local time of `time_zone`, an IANA name.
    cron: Mapped[str]
    time_zone: Mapped[str]
    #: The latest dataset of this name is trained on.
    dataset_name: Mapped[str]
    config: Mapped[dict[str, Any]]
    gate: Mapped[dict[str, Any] | None]
    overlap: Mapped[str] = mapped_column(default=Overlap.SKIP)
    #: Whether to leave a time out when neither data nor config has changed since the last run.
    skip_unchanged: Mapped[bool] = mapped_column(default=True)
    enabled: Mapped[bool] = mapped_column(default=True)
    next_at: Mapped[datetime | None]
    last_at: Mapped[datetime | None]
    #: What became of the last time, in one sentence.
    last_outcome: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class TrainingRun(Task):
    """One training: a config and a dataset, its checkpoint while it lasts, its model at the end."""

    __tablename__ = "training_run"
    __table_args__ = (*_task_args("training_run"), sa.UniqueConstraint("schedule_id", "due_at"))

    name: Mapped[str]
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("dataset.id"))
    config: Mapped[dict[str, Any]]
    config_digest: Mapped[str]
    #: What is asked of the model before it becomes active; None: nobody decides.
    gate: Mapped[dict[str, Any] | None]
    initial_model_id: Mapped[UUID | None] = mapped_column(ForeignKey("model.id"))
    #: What to know about this choice of data and weights, in sentences.
    notes: Mapped[list[str]] = mapped_column(JSONB, default=list, server_default="[]")
    schedule_id: Mapped[UUID | None] = mapped_column(ForeignKey("schedule.id", ondelete="SET NULL"))
    #: The time that the schedule meant; a run that started later was late.
    due_at: Mapped[datetime | None]
    #: The last checkpoint: the SHA-256 of its bytes and the steps that were done.
    checkpoint_sha256: Mapped[str | None]
    checkpoint_steps: Mapped[int | None]
    #: SHA-256 of TensorBoard's event file of each attempt.
    events: Mapped[dict[str, Any]] = mapped_column(default=dict)
    model_id: Mapped[UUID | None] = mapped_column(ForeignKey("model.id"))


class TrainingPoint(Row):
    """A point of a training's curves."""

    __tablename__ = "training_point"

    training_run_id: Mapped[UUID] = mapped_column(ForeignKey("training_run.id", ondelete="CASCADE"), primary_key=True)
    #: Steps that were done, over all epochs.
    step: Mapped[int] = mapped_column(primary_key=True)
    #: Epochs that were done, with a fraction.
    epoch: Mapped[float]
    #: Means over the steps since the point before, by the name of the figure.
    values: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Evaluation(Task):
    """One model on one split: its metrics, its detections and its report."""

    __tablename__ = "evaluation"
    __table_args__ = (*_task_args("evaluation"), Index("evaluation_of", "model_id", "dataset_id"))

    model_id: Mapped[UUID] = mapped_column(ForeignKey("model.id"))
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("dataset.id"))
    config: Mapped[dict[str, Any]]
    metrics: Mapped[dict[str, Any] | None]
    detections_sha256: Mapped[str | None]
    report_sha256: Mapped[str | None]


class GateDecision(Task):
    """Whether a candidate takes the active model's place, with the numbers behind it."""

    __tablename__ = "gate_decision"
    __table_args__ = _task_args("gate_decision")

    candidate_model_id: Mapped[UUID] = mapped_column(ForeignKey("model.id"))
    #: The model that was active; None where there was none.
    baseline_model_id: Mapped[UUID | None] = mapped_column(ForeignKey("model.id"))
    training_run_id: Mapped[UUID | None] = mapped_column(ForeignKey("training_run.id"))
    config: Mapped[dict[str, Any]]
    candidate_evaluation_id: Mapped[UUID | None] = mapped_column(ForeignKey("evaluation.id"))
    baseline_evaluation_id: Mapped[UUID | None] = mapped_column(ForeignKey("evaluation.id"))
    promoted: Mapped[bool | None]
    #: The gain, its interval and the classes' changes.
    figures: Mapped[dict[str, Any] | None]
    #: The same as a paragraph, which the report repeats.
    explanation: Mapped[str | None]
