"""Connections: each process has a name and a bound, and gives back what it does not use."""

from contextlib import ExitStack

import pytest
import sqlalchemy as sa

from shared.database import Database, idle_pool
from shared.database.sizing import most_connections
from shared.settings import Settings
from shared.vocabulary.states import WorkerKind
from tests.waiting import wait_for

_NAMES = sa.text("SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND pid <> :mine")


def _names(database: Database) -> list[str]:
    with database.begin() as session:
        mine = session.scalar(sa.text("SELECT pg_backend_pid()"))
        return list(session.scalars(_NAMES, {"mine": mine}))


def test_a_process_that_becomes_quiet_keeps_one_connection(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_pool, "IDLE_S", 0.2)
    busy = Database.from_settings(settings, "api")
    with ExitStack() as open_sessions:
        for _ in range(5):
            open_sessions.enter_context(busy.begin())
        assert _names(database) == 5 * ["carina-api"]
    wait_for(lambda: _names(database) == ["carina-api"])
    with ExitStack() as open_sessions:  # the places of closed connections are free again
        for _ in range(settings.database_connections):
            open_sessions.enter_context(busy.begin())
    busy.close()


def test_connections_have_the_name_in_the_url_if_there_is_one(database: Database, settings: Settings) -> None:
    named = Database(settings.database_url.get_secret_value() + "?application_name=mine", name="carina-api")
    named.ping()
    assert "mine" in _names(database)
    named.close()


def test_a_worker_opens_no_more_connections_than_its_threads_use(settings: Settings) -> None:
    of_api = most_connections(settings, "api")
    assert of_api == settings.database_connections + 1
    few = settings.model_copy(update={"prepare_threads": 2})
    many = settings.model_copy(update={"prepare_threads": 6})
    assert most_connections(many, WorkerKind.PREPARE) == most_connections(few, WorkerKind.PREPARE) + 4 < of_api
    for name in (*WorkerKind, "beat", "trainer"):
        assert most_connections(settings.model_copy(update={"database_connections": 2}), name) <= 3
