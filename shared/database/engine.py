"""PostgreSQL through SQLAlchemy: one engine a process, one short transaction a change.

Nothing here needs a session of its own on the server (no startup option, prepared statement or session setting), so
that a pooler in transaction mode, as PgBouncer's, may stand in between.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from datetime import UTC, datetime
from typing import Any, Self, TypeVar
from uuid import UUID

import psycopg
import sqlalchemy as sa
from psycopg.abc import Buffer
from psycopg.types.datetime import TimestamptzLoader
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.orm import InstrumentedAttribute, Session
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from shared.database import project_scope
from shared.database.errors import READ_ONLY, explain_outage, shows_older_schema, spoils_connection
from shared.database.project_scope import ProjectSession
from shared.database.url import connection_parameters
from shared.errors import DatabaseUnavailable, SchemaOutdated
from shared.settings import Settings

Result = TypeVar("Result")

#: Of libpq, each unless the URL says otherwise. A peer that vanished is noticed within half a minute.
_DEFAULTS = {
    "application_name": "carina",
    "connect_timeout": "5",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
#: Raises the error of a change where changes are refused.
_WRITABLE = sa.text(
    "DO $$ BEGIN IF current_setting('transaction_read_only')::bool THEN"
    f" RAISE SQLSTATE '{READ_ONLY}' USING MESSAGE = 'the server is read-only'; END IF; END $$"
)


class Database:
    """A pool of connections to PostgreSQL. Safe to share between threads; not between processes."""

    def __init__(self, url: str, *, pool_size: int = 10, ca_bundle: str = "") -> None:
        """Keep at most so many connections; a request for another one waits for up to 10 s.

        The URL is libpq's: several hosts, `target_session_attrs`, `options` and `sslmode` mean what they mean there.
        Raises `MalformedDatabaseUrl`.
        """
        self.engine = sa.create_engine(
            "postgresql+psycopg://",
            pool_size=pool_size,
            max_overflow=0,
            pool_pre_ping=True,
            pool_timeout=10,
            hide_parameters=True,  # an error's text goes into the log
            connect_args={**_DEFAULTS, **connection_parameters(url, ca_bundle), "prepare_threshold": None},
        )
        #: Called at the end of each transaction, inside it; an error undoes the transaction.
        self.before_commit: Callable[[Session], None] | None = None
        sa.event.listen(self.engine, "connect", _read_times_as_utc)
        sa.event.listen(self.engine, "handle_error", _translate)
        project_scope.install(self.engine)
        #: The project that the sessions are limited to; None: they are not.
        self._project_id: UUID | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> "Database":
        """Connect to where the settings point."""
        url = settings.database_url.get_secret_value()
        return cls(url, pool_size=settings.database_connections, ca_bundle=settings.ca_bundle)

    def of_project(self, project_id: UUID) -> Self:
        """Return the same pool, whose sessions see and change the rows of one project only."""
        limited = copy(self)
        limited._project_id = project_id
        return limited

    def unrecorded(self) -> Self:
        """Return the same pool for bookkeeping that needs no audit row of its own, as the sweep does it."""
        plain = copy(self)
        plain.before_commit = None
        return plain

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """Yield a session whose transaction commits at the end; raise `DatabaseUnavailable` in an outage."""
        with self._open() as session, session.begin():
            try:
                project_scope.connect(session)
            except sa.exc.TimeoutError as exc:
                raise DatabaseUnavailable("No database connection became free in time.") from exc
            except (psycopg.Error, sa.exc.InvalidRequestError) as exc:  # The pool gave up on finding a live one.
                raise DatabaseUnavailable from exc
            yield session
            if self.before_commit is not None:
                self.before_commit(session)

    def _open(self) -> Session:
        return Session(self.engine) if self._project_id is None else ProjectSession(self.engine, self._project_id)

    def persist(self, change: Callable[[Session], Result], *, within_s: float) -> Result:
        """Run an idempotent change in a transaction of its own, again for up to `within_s` while the server is gone.

        A commit whose answer was lost may have happened: only a change that is fenced, and so does nothing the second
        time, belongs here.
        """

        def attempt() -> Result:
            with self.begin() as session:
                return change(session)

        return Retrying(
            retry=retry_if_exception_type(DatabaseUnavailable),
            stop=stop_after_delay(within_s),
            wait=wait_exponential(multiplier=0.2, max=2),
            reraise=True,
        )(attempt)

    def ping(self) -> None:
        """Raise `DatabaseUnavailable` unless the server answers and takes changes."""
        with self.begin() as session:
            session.execute(_WRITABLE)

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def _translate(context: ExceptionContext) -> DatabaseUnavailable | None:
    """Turn an outage into our error, and discard what it has spoiled: the session, or after a demotion all of them."""
    error = context.original_exception
    if context.is_pre_ping or not isinstance(error, psycopg.Error):
        return None
    if shows_older_schema(error):
        return SchemaOutdated()
    sentence = explain_outage(error)
    if sentence is None and not context.is_disconnect:
        return None
    if not context.is_disconnect and spoils_connection(error):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = error.sqlstate == READ_ONLY
    return DatabaseUnavailable(sentence)


class _UtcLoader(TimestamptzLoader):
    """Returns times in UTC, whatever time zone the connection has."""

    def load(self, data: Buffer) -> datetime:
        return super().load(data).astimezone(UTC)


def _read_times_as_utc(connection: psycopg.Connection[Any], _: object) -> None:
    connection.adapters.register_loader("timestamptz", _UtcLoader)


def is_any(column: InstrumentedAttribute[Any], values: Iterable[object]) -> sa.ColumnElement[bool]:
    """Whether a column is one of many values, sent as one array.

    `in_` sends each as a parameter: PostgreSQL takes 65,535 of them, and plans a statement anew for each number.
    """
    return column == sa.any_(sa.literal(list(values), ARRAY(column.type)))
