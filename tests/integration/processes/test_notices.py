"""Waiting is not polling: a commit wakes the threads that wait for it, in this process and in others."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from api.http import polling
from shared.database import Database
from shared.database.notices import CHANNEL, DELIVERIES, notify
from shared.ids import new_id
from shared.notifications.outbox import announce
from shared.processes.notice_listener import NoticeListener
from shared.queue.outcome import cancel
from shared.settings import Settings
from shared.tables import Job, Project
from shared.vocabulary.webhook_events import WebhookEvent
from tests.integration.conftest import Api, Keys, png
from tests.own_pgbouncer import own_pgbouncer
from tests.own_postgres import own_postgres
from tests.waiting import DEADLINE_S, wait_for

#: Longer than a test may take: what comes earlier has not come by polling.
NEVER_S = 4 * DEADLINE_S


@pytest.fixture
def listener(database: Database) -> Iterator[NoticeListener]:
    listener = NoticeListener(database)
    yield listener
    listener.close()


def _hear(listener: NoticeListener) -> None:
    with listener.watch("the first one to wait", lambda: None):
        wait_for(lambda: listener.is_listening)


def _tell(database: Database, *subjects: UUID | str) -> None:
    with database.begin() as session:
        notify(session, subjects)


def test_a_notice_wakes_those_who_wait_for_its_subject_alone(database: Database, listener: NoticeListener) -> None:
    _hear(listener)
    job, other, of_other = new_id(), new_id(), threading.Event()
    woken = threading.Event()
    with listener.watch(job, woken.set), listener.watch(other, of_other.set):
        _tell(database, job)
        assert woken.wait(DEADLINE_S)
        assert not of_other.is_set()
        _tell(database, *(new_id() for _ in range(1000)))  # too many to name
        assert of_other.wait(DEADLINE_S)


def test_a_change_that_is_rolled_back_wakes_nobody(database: Database, listener: NoticeListener) -> None:
    _hear(listener)
    job, last, woken, heard = new_id(), new_id(), threading.Event(), threading.Event()
    with listener.watch(job, woken.set), listener.watch(last, heard.set):
        with suppress(ZeroDivisionError), database.begin() as session:
            notify(session, [job])
            raise ZeroDivisionError
        _tell(database, last)
        assert heard.wait(DEADLINE_S)
        assert not woken.is_set()


def test_one_connection_serves_all_who_wait_and_is_made_again_when_it_is_lost(
    database: Database, listener: NoticeListener
) -> None:
    listening = f"FROM pg_stat_activity WHERE query = 'LISTEN {CHANNEL}' AND datname = current_database()"
    job, woken = new_id(), threading.Event()
    with listener.watch(job, woken.set), listener.watch(job, lambda: None), listener.watch(new_id(), lambda: None):
        wait_for(lambda: listener.is_listening)
        with database.begin() as session:
            assert session.scalar(sa.text(f"SELECT count(*) {listening}")) == 1
        woken.clear()
        with database.begin() as session:
            session.execute(sa.text(f"SELECT pg_terminate_backend(pid) {listening}"))
        assert woken.wait(DEADLINE_S)  # notices may have been lost meanwhile
        woken.clear()
        _tell(database, job)
        assert woken.wait(DEADLINE_S)


def test_the_end_of_a_job_answers_a_long_poll_before_its_next_look(
    api: Api, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "UNNOTICED_PAUSE_S", NEVER_S)
    job_id = UUID(api.send(("a.png", png())).get_json()["files"][0]["job_id"])
    with database.begin() as session:
        project_id = session.scalars(sa.select(Job.project_id).where(Job.id == job_id)).one()
    listens = api._http.application.extensions["carina"].notices
    _hear(listens)
    answers: list[str] = []
    waiting = threading.Thread(
        target=lambda: answers.append(api.get(f"/v1/jobs/{job_id}", wait=60).get_json()["state"])
    )
    waiting.start()
    api.wait_for_poll()
    with database.begin() as session:
        cancel(session, project_id, job_id)
    waiting.join(DEADLINE_S)
    assert answers == ["cancelled"]


def test_a_change_of_a_submission_reaches_its_event_stream_before_the_next_look(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "UNNOTICED_PAUSE_S", NEVER_S)
    submission = api.post("/v1/submissions", {}).get_json()["submission"]["id"]
    _hear(api._http.application.extensions["carina"].notices)
    events: list[str] = []
    reading = threading.Thread(
        target=lambda: events.append(api.call("GET", f"/v1/submissions/{submission}/events").text)
    )
    reading.start()
    api.wait_for_poll()
    assert api.post(f"/v1/submissions/{submission}/complete").status_code == 200
    reading.join(DEADLINE_S)
    (told,) = events
    assert '"state":"completed"' in told.replace(" ", "")


def test_a_message_to_a_webhook_wakes_its_sender(database: Database, keys: Keys, listener: NoticeListener) -> None:
    _hear(listener)
    woken = threading.Event()
    with listener.watch(DELIVERIES, woken.set):
        with database.begin() as session:
            project_id = session.scalars(sa.select(Project.id)).first()
            assert project_id is not None
            announce(session, project_id, WebhookEvent.SUBMISSION_COMPLETED, {})
        assert woken.wait(DEADLINE_S)


@pytest.mark.needs("pgbouncer")
def test_behind_a_pooler_nobody_listens_and_the_log_says_so_once(tmp_path: Path) -> None:
    with own_postgres(tmp_path) as server, own_pgbouncer(server, sessions=2) as url, capture_logs() as logs:
        database = Database(url, pool_size=2)
        listener = NoticeListener(database)
        for subject in "ab":
            with listener.watch(subject, lambda: None):
                wait_for(lambda: logs)
        assert not listener.is_listening
        listener.close()
        database.close()
    assert [line["event"] for line in logs] == ["notices_not_heard"]


def test_it_listens_on_the_servers_own_connection(settings: Settings, listener: NoticeListener) -> None:
    with capture_logs() as logs:
        _hear(listener)
    assert logs == []
