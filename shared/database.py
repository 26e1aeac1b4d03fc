"""PostgreSQL through SQLAlchemy: one engine a process, one short transaction a change."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import InstrumentedAttribute, Session
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from shared.errors import DatabaseUnavailable
from shared.settings import Settings

Result = TypeVar("Result")


class Database:
    """A pool of connections to PostgreSQL. Safe to share between threads; not between processes."""

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        """Keep at most so many connections; who wants another one waits for up to 10 s."""
        self.engine = sa.create_engine(
            sa.make_url(url).set(drivername="postgresql+psycopg"),
            pool_size=pool_size,
            max_overflow=0,
            pool_pre_ping=True,
            pool_timeout=10,
            hide_parameters=True,  # an error's text goes into the log
            connect_args={"connect_timeout": 5, "application_name": "carina", "options": "-c timezone=UTC"},
        )

    @classmethod
    def from_settings(cls, settings: Settings) -> "Database":
        """Connect to where the settings point."""
        return cls(settings.database_url.get_secret_value(), pool_size=settings.database_connections)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """Yield a session whose transaction commits at the end; raise `DatabaseUnavailable` when the server is gone."""
        try:
            with Session(self.engine) as session, session.begin():
                yield session
        except sa.exc.TimeoutError as exc:
            raise DatabaseUnavailable("No database connection became free in time.") from exc
        except DBAPIError as exc:
            if isinstance(exc, sa.exc.OperationalError) or exc.connection_invalidated:
                raise DatabaseUnavailable from exc
            raise

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
        """Ask the server for an answer; raise `DatabaseUnavailable` when it does not answer."""
        with self.begin() as session:
            session.execute(sa.text("SELECT 1"))

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def is_any(column: InstrumentedAttribute[Any], values: Iterable[object]) -> sa.ColumnElement[bool]:
    """Whether a column is one of many values, sent as one array.

    `in_` sends each as a parameter: PostgreSQL takes 65,535 of them, and plans a statement anew for each number.
    """
    return column == sa.any_(sa.literal(list(values), ARRAY(column.type)))
