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
from shared.queue.hints import SEEN_WITHIN
from shared.queue.states import JobState, Stage
from shared.tables import Job, Worker

#: Counting every job takes a while with a million of them: the count is kept for this many times as long.
KEPT_PER_SECOND_OF_COUNTING = 50

#: Ten looks into an index, for its order is priority, then age. A job returned to its stage keeps its age.
_OLDEST = sa.text("""
    SELECT EXTRACT(EPOCH FROM now() - min(coalesce(oldest.ready_at, oldest.created_at)))
    FROM generate_series(0, 9) AS level(priority)
    CROSS JOIN LATERAL (
        SELECT ready_at, created_at FROM job
        WHERE state = :state AND state IN ('queued', 'ready') AND job.priority = level.priority
        ORDER BY id LIMIT 1
    ) AS oldest
""")


class QueueMetrics(Collector):
    """The jobs, how long they wait, and what the workers have done."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._counts_until = 0.0

    def collect(self) -> Iterator[Metric]:
        """Read all numbers; raises `DatabaseUnavailable`."""
        with self._database.begin() as session:
            yield self._jobs(session)
            yield _oldest_waiting(session)
            yield from _workers(session)

    def _jobs(self, session: Session) -> Metric:
        with self._lock:
            started = time.monotonic()
            if started >= self._counts_until:
                counts = session.execute(sa.select(Job.state, sa.func.count()).group_by(Job.state)).all()
                self._counts = dict.fromkeys(JobState, 0) | {row[0]: row[1] for row in counts}
                now = time.monotonic()
                self._counts_until = now + KEPT_PER_SECOND_OF_COUNTING * (now - started)
            metric = GaugeMetricFamily("carina_jobs", "Jobs by state.", labels=["state"])
            for state, count in self._counts.items():
                metric.add_metric([state], count)
        return metric


def _oldest_waiting(session: Session) -> Metric:
    metric = GaugeMetricFamily(
        "carina_oldest_waiting_seconds", "How long the oldest waiting job has waited.", labels=["stage"]
    )
    for stage in (Stage.PREPARE, Stage.DETECT):
        metric.add_metric([stage], float(session.scalar(_OLDEST, {"state": stage.waiting}) or 0))
    return metric


def _workers(session: Session) -> Iterator[Metric]:
    alive = Worker.stopped_at.is_(None) & (Worker.seen_at > sa.func.now() - SEEN_WITHIN)
    rows = session.execute(
        sa.select(
            Worker.stage,
            sa.func.count().filter(alive).label("alive"),
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
        sizes.add_metric([row.stage], int(row.batches), float(row.images))
        steps.add_metric([row.stage], int(row.batches), row.step_s)
    expiries = CounterMetricFamily("carina_lease_expiries", "Leases that ran out.")
    expiries.add_metric([], sum(int(row.expired_leases) for row in rows))
    yield from (workers, sizes, steps, expiries)
