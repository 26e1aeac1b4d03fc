"""The queue's state for all clients that watch it, read at most once per second."""

import threading
from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa
from flask import Flask, current_app
from sqlalchemy.orm import Session

from api.contract.queue import FailureAnswer, QueueAnswer, QueueNumbers, WaitingTasks, WorkerAnswer
from api.http.resource import fields_of
from api.http.services import Services
from api.http.ttl_cache import TtlCache
from shared.database import Database
from shared.queue.numbers import LEASED, WAITING, JobCount, WorkDone, count_finished, count_open_jobs, sum_work
from shared.queue.samples import count_past, work_before
from shared.queue.stages import DETECT, STAGES
from shared.queue.workers import is_alive
from shared.submissions.failures import list_failures
from shared.tables import Model, Worker
from shared.training.tasks import KINDS
from shared.vocabulary.states import TaskState

MIN_S = 1.0
#: Its name in the application's extensions.
_NAME = "carina.queue_watch"
#: The time over which batches are averaged.
_RECENTLY = timedelta(minutes=5)
FAILURES_OF = timedelta(hours=24)
#: How long a silent worker is shown as missing.
_MISSED_FOR = timedelta(hours=24)


class QueueWatch:
    """The cached state of the queue. Thread-safe."""

    def __init__(self, database: Database, *, batch_size: int) -> None:
        self._database = database
        self._batch_size = batch_size
        self._numbers = TtlCache(self._read_numbers, min_s=MIN_S)
        self._failures: dict[UUID, TtlCache[list[FailureAnswer]]] = {}
        self._lock = threading.Lock()

    def look(self, project_id: UUID) -> QueueAnswer:
        """Return the queue's numbers and a project's failures; raises `DatabaseUnavailable`."""
        with self._lock:
            if project_id not in self._failures:
                self._failures[project_id] = TtlCache(lambda: self._read_failures(project_id))
            failures = self._failures[project_id]
        return QueueAnswer(**dict(self._numbers.get()), failures=failures.get())

    def _read_failures(self, project_id: UUID) -> list[FailureAnswer]:
        with self._database.begin() as session:
            return [
                FailureAnswer.model_validate(failure) for failure in list_failures(session, project_id, FAILURES_OF)
            ]

    def _read_numbers(self) -> QueueNumbers:
        with self._database.begin() as session:
            jobs, now = count_open_jobs(session), session.scalars(sa.select(sa.func.now())).one()
            done = sum_work(session).get(DETECT.worker, WorkDone())
            before = work_before(session, now - _RECENTLY) or done
            batches, images = done.batches - before.batches, done.images - before.images
            return QueueNumbers(
                jobs={state: jobs.get(state, JobCount()).count for state in (*WAITING, *LEASED)},
                oldest_waiting_s={
                    stage.worker: round(jobs.get(stage.waiting, JobCount()).oldest_s, 1) for stage in STAGES
                },
                finished_last_minute=count_finished(session, now - timedelta(minutes=1)),
                finished_last_day=count_past(session, now, timedelta(days=1)),
                batch_images=round(images / batches, 2) if batches > 0 else None,
                batch_size=self._batch_size,
                step_s=round((done.step_s - before.step_s) / batches, 4) if batches > 0 else None,
                tasks=_tasks(session),
                workers=_workers(session),
            )


def _tasks(session: Session) -> list[WaitingTasks]:
    running = TaskState.RUNNING
    found = []
    for kind, row in KINDS.items():
        open_states = [TaskState.QUEUED, TaskState.INTERRUPTED, running]
        counts = (sa.func.count().filter(row.state != running), sa.func.count().filter(row.state == running))
        waiting, at_work = session.execute(sa.select(*counts).where(row.state.in_(open_states))).one()
        found.append(WaitingTasks(kind=kind, waiting=waiting, running=at_work))
    return found


def _workers(session: Session) -> list[WorkerAnswer]:
    rows = session.execute(
        sa.select(Worker, Model.name, is_alive().label("alive"))
        .join(Model, Model.id == Worker.model_id, isouter=True)
        .where(Worker.stopped_at.is_(None), Worker.seen_at > sa.func.now() - _MISSED_FOR)
        .order_by(Worker.stage, Worker.started_at)
    )
    return [
        WorkerAnswer(
            **fields_of(WorkerAnswer, worker, "model_name", "alive", "step_s"),
            model_name=model_name,
            alive=alive,
            step_s=round(worker.step_s / worker.batches, 4) if worker.batches else None,
        )
        for worker, model_name, alive in rows
    ]


def install(app: Flask, services: Services) -> None:
    """Add the watch to the application."""
    app.extensions[_NAME] = QueueWatch(services.installation, batch_size=services.settings.batch_size)


def queue_watch() -> QueueWatch:
    """Return the watch of the application that handles this request."""
    found: QueueWatch = current_app.extensions[_NAME]
    return found
