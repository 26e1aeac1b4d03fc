"""Is this container's worker alive? `python -m deploy.health` exits 1 unless its life sign in the database is fresh."""

import socket
import sys

import sqlalchemy as sa

from shared.database import Database
from shared.queue.hints import is_alive
from shared.settings import Settings
from shared.tables import Worker


def worker_is_alive(database: Database, host: str) -> bool:
    """Whether a worker on `host` that has not stopped was seen of late; raises `DatabaseUnavailable`."""
    fresh = sa.and_(
        Worker.id.contains(f"@{host}:", autoescape=True),
        is_alive(),
    )
    with database.begin() as session:
        return bool(session.scalar(sa.select(sa.exists().where(fresh))))


if __name__ == "__main__":
    # The settings come from the environment, which mypy cannot see.
    sys.exit(not worker_is_alive(Database.from_settings(Settings()), socket.gethostname()))
