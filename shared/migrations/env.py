"""What Alembic runs: each migration in a transaction of its own, one migrator at a time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import context

from shared.tables import Row

#: An arbitrary number that no other advisory lock uses.
_ONE_MIGRATOR = 0xCA41_4A
_POLL_S = 0.2
#: A change of a table waits for those who read it, and everybody else waits behind it. So it gives up soon, and
#: `upgrade` tries again.
_LOCK_TIMEOUT = "2s"


@contextmanager
def _one_migrator(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Hold the lock in a transaction that does nothing else, for a pooler may give each one to another session.

    It must be asked for again and again: a session that waits for a lock has a snapshot, for whose end an index that
    is built concurrently would wait in turn.
    """
    with engine.connect() as holder:
        while not holder.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_ONE_MIGRATOR))):
            holder.rollback()
            time.sleep(_POLL_S)
        holder.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        yield holder
        holder.rollback()


def _limit_waits(connection: sa.Connection) -> None:
    """Of each transaction; where each statement commits on its own, this has no effect."""
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")


def _run(connection: sa.Connection, holder: sa.Connection | None) -> None:
    def still_alone(*_: object, **__: object) -> None:
        if holder is not None:
            holder.execute(sa.text("SELECT 1"))

    context.configure(
        connection=connection,
        target_metadata=Row.metadata,
        compare_server_default=True,
        transaction_per_migration=True,
        on_version_apply=still_alone,
    )
    with context.begin_transaction():
        context.run_migrations()


_engine: sa.Engine = context.config.attributes["engine"]
with _engine.connect() as _connection:
    if context.config.attributes["changes"]:
        sa.event.listen(_connection, "begin", _limit_waits)
        with _one_migrator(_engine) as _holder:
            _run(_connection, _holder)
    else:
        _run(_connection, None)
