"""Everything works through PgBouncer in transaction mode, where each transaction may get another session."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import sqlalchemy as sa

from shared import migrations
from shared.database import Database
from shared.tables import Job, Worker
from shared.vocabulary.states import WorkerKind
from tests.e2e.conftest import Stack, running_stack
from tests.e2e.sent_images import ImageSender, assert_undisturbed
from tests.own_pgbouncer import own_pgbouncer
from tests.own_postgres import OwnPostgres, own_postgres
from tests.requirements import REPOSITORY

pytestmark = pytest.mark.needs("pgbouncer")

#: Of the server, for some ten processes with several threads each.
SESSIONS = 5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnPostgres]:
    with own_postgres(tmp_path_factory.mktemp("own")) as server:
        # What a session is set to otherwise must not matter.
        server.run("ALTER DATABASE carina SET timezone = 'Asia/Kathmandu'")
        yield server


@pytest.fixture(scope="module")
def url(server: OwnPostgres) -> Iterator[str]:
    """The database by way of PgBouncer."""
    with own_pgbouncer(server, sessions=SESSIONS) as url:
        yield url


@pytest.fixture(scope="module")
def stack(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose every process, and whose migrations, go through PgBouncer."""
    with running_stack(tmp_path_factory.mktemp("stack"), CARINA_DATABASE_URL=url, CARINA_LEASE_S="60") as running:
        yield running


def test_claims_commits_requests_and_migrations(
    stack: Stack, sender: ImageSender, server: OwnPostgres, url: str
) -> None:
    assert stack.settings.database_url.get_secret_value() == url

    code = (
        "from shared import migrations; from shared.database import Database; "
        f"database = Database({url!r}, pool_size=2); migrations.upgrade(database); migrations.check(database)"
    )
    migrators = [subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY) for _ in range(3)]
    made = sender.make(48)
    paths = list(made.values())
    with ThreadPoolExecutor(8) as threads:
        sending = [threads.submit(stack.client.submit, paths[first::4]) for first in range(4)]
        asking = [threads.submit(lambda: [len(list(stack.client.studies())) for _ in range(20)]) for _ in range(4)]
        outcomes = [outcome for each in sending for outcome in each.result()]
        for each in asking:
            each.result()
    assert [migrator.wait() for migrator in migrators] == [0, 0, 0]
    sent = {outcome.job_id: made[outcome.name] for outcome in outcomes if outcome.job_id}
    assert len(sent) == len(made)
    assert_undisturbed(stack, sender, sent)
    assert stack.query(sa.select(sa.func.max(Job.attempt)).where(Job.id.in_(sent)))[0][0] == 1
    seen = sa.select(Worker.stage).where(Worker.seen_at > sa.func.now() - sa.text("interval '90 s'"))
    assert {row.stage for row in stack.query(seen)} == set(WorkerKind)
    said = stack.said.read_text() + "".join(path.read_text() for path in (stack.data / "log").iterdir())
    for complaint in ("loop_failed", "database_unavailable", "Traceback", "sweep_failed"):
        assert complaint not in said, said
    with psycopg.connect(server.url()) as connection:
        used = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = 'carina' AND pid <> pg_backend_pid()"
        ).fetchone()
    assert used is not None
    assert used[0] <= SESSIONS


def test_a_schema_is_made_and_undone(server: OwnPostgres, url: str) -> None:
    server.run("CREATE DATABASE other")
    database = Database(url.removesuffix("/carina") + "/other", pool_size=2)
    migrations.upgrade(database)
    migrations.check(database)
    migrations.downgrade(database)
    migrations.upgrade(database)
    assert migrations.is_current(database)
    database.close()
