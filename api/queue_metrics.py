"""Reads the queue's numbers from PostgreSQL when Prometheus asks; no process keeps a count of its own to lose."""

import threading
import time
from collections.abc import Iterator

import sqlalchemy as sa
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session

from shared.database import Database
from shared.queue.hints import is_alive
from shared.queue.states import DeliveryState, JobState, Stage, TaskState
from shared.tables import Job, WebhookDelivery, Worker
from shared.tasks import KINDS

#: Reading takes 0.3 s with a million jobs. The numbers are kept for this many times as long, so that no number of
#: scrapes costs PostgreSQL more than a fiftieth of its time.
KEPT_PER_SECOND_OF_READING = 50


class QueueMetrics(Collector):
    """The jobs, how long they wait, the trainer's tasks, messages to webhooks, and what the workers have done."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._kept: list[Metric] = []
        self._kept_until = 0.0

    def collect(self) -> list[Metric]:
        """Return all numbers as they were a moment ago; raises `DatabaseUnavailable`."""
        with self._lock:
            started = time.monotonic()
            if started >= self._kept_until:
                with self._database.begin() as session:
                    self._kept = [*_jobs(session), *_tasks(session), _deliveries(session), *_workers(session)]
                now = time.monotonic()
                self._kept_until = now + KEPT_PER_SECOND_OF_READING * (now - started)
            return self._kept


def _jobs(session: Session) -> Iterator[Metric]:
    since = sa.func.min(sa.func.coalesce(Job.ready_at, Job.created_at))
    waited_s = sa.extract("epoch", sa.func.now() - since)
    rows = session.execute(sa.select(Job.state, sa.func.count(), waited_s).group_by(Job.state)).all()
    found = {row[0]: row for row in rows}
    jobs = GaugeMetricFamily("carina_jobs", "Jobs by state.", labels=["state"])
    for state in JobState:
        jobs.add_metric([state], found[state][1] if state in found else 0)
    oldest = GaugeMetricFamily(
        "carina_oldest_waiting_seconds", "How long the oldest waiting job has waited.", labels=["stage"]
    )
    for stage in (Stage.PREPARE, Stage.DETECT):
        oldest.add_metric([stage], float(found[stage.waiting][2]) if stage.waiting in found else 0)
    yield from (jobs, oldest)


def _tasks(session: Session) -> Iterator[Metric]:
    tasks = GaugeMetricFamily("carina_tasks", "The trainer's tasks by kind and state.", labels=["kind", "state"])
    oldest = GaugeMetricFamily(
        "carina_oldest_waiting_task_seconds", "How long the oldest task has waited for a trainer.", labels=["kind"]
    )
    for kind, row in KINDS.items():
        waited_s = sa.extract("epoch", sa.func.now() - sa.func.min(row.created_at))
        found = {
            each[0]: each
            for each in session.execute(sa.select(row.state, sa.func.count(), waited_s).group_by(row.state))
        }
        for state in TaskState:
            tasks.add_metric([kind, state], found[state][1] if state in found else 0)
        oldest.add_metric([kind], float(found[TaskState.QUEUED][2]) if TaskState.QUEUED in found else 0)
    yield from (tasks, oldest)


def _deliveries(session: Session) -> Metric:
    deliveries = GaugeMetricFamily(
        "carina_webhook_deliveries", "Messages to webhooks that are on their way or given up.", labels=["state"]
    )
    for state in (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.DEAD):
        # As a literal, for the state's own index: what was delivered is many times as much.
        here = WebhookDelivery.state == sa.literal(state, literal_execute=True)
        deliveries.add_metric([state], session.scalar(sa.select(sa.func.count()).where(here)) or 0)
    return deliveries


def _workers(session: Session) -> Iterator[Metric]:
    rows = session.execute(
        sa.select(
            Worker.stage,
            sa.func.count().filter(is_alive()).label("alive"),
            sa.func.sum(Worker.batches).label("batches"),
            sa.func.sum(Worker.images).label("images"),
            sa.func.sum(Worker.step_s).label("step_s"),
            sa.func.sum(Worker.expired_leases).label("expired_leases"),
        ).group_by(Worker.stage)
    ).all()
    workers = GaugeMetricFamily("carina_workers", "Workers that are alive.", labels=["stage"])
    sizes = SummaryMetricFamily("carina_batch_size", "Images per batch.", labels=["stage"])
    steps = SummaryMetricFamily("carina_step_seconds", "Seconds per batch.", labels=["stage"])
    for row in rows:
        workers.add_metric([row.stage], row.alive)
        if row.stage == Stage.DETECT:  # the only one that works in batches
            sizes.add_metric([row.stage], int(row.batches), float(row.images))
            steps.add_metric([row.stage], int(row.batches), row.step_s)
    expiries = CounterMetricFamily("carina_lease_expiries", "Leases that ran out.")
    expiries.add_metric([], sum(int(row.expired_leases) for row in rows))
    yield from (workers, sizes, steps, expiries)
