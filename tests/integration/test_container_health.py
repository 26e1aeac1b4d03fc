"""What Docker asks a worker's container."""

import socket
import subprocess
import sys

import sqlalchemy as sa

from deploy.health import worker_is_alive
from shared.database import Database
from shared.queue.states import Stage
from shared.tables import Worker
from workers.heartbeat import Heartbeat

HOST = socket.gethostname()


def test_a_worker_is_alive_from_its_first_life_sign_until_it_stops(database: Database) -> None:
    heartbeat = Heartbeat(database, Stage.PREPARE, lease_s=60, stuck_after_s=60)
    assert not worker_is_alive(database, HOST)
    heartbeat.start()
    assert worker_is_alive(database, HOST)
    assert not worker_is_alive(database, HOST[1:])
    heartbeat.stop()
    assert not worker_is_alive(database, HOST)


def test_a_silent_worker_is_not_alive(database: Database, environ: dict[str, str]) -> None:
    with database.begin() as session:
        session.add(Worker(id=f"detect@{HOST}:1:x", stage=Stage.DETECT))
    assert _exit_code(environ) == 0
    with database.begin() as session:
        session.execute(sa.update(Worker).values(seen_at=sa.func.now() - sa.text("interval '1 hour'")))
    assert _exit_code(environ) == 1


def _exit_code(environ: dict[str, str]) -> int:
    return subprocess.run([sys.executable, "-m", "deploy.health"], env=environ, timeout=60, check=False).returncode
