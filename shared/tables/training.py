"""The trainer's tasks (datasets, trainings, evaluations, decisions of the gate) and schedules."""

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
    states = TaskState

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    state: Mapped[str] = mapped_column(default=TaskState.QUEUED)
    #: Lost attempts since the task last made progress.
    losses: Mapped[int] = mapped_column(default=0)
    #: The progress, for display. Its keys depend on the kind of task.
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    #: The last lines of output of its processes.
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
    """An import and, after it has succeeded, an immutable dataset: a COCO document in the object store."""

    __tablename__ = "dataset"
    __table_args__ = (*_task_args("dataset"), Index("dataset_named", "project_id", "name", "id"))

    #: Datasets with the same name in a project are versions. The newest succeeded one is the latest.
    name: Mapped[str]
    #: The source: format, files, consensus, splits.
    source: Mapped[dict[str, Any]]
    #: SHA-256 of the document, which determines its object key.
    digest: Mapped[str | None]
    rendition_version: Mapped[int | None]
    image_count: Mapped[int | None]
    box_count: Mapped[int | None]
    failure_count: Mapped[int | None]
    #: Counts per split, class, reader and box size, and of failures by code.
    summary: Mapped[dict[str, Any] | None]
    #: SHA-256 of the list of failed images, as JSON lines.
    failures_sha256: Mapped[str | None]
    #: The number of images that were erased since. If it is not 0, the dataset can no longer be used for training.
    erased_count: Mapped[int] = mapped_column(default=0, server_default="0")


class Schedule(Owned, Row):
    """A periodic training: its times, dataset and config, and the gate that its models must pass."""

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
    #: Each run uses the latest dataset with this name.
    dataset_name: Mapped[str]
    config: Mapped[dict[str, Any]]
    gate: Mapped[dict[str, Any] | None]
    overlap: Mapped[str] = mapped_column(default=Overlap.SKIP)
    #: Whether to skip a time if neither data nor config has changed since the last run.
    skip_unchanged: Mapped[bool] = mapped_column(default=True)
    enabled: Mapped[bool] = mapped_column(default=True)
    next_at: Mapped[datetime | None]
    last_at: Mapped[datetime | None]
    #: The outcome of the last time, in one or two sentences.
    last_outcome: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class TrainingRun(Task):
    """One training: its config and dataset, the checkpoint while it runs, and the model at the end."""

    __tablename__ = "training_run"
    __table_args__ = (*_task_args("training_run"), sa.UniqueConstraint("schedule_id", "due_at"))

    name: Mapped[str]
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("dataset.id"))
    config: Mapped[dict[str, Any]]
    config_digest: Mapped[str]
    #: The conditions for promoting the model; None: no automatic promotion.
    gate: Mapped[dict[str, Any] | None]
    initial_model_id: Mapped[UUID | None] = mapped_column(ForeignKey("model.id"))
    #: Notes about this combination of data and weights, as sentences.
    notes: Mapped[list[str]] = mapped_column(JSONB, default=list, server_default="[]")
    schedule_id: Mapped[UUID | None] = mapped_column(ForeignKey("schedule.id", ondelete="SET NULL"))
    #: The time by the schedule. The run may have started later.
    due_at: Mapped[datetime | None]
    #: The last checkpoint: the SHA-256 of its bytes, and the number of finished steps.
    checkpoint_sha256: Mapped[str | None]
    checkpoint_steps: Mapped[int | None]
    #: The checkpoint with the best average precision in `evaluate_split`: `sha256`, `steps` and `ap40`.
    best_checkpoint: Mapped[dict[str, Any] | None]
    #: SHA-256 of TensorBoard's event file of each attempt.
    events: Mapped[dict[str, Any]] = mapped_column(default=dict)
    model_id: Mapped[UUID | None] = mapped_column(ForeignKey("model.id"))
    #: The group of machines that trains it, and where they meet; None: a single machine.
    trainer_group: Mapped[str | None]
    rendezvous: Mapped[str | None]
    #: The owners of the machines of this attempt, in the order of their ranks.
    machines: Mapped[list[str]] = mapped_column(default=list, server_default="{}")


class TrainerMachine(Row):
    """A machine of a group of trainers: see `shared.training.groups`."""

    __tablename__ = "trainer_machine"

    trainer_group: Mapped[str] = mapped_column(primary_key=True)
    #: 0 leads the group.
    node_rank: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    #: The name of its process, which is new after each start.
    owner: Mapped[str]
    #: Where the other machines reach it, and the port on which `carina doctor` tries this.
    address: Mapped[str]
    port: Mapped[int | None]
    seen_at: Mapped[datetime] = mapped_column(server_default=NOW)
    #: The attempt that it takes or took part in, with the last lines of its processes and, after their end, the cause.
    training_run_id: Mapped[UUID | None] = mapped_column(ForeignKey("training_run.id", ondelete="SET NULL"))
    attempt: Mapped[int | None]
    log_tail: Mapped[str] = mapped_column(default="", server_default="")
    ending: Mapped[dict[str, Any] | None]


class TrainingPoint(Row):
    """A point of a training's curves."""

    __tablename__ = "training_point"

    training_run_id: Mapped[UUID] = mapped_column(ForeignKey("training_run.id", ondelete="CASCADE"), primary_key=True)
    #: Finished steps, over all epochs.
    step: Mapped[int] = mapped_column(primary_key=True)
    #: Finished epochs, as a fraction.
    epoch: Mapped[float]
    #: Means over the steps since the previous point, by the name of the figure.
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
    """The decision whether a candidate replaces the active model, with its figures."""

    __tablename__ = "gate_decision"
    __table_args__ = _task_args("gate_decision")

    candidate_model_id: Mapped[UUID] = mapped_column(ForeignKey("model.id"))
    #: The model that was active; None if there was none.
    baseline_model_id: Mapped[UUID | None] = mapped_column(ForeignKey("model.id"))
    training_run_id: Mapped[UUID | None] = mapped_column(ForeignKey("training_run.id"))
    config: Mapped[dict[str, Any]]
    candidate_evaluation_id: Mapped[UUID | None] = mapped_column(ForeignKey("evaluation.id"))
    baseline_evaluation_id: Mapped[UUID | None] = mapped_column(ForeignKey("evaluation.id"))
    promoted: Mapped[bool | None]
    #: The gain, its interval, and the change for each class.
    figures: Mapped[dict[str, Any] | None]
    #: The decision as a paragraph, which the report contains too.
    explanation: Mapped[str | None]
