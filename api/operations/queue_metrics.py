"""Metrics of the queue, read from PostgreSQL for each scrape, so that no process has counters to lose."""

from collections.abc import Iterator
from datetime import timedelta

import sqlalchemy as sa
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session

from api.http.services import Services
from api.http.ttl_cache import TtlCache
from shared.database import Database
from shared.queue.numbers import JobCount, count_jobs, sum_work
from shared.queue.stages import DETECT, STAGES, Stage
from shared.tables import Image, Job, Project, WebhookDelivery, Worker
from shared.tables.studies import is_flagged
from shared.training.tasks import KINDS
from shared.vocabulary.flags import Flag
from shared.vocabulary.states import DeliveryState, JobState, TaskState, WorkerKind

_QUANTILES = (0.5, 0.95)


class QueueMetrics(Collector):
    """Jobs and how long they wait, doubtful images, the trainer's tasks, messages to webhooks, and workers' work."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._metrics = TtlCache(self._read)

    def collect(self) -> list[Metric]:
        """Return the cached metrics; raises `DatabaseUnavailable`."""
        return self._metrics.get()

    def _read(self) -> list[Metric]:
        with self._database.begin() as session:
            return [
                *_jobs(session),
                _flags(session),
                *_tasks(session),
                _deliveries(session),
                *_workers(session),
                _stored(session),
                _latency(session),
                *_database(session),
            ]


def _jobs(session: Session) -> Iterator[Metric]:
    found = count_jobs(session)
    jobs = GaugeMetricFamily("carina_jobs", "Jobs by state.", labels=["state"])
    for state in JobState:
        jobs.add_metric([state], found.get(state, JobCount()).count)
    oldest = GaugeMetricFamily(
        "carina_oldest_waiting_seconds", "How long the oldest waiting job has waited.", labels=["stage"]
    )
    for stage in STAGES:
        oldest.add_metric([str(stage)], found.get(stage.waiting, JobCount()).oldest_s)
    yield from (jobs, oldest)


def _flags(session: Session) -> Metric:
    images = GaugeMetricFamily("carina_flagged_images", "Images by what makes them doubtful.", labels=["flag"])
    flags = sa.select(sa.func.unnest(Image.flags).label("flag")).where(is_flagged()).subquery()
    counted = sa.select(flags.c.flag, sa.func.count()).group_by(flags.c.flag)
    found: dict[str, int] = {row.flag: row[1] for row in session.execute(counted)}
    for each in Flag:
        images.add_metric([each], found.get(each, 0))
    return images


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
        # As a literal, to use the partial index: most messages are delivered.
        here = WebhookDelivery.state == sa.literal(state, literal_execute=True)
        deliveries.add_metric([state], session.scalar(sa.select(sa.func.count()).where(here)) or 0)
    return deliveries


def _workers(session: Session) -> Iterator[Metric]:
    work = sum_work(session)
    workers = GaugeMetricFamily("carina_workers", "Workers that are alive.", labels=["stage"])
    sizes = SummaryMetricFamily("carina_batch_size", "Images per batch.", labels=["stage"])
    steps = SummaryMetricFamily("carina_step_seconds", "Seconds per batch.", labels=["stage"])
    for kind, done in work.items():
        workers.add_metric([kind], done.alive)
        if kind is DETECT.worker:  # the only workers that record batches
            sizes.add_metric([kind], done.batches, float(done.images))
            steps.add_metric([kind], done.batches, done.step_s)
    starts = GaugeMetricFamily(
        "carina_worker_starts", "Workers that started within the last hour, restarts included.", labels=["stage"]
    )
    recently = sa.select(Worker.stage, sa.func.count()).where(Worker.started_at > sa.func.now() - timedelta(hours=1))
    started: dict[str, int] = {row.stage: row[1] for row in session.execute(recently.group_by(Worker.stage))}
    for kind in WorkerKind:
        starts.add_metric([kind], started.get(kind, 0))
    yield starts
    expiries = CounterMetricFamily("carina_lease_expiries", "Leases that ran out.")
    expiries.add_metric([], sum(done.expired_leases for done in work.values()))
    yield from (workers, sizes, steps, expiries)


def _stored(session: Session) -> Metric:
    """The counts of the last hourly cleanup, because counting reads all images."""
    stored = GaugeMetricFamily("carina_stored_bytes", "Bytes of originals and renditions.", labels=["kind"])
    projects = session.scalars(sa.select(Project.stored)).all()
    for kind in ("original", "rendition"):
        stored.add_metric([kind], sum(counts.get(f"{kind}_bytes", 0) for counts in projects))
    return stored


def _latency(session: Session) -> Metric:
    latency = GaugeMetricFamily(
        "carina_stage_latency_seconds",
        "Seconds from the time when a job could begin a stage to its end, of jobs that succeeded within 5 minutes.",
        labels=["stage", "quantile"],
    )
    columns = [
        sa.extract("epoch", sa.func.percentile_cont(quantile).within_group(_duration(stage)))
        for stage in STAGES
        for quantile in _QUANTILES
    ]
    recent = (Job.finished_at > sa.func.now() - timedelta(minutes=5), Job.state == JobState.SUCCEEDED)
    found = iter(session.execute(sa.select(*columns).where(*recent)).one())
    for stage in STAGES:
        for quantile in _QUANTILES:
            if (seconds := next(found)) is not None:
                latency.add_metric([str(stage), str(quantile)], float(seconds))
    return latency


def _duration(stage: Stage) -> sa.ColumnElement[timedelta]:
    columns = Job.__table__.c
    return columns[stage.done_at] - columns[stage.waits_since]


def _database(session: Session) -> Iterator[Metric]:
    size = GaugeMetricFamily("carina_database_bytes", "Bytes of the database on its disk.")
    size.add_metric([], session.scalar(sa.select(sa.func.pg_database_size(sa.func.current_database()))) or 0)
    limit = GaugeMetricFamily("carina_database_connections_max", "The most connections that PostgreSQL accepts.")
    limit.add_metric([], int(session.scalar(sa.text("SELECT current_setting('max_connections')")) or 0))
    connections = GaugeMetricFamily(
        "carina_database_connections", "Connections to the database, by what has opened them.", labels=["application"]
    )
    counted = sa.text(
        "SELECT application_name, count(*) FROM pg_stat_activity WHERE datname = current_database() GROUP BY 1"
    )
    for application, count in session.execute(counted):
        connections.add_metric([application], count)
    yield from (size, limit, connections)


def install(services: Services) -> None:
    """Add the queue's metrics to `/metrics`."""
    services.registry.register(QueueMetrics(services.installation))
