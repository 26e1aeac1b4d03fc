"""The history of the queue: the sweep takes samples, and pages draw them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.queue.numbers import FINAL, LEASED, WAITING, JobCount, WorkDone, count_finished, count_open_jobs, sum_work
from shared.queue.stages import DETECT
from shared.tables import QueueSample
from shared.vocabulary.states import JobState

#: Each interval has one sample; the first beat in it takes it.
INTERVAL = timedelta(seconds=15)
#: A sample after a longer gap counts as the first one.
_LONGEST_GAP = timedelta(days=7)
_EPOCH = sa.literal(datetime(2000, 1, 1, tzinfo=UTC), sa.DateTime(timezone=True))


@dataclass(frozen=True)
class Span:
    """A part of the past, from one or more samples."""

    at: datetime
    #: By state: of an open one the most jobs at any sample, of a final one the jobs that ended in it.
    jobs: Mapping[JobState, int]
    #: The longest wait at any sample.
    oldest_waiting_s: float
    elapsed_s: float
    #: The work of detect workers.
    batches: int
    images: int
    step_s: float


def take_sample(session: Session) -> bool:
    """Store a sample of the queue, unless this interval has one; return whether it was stored."""
    at = session.scalars(sa.select(sa.func.date_bin(INTERVAL, sa.func.now(), _EPOCH))).one()
    before = session.scalar(sa.select(sa.func.max(QueueSample.at)).where(QueueSample.at >= at - _LONGEST_GAP))
    if before is not None and before >= at:
        return False
    since = before or at - INTERVAL
    jobs, done = count_open_jobs(session), sum_work(session).get(DETECT.worker, WorkDone())
    levels = {str(state): jobs.get(state, JobCount()).count for state in (*WAITING, *LEASED)}
    # From sample to sample without a gap, so that each ended job counts once.
    ends = {str(state): count for state, count in count_finished(session, since, at).items()}
    values: dict[str, Any] = {
        "at": at,
        **levels,
        "oldest_waiting_s": max(jobs.get(state, JobCount()).oldest_s for state in WAITING),
        **ends,
        "elapsed_s": (at - since).total_seconds(),
        "batches": done.batches,
        "images": done.images,
        "step_s": done.step_s,
    }
    taken = insert(QueueSample).values(values).on_conflict_do_nothing().returning(QueueSample.at)
    return session.scalar(taken) is not None


def read_history(session: Session, past: timedelta, *, points: int) -> list[Span]:
    """Return the spans of some past time, the oldest first; about as many as `points`."""
    sample = QueueSample
    wanted = sample.at > sa.func.now() - past
    width = max(INTERVAL, past / points)

    def gain(column: sa.orm.InstrumentedAttribute[int] | sa.orm.InstrumentedAttribute[float]) -> sa.Label[float]:
        # The work of deleted rows of workers is kept in another row; if it were not, it would still count.
        more = column - sa.func.lag(column).over(order_by=sample.at)
        return sa.func.greatest(more, 0).label(column.key)

    states: Any = QueueSample.__table__.c
    levels: list[Any] = [*(states[state] for state in JobState.open()), sample.oldest_waiting_s]
    flows: list[Any] = [*(states[state] for state in FINAL), sample.elapsed_s]
    gains = [gain(column) for column in (sample.batches, sample.images, sample.step_s)]
    each = sa.select(sample.at, *levels, *flows, *gains).where(wanted).subquery()
    span = sa.func.date_bin(width, each.c.at, _EPOCH)
    rows = session.execute(
        sa.select(
            sa.func.max(each.c.at).label("at"),
            *(sa.func.max(each.c[column.key]).label(column.key) for column in levels),
            *(sa.func.sum(each.c[column.key]).label(column.key) for column in flows),
            *(sa.func.coalesce(sa.func.sum(each.c[column.key]), 0).label(column.key) for column in gains),
        )
        .group_by(span)
        .order_by(span)
    )
    return [_span(dict(row)) for row in rows.mappings()]


def _span(row: dict[Any, Any]) -> Span:
    jobs = {state: int(row.pop(str(state))) for state in JobState}
    # PostgreSQL makes decimals of sums of counts.
    others: dict[str, Any] = {name: int(each) if isinstance(each, Decimal) else each for name, each in row.items()}
    return Span(jobs=jobs, **others)


def count_past(session: Session, now: datetime, past: timedelta) -> dict[JobState, int]:
    """Count the jobs that ended in some past time, by state: from samples as far as there are any."""
    columns = {state: QueueSample.__table__.c[state] for state in FINAL}
    sums = [sa.func.coalesce(sa.func.sum(column), 0) for column in columns.values()]
    latest, *counted = session.execute(
        sa.select(sa.func.max(QueueSample.at), *sums).where(QueueSample.at > now - past)
    ).one()
    since = count_finished(session, latest or now - past)
    return {state: int(count) + since[state] for state, count in zip(columns, counted, strict=True)}


def work_before(session: Session, moment: datetime) -> WorkDone | None:
    """Return the work of detect workers at the first sample after a moment, if there is one."""
    first = sa.select(QueueSample).where(QueueSample.at >= moment).order_by(QueueSample.at).limit(1)
    sample = session.scalar(first)
    return None if sample is None else WorkDone(batches=sample.batches, images=sample.images, step_s=sample.step_s)
