"""PostgreSQL through SQLAlchemy: one engine per process, one short transaction per change.

No code here depends on the state of a server session (startup options, prepared statements, session settings), so it
works through a pooler in transaction mode, such as PgBouncer.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
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
from shared.database.idle_pool import IdlePool
from shared.database.notices import send_notices
from shared.database.project_scope import ProjectSession
from shared.database.sizing import pool_size as size_of
from shared.database.url import connection_parameters
from shared.errors import DatabaseUnavailable, SchemaOutdated
from shared.settings import Settings

Result = TypeVar("Result")

#: Parameters of libpq, unless the URL sets them. A lost peer is detected within 30 s.
_DEFAULTS = {
    "connect_timeout": "5",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
#: Raises the error that a change would raise on a read-only server.
_WRITABLE = sa.text(
    "DO $$ BEGIN IF current_setting('transaction_read_only')::bool THEN"
    f" RAISE SQLSTATE '{READ_ONLY}' USING MESSAGE = 'the server is read-only'; END IF; END $$"
)


class Database:
    """A pool of connections to PostgreSQL. Thread-safe; must not be shared between processes."""

    def __init__(self, url: str, *, pool_size: int = 10, ca_bundle: str = "", name: str = "carina") -> None:
        """Open at most `pool_size` connections; a request for another one waits up to 10 s.

        The URL has libpq's syntax, including several hosts, `target_session_attrs`, `options` and `sslmode`. `name` is
        the `application_name` of the connections, unless the URL has one. Raises `MalformedDatabaseUrl`.
        """
        named = {"application_name": name, **_DEFAULTS}
        self._parameters = {**named, **connection_parameters(url, ca_bundle), "prepare_threshold": None}
        self.engine = sa.create_engine(
            "postgresql+psycopg://",
            poolclass=IdlePool,
            pool_size=pool_size,
            max_overflow=0,
            pool_pre_ping=True,
            pool_timeout=10,
            hide_parameters=True,  # error texts are logged
            connect_args=self._parameters,
        )
        #: Called in each transaction before its commit; an error rolls the transaction back.
        self.before_commit: Callable[[Session], None] | None = None
        sa.event.listen(self.engine, "connect", _read_times_as_utc)
        sa.event.listen(self.engine, "handle_error", _translate)
        project_scope.install(self.engine)
        #: The project to which the sessions are limited; None: unlimited.
        self._project_id: UUID | None = None

    @classmethod
    def from_settings(cls, settings: Settings, process: str = "command") -> "Database":
        """Return a pool for the database in the settings, with the size and name for this kind of process."""
        url, size = settings.database_url.get_secret_value(), size_of(settings, process)
        return cls(url, pool_size=size, ca_bundle=settings.ca_bundle, name=f"carina-{process}")

    def of_project(self, project_id: UUID) -> Self:
        """Return a view of this pool whose sessions read and change only the rows of one project."""
        limited = copy(self)
        limited._project_id = project_id
        return limited

    def unrecorded(self) -> Self:
        """Return a view of this pool without `before_commit`, for housekeeping that needs no audit row."""
        plain = copy(self)
        plain.before_commit = None
        return plain

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """Yield a session whose transaction commits at the end; raise `DatabaseUnavailable` during an outage."""
        with self._open() as session, session.begin():
            try:
                project_scope.connect(session)
            except sa.exc.TimeoutError as exc:
                raise DatabaseUnavailable("No database connection became free in time.") from exc
            except (psycopg.Error, sa.exc.InvalidRequestError) as exc:  # the pool found no live connection
                raise DatabaseUnavailable from exc
            yield session
            if self.before_commit is not None:
                self.before_commit(session)
        with suppress(DatabaseUnavailable, sa.exc.TimeoutError, psycopg.Error):  # the change itself is committed
            send_notices(session, self.engine)

    def _open(self) -> Session:
        return Session(self.engine) if self._project_id is None else ProjectSession(self.engine, self._project_id)

    def persist(self, change: Callable[[Session], Result], *, within_s: float) -> Result:
        """Run an idempotent change in its own transaction; retry it for up to `within_s` while the server is down.

        If the answer to a commit is lost, the change may be applied already. So `change` must be fenced: running it
        again must do nothing.
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

    @contextmanager
    def dedicated_connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Yield an autocommit connection outside the pool; raise `DatabaseUnavailable` during an outage."""
        try:
            with psycopg.connect(**self._parameters, autocommit=True) as connection:
                yield connection
        except psycopg.OperationalError as exc:
            raise DatabaseUnavailable(explain_outage(exc)) from exc

    def ping(self) -> None:
        """Raise `DatabaseUnavailable` unless the server answers and accepts changes."""
        with self.begin() as session:
            session.execute(_WRITABLE)

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def _translate(context: ExceptionContext) -> DatabaseUnavailable | None:
    """Translate an outage into our error; discard the broken connection, or all of them if the server is read-only."""
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
    """Returns times in UTC, whatever the time zone of the connection."""

    def load(self, data: Buffer) -> datetime:
        return super().load(data).astimezone(UTC)


def _read_times_as_utc(connection: psycopg.Connection[Any], _: object) -> None:
    connection.adapters.register_loader("timestamptz", _UtcLoader)


def is_any(
    column: sa.ColumnElement[Any] | InstrumentedAttribute[Any], values: Iterable[object]
) -> sa.ColumnElement[bool]:
    """The condition that a column has one of these values, which are sent as one array.

    `in_` sends one parameter per value: PostgreSQL accepts at most 65,535, and plans a statement for each count.
    """
    return column == sa.any_(sa.literal(list(values), ARRAY(column.type)))
