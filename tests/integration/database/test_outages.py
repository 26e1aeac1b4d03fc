"""What becomes of sessions when PostgreSQL fails, on a server of these tests' own."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC

import psycopg
import pytest
import sqlalchemy as sa

from shared.database import Database
from shared.database.errors import explain_outage
from shared.database.url import MalformedDatabaseUrl
from shared.errors import DatabaseUnavailable, SchemaOutdated
from tests.own_postgres import OwnPostgres, own_postgres
from tests.ports import free_port

#: In which an answer has to come back once the server is well again.
SOON_S = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnPostgres]:
    with own_postgres(tmp_path_factory.mktemp("own"), "max_connections=20") as server:
        server.run("CREATE DATABASE counted")
        yield server


@pytest.fixture
def counted(server: OwnPostgres) -> Iterator[Database]:
    """A database with a counter, and sessions that were open before anything happened."""
    database = Database(server.url(), pool_size=4)
    with database.begin() as session:
        session.execute(sa.text("CREATE TABLE IF NOT EXISTS counter (value bigint NOT NULL)"))
        session.execute(sa.text("TRUNCATE counter"))
        session.execute(sa.text("INSERT INTO counter VALUES (0)"))
    open_sessions(database)
    yield database
    database.close()


def open_sessions(database: Database) -> None:
    """Fill the pool."""
    connections = [database.engine.connect() for _ in range(4)]
    for connection in connections:
        connection.close()


def run(database: Database, *steps: str | Callable[[], object]) -> None:
    """Take steps within one transaction: statements, and what happens between them."""
    with database.begin() as session:
        for step in steps:
            session.execute(sa.text(step)) if isinstance(step, str) else step()


COUNT = "UPDATE counter SET value = value + 1"


def count(database: Database) -> None:
    run(database, COUNT)


def counts_soon(database: Database) -> int:
    """Count until it succeeds; only `DatabaseUnavailable` may be raised meanwhile. Return how often it was."""
    deadline, failures = time.monotonic() + SOON_S, 0
    while True:
        try:
            count(database)
        except DatabaseUnavailable:
            failures += 1
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return failures


@pytest.mark.parametrize("scope", ["SYSTEM", "DATABASE carina"])
def test_read_only_and_back(server: OwnPostgres, counted: Database, scope: str) -> None:
    """Of a database that is set so, sessions keep the setting with which they began."""
    server.run(f"ALTER {scope} SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    server.terminate_sessions()
    try:
        open_sessions(counted)
        with pytest.raises(DatabaseUnavailable, match="takes no changes"):
            count(counted)
        with pytest.raises(DatabaseUnavailable, match="takes no changes"):
            counted.ping()
        open_sessions(counted)
    finally:
        server.run(f"ALTER {scope} RESET default_transaction_read_only", "SELECT pg_reload_conf()")
    # The first one finds out, and no other session is left of that time.
    assert counts_soon(counted) <= 1
    for _ in range(8):
        count(counted)
    counted.ping()


def test_sessions_that_are_terminated_under_load(server: OwnPostgres, counted: Database) -> None:
    """Every error is ours, and no change that was reported as made is lost."""
    made, errors = [0] * 4, []
    stop = threading.Event()

    def load(number: int) -> None:
        while not stop.is_set():
            try:
                count(counted)
                made[number] += 1
            except DatabaseUnavailable:
                pass
            except Exception as exc:  # noqa: BLE001 - to be shown by the test
                errors.append(exc)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        server.terminate_sessions()
        time.sleep(0.03)
    stop.set()
    for thread in threads:
        thread.join()
    counts_soon(counted)
    with counted.begin() as session:
        value = session.scalar(sa.text("SELECT value FROM counter"))
    assert errors == []
    assert value >= sum(made) + 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_server_ends_and_comes_back(server: OwnPostgres, counted: Database, number: signal.Signals) -> None:
    with pytest.raises(DatabaseUnavailable):
        run(counted, COUNT, lambda: server.stop(number), COUNT)
    with pytest.raises(DatabaseUnavailable):
        count(counted)
    server.start()
    counts_soon(counted)
    with counted.begin() as session:
        assert session.scalar(sa.text("SELECT value FROM counter")) == 1


def test_out_of_connections(server: OwnPostgres, counted: Database) -> None:
    counted.close()
    server.run("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    url = server.url().replace(server.url().partition("//")[2].partition("@")[0], "guest:guest")
    other, guest = Database(server.url(), pool_size=30), Database(url)
    taken = []

    def take_all() -> None:
        while True:
            taken.append(other.engine.connect())

    try:
        with pytest.raises(DatabaseUnavailable, match="max_connections"):
            take_all()
        with pytest.raises(DatabaseUnavailable, match="max_connections"):
            guest.ping()
    finally:
        for connection in taken:
            connection.close()
        other.close()
        guest.close()
        server.run("DROP ROLE guest")
    counts_soon(counted)


@pytest.mark.parametrize(
    ("setting", "sentence"), [("statement_timeout", "cancelled"), ("lock_timeout", "stayed locked")]
)
def test_a_statement_that_waits_for_a_lock(counted: Database, setting: str, sentence: str) -> None:
    with counted.begin() as holder:
        holder.execute(sa.text("UPDATE counter SET value = value + 1"))
        with pytest.raises(DatabaseUnavailable, match=sentence):
            run(counted, f"SET LOCAL {setting} = '50ms'", COUNT)


def test_transactions_that_collide(counted: Database) -> None:
    isolate = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"
    with pytest.raises(DatabaseUnavailable, match="collided"):
        run(counted, isolate, "SELECT value FROM counter", lambda: count(counted), COUNT)


def pid_of(database: Database) -> int:
    """Which session of the server a transaction gets, where there is but one at a time."""
    with database.begin() as session:
        return session.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()


@pytest.mark.parametrize("sqlstate", ["53100", "53200", "57P03", "58030", "08006"])
def test_the_session_that_met_an_outage_is_not_used_again(server: OwnPostgres, sqlstate: str) -> None:
    """Raised by the server itself, for these are hard to make."""
    database = Database(server.url(), pool_size=1)
    before = pid_of(database)
    assert pid_of(database) == before
    with pytest.raises(DatabaseUnavailable):
        run(database, f"DO $$ BEGIN RAISE SQLSTATE '{sqlstate}'; END $$")
    assert pid_of(database) != before
    database.close()


def test_a_session_that_was_idle_for_too_long(counted: Database) -> None:
    limit = "SET LOCAL idle_in_transaction_session_timeout = '10ms'"
    with pytest.raises(DatabaseUnavailable):
        run(counted, limit, lambda: time.sleep(0.5), COUNT)


def test_an_error_of_the_statement_is_no_outage(counted: Database) -> None:
    with pytest.raises(sa.exc.ProgrammingError), counted.begin() as session:
        session.execute(sa.text("SELECT FROM WHERE"))
    with pytest.raises(sa.exc.DataError), counted.begin() as session:
        session.execute(sa.text("SELECT 1 / 0"))


@pytest.mark.parametrize("statement", ["SELECT * FROM missing", "SELECT missing FROM counter"])
def test_a_table_or_column_that_is_missing_is_still_to_be_migrated(counted: Database, statement: str) -> None:
    with pytest.raises(SchemaOutdated, match="carina migrate"):
        run(counted, statement)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("SSL connection has been closed unexpectedly", "does not answer"),
        ("SSL SYSCALL error: EOF detected", "does not answer"),
        ("SSL error: unexpected eof while reading", "does not answer"),
        ("server does not support SSL, but SSL was required", "sslmode"),
        ("SSL error: certificate verify failed", "sslmode"),
        ('server certificate for "a" does not match host name "b"', "sslmode"),
        ('root certificate file "/a" does not exist', "sslmode"),
    ],
)
def test_only_a_connection_that_tls_refuses_blames_tls(said: str, sentence: str) -> None:
    """In libpq's words, for a server cuts a TLS connection in the middle only by chance."""
    assert sentence in str(explain_outage(psycopg.OperationalError(said)))


@pytest.mark.parametrize(
    ("sqlstate", "sentence"),
    [("57P03", "starting, stopping"), ("57P04", "does not exist"), ("57P05", "idle_session_timeout")],
)
def test_a_session_that_the_server_ends_says_why(server: OwnPostgres, sqlstate: str, sentence: str) -> None:
    database = Database(server.url())
    with pytest.raises(DatabaseUnavailable, match=sentence):
        run(database, f"DO $$ BEGIN RAISE SQLSTATE '{sqlstate}'; END $$")
    database.close()


def test_a_refused_connection_says_why(server: OwnPostgres) -> None:
    url = server.url()
    password = url.partition("carina:")[2].partition("@")[0]
    port = free_port()
    refused = {
        url.replace(password, "guess"): "user or the password",
        url.replace("carina:", "nobody:"): "user or the password",
        f"{url}_missing": "does not exist",
        url.replace("127.0.0.1", "missing.invalid"): "cannot be found",
        f"{url}?sslmode=require": "sslmode",
        f"{url}?target_session_attrs=standby": "does not answer",
        url.replace(str(server.port), str(port)): "does not answer",
    }
    for each, sentence in refused.items():
        database = Database(each)
        with pytest.raises(DatabaseUnavailable, match=sentence) as raised:
            database.ping()
        assert password not in raised.value.detail
        database.close()
    for malformed in ("nonsense", "postgresql://user:100%@host/x", f"{url}?unknown=1"):
        with pytest.raises(MalformedDatabaseUrl):
            Database(malformed)


def test_the_url_means_what_it_means_to_libpq(server: OwnPostgres, counted: Database) -> None:
    """Several hosts, of which the one that takes changes is chosen; options; and SQLAlchemy's scheme."""
    port = free_port()
    url = server.url().replace("127.0.0.1:", f"127.0.0.1:{port},127.0.0.1:")
    database = Database(f"{url}?target_session_attrs=read-write&options=-csearch_path%3Dpg_catalog")
    with database.begin() as session:
        assert session.scalar(sa.text("SHOW search_path")) == "pg_catalog"
    database.close()
    database = Database(server.url().replace("postgresql:", "postgresql+psycopg:"))
    database.ping()
    database.close()


def test_times_come_in_utc_whatever_the_time_zone_of_the_session(server: OwnPostgres, counted: Database) -> None:
    server.run("ALTER DATABASE carina SET timezone = 'Australia/Eucla'")
    try:
        counted.close()
        with counted.begin() as session:
            assert session.scalar(sa.text("SHOW timezone")) == "Australia/Eucla"
            now, summer = session.execute(sa.text("SELECT now(), '2020-07-01T12:00+02'::timestamptz")).one()
        assert now.tzinfo is UTC
        assert summer.isoformat() == "2020-07-01T10:00:00+00:00"
    finally:
        server.run("ALTER DATABASE carina RESET timezone")
