"""How many connections each process opens at most: the sum for an installation is known from its processes."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.settings import Settings
from shared.vocabulary.states import WorkerKind

#: Kept free for `carina` commands, migrations and administrators.
SPARE = 10
#: For the main thread, the heartbeat, the readiness check, and one step that runs beside them.
_OWN_THREADS = 4
#: Processes with one more connection, which listens: see `shared.database.notices`.
_LISTENERS = ("api", WorkerKind.NOTIFY)


def process_of(kind: str) -> str:
    """Return the name of the process of this kind of worker."""
    return {WorkerKind.SWEEP: "beat", WorkerKind.TRAIN: "trainer"}.get(WorkerKind(kind), kind)


def pool_size(settings: Settings, process: str) -> int:
    """Return the size of a process's pool: what its threads need, but at most `database_connections`."""
    working: dict[str, int] = {
        WorkerKind.INTAKE: settings.intake_threads,
        WorkerKind.PREPARE: settings.prepare_threads,
        **dict.fromkeys((WorkerKind.DETECT, WorkerKind.NOTIFY, "trainer"), _OWN_THREADS),
        "beat": 0,
    }
    most = settings.database_connections
    return min(most, working[process] + _OWN_THREADS) if process in working else most


def most_connections(settings: Settings, process: str) -> int:
    """Return the most connections of a process."""
    return pool_size(settings, process) + (process in _LISTENERS)


def allowed_connections(session: Session) -> int:
    """Return how many connections the server accepts from ordinary users."""
    reserved = "current_setting('superuser_reserved_connections')::int"
    return int(session.scalars(sa.text(f"SELECT current_setting('max_connections')::int - {reserved}")).one())
