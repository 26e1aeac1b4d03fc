"""The API answers 503 while PostgreSQL fails, never 500, and goes on by itself: on a server of these tests' own."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from api.app import create_app
from api.http.services import NAME
from deploy.stack import postgres
from shared import migrations
from shared.access.keys import create_key
from shared.database import Database
from shared.object_store import ObjectStore
from shared.settings import Settings
from shared.vocabulary.states import Scope
from tests.integration.conftest import Api, png
from tests.own_postgres import OwnPostgres, own_postgres
from tests.waiting import wait_for

CONNECTIONS = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnPostgres]:
    settings = (f"max_connections={CONNECTIONS}", "superuser_reserved_connections=2")
    with own_postgres(tmp_path_factory.mktemp("own"), *settings) as server:
        database = Database(server.url())
        migrations.upgrade(database)
        database.close()
        # Connections that are kept free for a superuser are of no use to Carina.
        server.run("CREATE ROLE app LOGIN PASSWORD 'app'", f"ALTER DATABASE {postgres.DATABASE} OWNER TO app")
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
        yield server


@pytest.fixture
def api(server: OwnPostgres, servers: dict[str, str]) -> Iterator[Api]:
    """The application as a user without privileges, with a pool that is filled."""
    url = f"postgresql://app:app@127.0.0.1:{server.port}/{postgres.DATABASE}"
    settings = Settings.from_env(servers | {"CARINA_DATABASE_URL": url, "CARINA_DATABASE_CONNECTIONS": "4"})
    ObjectStore(settings).ensure_bucket()
    app = create_app(settings)
    with app.extensions[NAME].installation.begin() as session:
        key = create_key(session, project_name="ward", name="all", scopes=list(Scope))
    yield Api(app.test_client(), key)
    app.extensions[NAME].close()


@contextmanager
def read_only(server: OwnPostgres) -> Iterator[None]:
    server.set_read_only(True)
    server.terminate_sessions()
    try:
        yield
    finally:
        server.set_read_only(False)


@contextmanager
def ended(server: OwnPostgres, number: signal.Signals) -> Iterator[None]:
    server.stop(number)
    try:
        yield
    finally:
        server.start()


@contextmanager
def terminated(server: OwnPostgres) -> Iterator[None]:
    """Sessions end all the while."""
    over = threading.Event()

    def terminate() -> None:
        while not over.wait(0.01):
            server.terminate_sessions()

    ending = threading.Thread(target=terminate)
    ending.start()
    try:
        yield
    finally:
        over.set()
        ending.join()


@contextmanager
def out_of_connections(server: OwnPostgres) -> Iterator[None]:
    server.terminate_sessions()
    taken: list[psycopg.Connection] = []
    try:
        while True:
            try:
                taken.append(psycopg.connect(server.url("postgres")))
            except psycopg.OperationalError:
                break
        yield
    finally:
        for connection in taken:
            connection.close()


OUTAGES: dict[str, Callable[[OwnPostgres], object]] = {
    "read-only": read_only,
    "restarted": lambda server: ended(server, signal.SIGINT),
    "killed": lambda server: ended(server, signal.SIGKILL),
    "sessions terminated": terminated,
    "out of connections": out_of_connections,
}


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
def test_every_answer_in_an_outage_is_a_503_and_the_next_one_is_right(
    server: OwnPostgres, api: Api, outage: Callable
) -> None:
    calls: list[Callable] = [
        lambda: api.get("/v1/studies"),
        lambda: api.send(("image.png", png(1))),
        lambda: api.post("/v1/jobs/retry", {"code": "image_too_large"}),
        lambda: api.post("/v1/submissions", {}),
        lambda: api.get("/v1/queue"),
        lambda: api.get("/v1/audit-events"),
        lambda: api.get("/readyz"),
    ]
    for call in calls:
        wait_for(lambda call=call: call().status_code < 300)
    seen = set()
    with outage(server):
        for call in calls * 3:
            answer = call()
            seen.add(answer.status_code)
            assert answer.status_code < 300 or answer.status_code == 503, answer.get_data(as_text=True)
            if answer.status_code == 503 and answer.content_type == "application/problem+json":
                assert answer.json["code"] == "database_unavailable"
                assert answer.json["detail"].endswith(".")
    assert 503 in seen
    for call in calls:
        wait_for(lambda call=call: call().status_code < 300)
        assert call().status_code < 300
