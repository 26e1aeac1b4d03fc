"""Ends the database sessions of processes that froze, or whose machine was lost, while they changed leased rows.

Otherwise PostgreSQL keeps the rows locked while the process is frozen, or for hours until it notices that the machine
is lost, and the expiry of leases skips locked rows.
"""

from typing import cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.leases import leased_tables

_FROZEN = sa.text(
    """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user AND state LIKE 'idle in transaction%'
        AND state_change < clock_timestamp() - make_interval(secs => :after_s)
        AND pid IN (
            SELECT pid FROM pg_locks
            WHERE relation IN (SELECT to_regclass(name) FROM unnest(CAST(:tables AS text[])) AS name)
                AND mode IN ('RowShareLock', 'RowExclusiveLock')
        )
    """
)


def end_frozen_sessions(session: Session, *, after_s: float) -> int:
    """End sessions that have held locks on leased rows and done nothing for `after_s`; return how many."""
    tables = [sa.inspect(table).local_table.name for table in leased_tables()]
    return cast("int", session.scalar(_FROZEN, {"after_s": after_s, "tables": tables}))
