"""Leases: how workers claim, renew and release rows. The same code for jobs, files, deliveries and tasks.

Each change of a leased row is one UPDATE with the fence `(lease_owner, attempt)` and an unexpired lease. If it changes
no row, another worker holds the row now, or it was cancelled: the result must be dropped.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from shared.database import is_any
from shared.errors import CarinaError, PermanentError, Place, TransientError, UploadError, plain_code
from shared.tables.rows import Leased, Row
from shared.vocabulary.states import LeasedState, Phase

LOST_WORKER = plain_code(
    "worker_lost", "The worker of the job or file died or hung, in every attempt.", Place.JOB | Place.FILE
)
#: The longest backoff, in seconds.
MAX_BACKOFF_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A row that this process holds. Each kind of claim derives from it and adds the columns that its work needs."""

    owner: str
    attempt: int

    @property
    def table(self) -> type[Leased]:
        """The table of the row."""
        raise NotImplementedError

    @property
    def key(self) -> tuple[Any, ...]:
        """The primary key of the row."""
        raise NotImplementedError

    @property
    def waiting_state(self) -> LeasedState:
        """The state in which the row waits for another attempt."""
        raise NotImplementedError


# --- conditions: which rows ------------------------------------------------------------------------------------------


def held(leases: Collection[Lease]) -> sa.ColumnElement[bool]:
    """Return the fence: the condition that rows of one table are still held by these leases."""
    table = next(iter(leases)).table
    columns = primary_key(table)
    # Arrays, because a list of parameters would be a new statement to parse and plan for each length.
    arrays = [
        sa.literal(list(values), ARRAY(column.type))
        for column, values in zip(columns, zip(*(lease.key for lease in leases), strict=True), strict=True)
    ]
    attempts = sa.literal([lease.attempt for lease in leases], ARRAY(sa.Integer()))
    # The first conditions are redundant, but let PostgreSQL use the primary key. The state is left out, because it
    # follows from the owner, and with it PostgreSQL would use the index of leases and read all of them.
    return sa.and_(
        *(column == sa.any_(array) for column, array in zip(columns, arrays, strict=True)),
        sa.tuple_(*columns, table.attempt).in_(sa.select(*map(sa.func.unnest, (*arrays, attempts)))),
        is_any(table.lease_owner, sorted({lease.owner for lease in leases})),
        table.lease_expires_at > sa.func.now(),
    )


def expired(table: type[Leased], state: LeasedState, *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Return the condition that a row's lease in this state has expired. Skips rows locked by other transactions."""
    columns = primary_key(table)
    rows = sa.select(*columns).where(table.state == state, table.lease_expires_at <= sa.func.now(), *conditions)
    return sa.tuple_(*columns).in_(rows.with_for_update(skip_locked=True))


def is_leased(table: type[Leased]) -> sa.ColumnElement[bool]:
    """Return the condition that a row has a lease that has not expired."""
    # As literals, to use the partial index of leased rows.
    states = [sa.literal(str(state), sa.Text(), literal_execute=True) for state in table.states.in_phase(Phase.LEASED)]
    return sa.and_(table.state.in_(states), table.lease_expires_at > sa.func.now())


def is_due(table: type[Leased], state: LeasedState) -> sa.ColumnElement[bool]:
    """Return the condition that a row can be claimed now."""
    return sa.and_(table.state == state, table.available_at <= sa.func.now())


# --- values: how they change -----------------------------------------------------------------------------------------


def leased_values(table: type[Leased], state: LeasedState, owner: str, lease_s: float) -> dict[str, Any]:
    """Return the new columns of a row that a worker claims."""
    attempt = table.attempt + 1
    return {"state": state, "lease_owner": owner, "lease_expires_at": in_seconds(lease_s), "attempt": attempt}


def waiting_values(state: LeasedState, pause_s: float = 0) -> dict[str, Any]:
    """Return the new columns of a row that can be claimed again after `pause_s`."""
    return {"state": state, "lease_owner": None, "lease_expires_at": None, "available_at": in_seconds(pause_s)}


def final_values(state: LeasedState) -> dict[str, Any]:
    """Return the new columns of a row in a final state."""
    return {"state": state, "lease_owner": None, "lease_expires_at": None, "finished_at": sa.func.now()}


def lost(what: str) -> dict[str, str]:
    """Return the code and reason of a row whose worker stopped responding."""
    return {"code": LOST_WORKER, "reason": f"The worker that had the {what} stopped responding."}


def reason_of(error: CarinaError) -> dict[str, str]:
    """Return the code and reason of a row after an error."""
    return {"code": error.code, "reason": error.public_detail}


# --- changes ---------------------------------------------------------------------------------------------------------


def change(session: Session, table: type[Leased], which: sa.ColumnElement[bool], **values: Any) -> list[Any]:
    """Change the rows that meet a condition; return the first column of their primary keys."""
    update = sa.update(table).where(which).values(**values).returning(primary_key(table)[0])
    return list(session.scalars(update.execution_options(synchronize_session=False)))


def change_held(session: Session, leases: Iterable[Lease], **values: Any) -> int:
    """Change the rows of these leases, in one or several tables; return how many were still held."""
    by_table: dict[type[Leased], list[Lease]] = defaultdict(list)
    for lease in leases:
        by_table[lease.table].append(lease)
    return sum(len(change(session, table, held(rows), **values)) for table, rows in by_table.items())


def renew(session: Session, leases: Iterable[Lease], *, lease_s: float, **values: Any) -> int:
    """Extend these leases to `lease_s` from now; return how many were still held."""
    return change_held(session, leases, lease_expires_at=in_seconds(lease_s), **values)


def release(session: Session, leases: Iterable[Lease], *, pause_s: float = 0, **values: Any) -> int:
    """Release rows as if they had not been claimed; return how many were still held."""
    alike: dict[tuple[type[Leased], LeasedState], list[Lease]] = defaultdict(list)
    for lease in leases:
        alike[lease.table, lease.waiting_state].append(lease)
    return sum(
        change_held(session, rows, **waiting_values(state, pause_s), **values, attempt=table.attempt - 1)
        for (table, state), rows in alike.items()
    )


def list_owners(session: Session) -> set[str]:
    """Return the owners of all leases that have not expired."""
    return {
        str(owner)
        for table in leased_tables()
        for owner in session.scalars(sa.select(table.lease_owner).where(is_leased(table)).distinct())
    }


def end_leases(session: Session, owners: Collection[str]) -> int:
    """End the leases of processes that have ended, so that the next sweep returns their rows; return how many.

    If such a process lives after all, its results are dropped, as after any expired lease.
    """
    count = 0
    for table in leased_tables():
        columns = primary_key(table)
        rows = sa.select(*columns).where(is_leased(table), is_any(table.lease_owner, sorted(owners)))
        which = sa.tuple_(*columns).in_(rows.with_for_update(skip_locked=True))
        count += len(change(session, table, which, lease_expires_at=sa.func.now()))
    return count


# --- after an error --------------------------------------------------------------------------------------------------


def ends_as(error: CarinaError, attempt: int, *, max_attempts: int) -> Literal["rejected", "failed"] | None:
    """Return the final state of a row after an error; None if it gets another attempt.

    A permanent error rejects the row, and an `UploadError` fails it. After any other error it is tried again, until
    `max_attempts` are used up. An outage of a server does not count as an attempt.
    """
    if isinstance(error, PermanentError):
        return "rejected"
    used_up = attempt >= max_attempts and not is_outage(error)
    return "failed" if used_up or isinstance(error, UploadError) else None


def try_again(session: Session, lease: Lease, error: CarinaError, *, backoff_s: float, **values: Any) -> bool:
    """Release a row for another attempt, after a pause that doubles each time; return whether it was still held.

    An outage of a server does not count as an attempt.
    """
    pause_s = pause_after(lease.attempt, first_s=backoff_s)
    give_back = waiting_values(lease.waiting_state, pause_s) | reason_of(error) | values
    if is_outage(error):
        give_back["attempt"] = lease.attempt - 1
    return change_held(session, [lease], **give_back) > 0


def is_outage(error: CarinaError) -> bool:
    """Whether a server was unavailable. Such an error is not caused by the row."""
    return isinstance(error, TransientError) and not error.counts


def pause_after(attempt: int, *, first_s: float, max_s: float = MAX_BACKOFF_S) -> float:
    """Return the seconds to wait after an attempt: doubled each time, at most `max_s`."""
    return min(first_s * 2.0 ** min(attempt - 1, 30), max_s)


# --- the database's side ---------------------------------------------------------------------------------------------


def in_seconds(seconds: float) -> sa.ColumnElement[datetime]:
    """Return the time `seconds` from now, by the database's clock."""
    return sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def leased_tables() -> list[type[Leased]]:
    """Return all tables with leases, by name."""
    found = {
        mapper.local_table.name: mapper.class_  # type: ignore[attr-defined]
        for mapper in Row.registry.mappers
        if issubclass(mapper.class_, Leased)
    }
    return [found[name] for name in sorted(found)]


def primary_key(table: type[Leased]) -> tuple[sa.Column[Any], ...]:
    """Return the columns of a table's primary key."""
    return sa.inspect(table).primary_key  # type: ignore[no-any-return]
