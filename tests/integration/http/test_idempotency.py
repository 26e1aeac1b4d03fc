"""A request that is sent twice with an `Idempotency-Key` is answered twice and done once."""

import threading
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest
import sqlalchemy as sa

from api.http import idempotency
from shared.database import Database
from shared.settings import Settings
from shared.tables import AuditEvent, IdempotencyKey, Image, Job, Submission
from tests.integration.conftest import Api, Keys, Server, png
from tests.integration.http.test_access import problem_of
from tests.waiting import DEADLINE_S, wait_for


@pytest.fixture
def send(api: Api, keys: Keys) -> Callable:
    """POST with an Idempotency-Key: JSON, or files, whose boundary is another one each time."""

    def send(path: str, key: str, body: object = None, *, files=None, api_key: str = keys.both, **headers: str):
        made = httpx.Request("POST", f"http://api{path}", json=body, files=files)
        sent = {"Authorization": f"Bearer {api_key}", "Idempotency-Key": key, **headers}
        content_type = made.headers.get("Content-Type")
        return api._http.post(path, headers=sent, data=made.read(), content_type=content_type)

    return send


def count(database: Database, row: type) -> int:
    with database.begin() as session:
        return session.scalars(sa.select(sa.func.count()).select_from(row)).one()


def test_the_same_request_gets_the_same_answer_and_is_done_once(send: Callable, database: Database) -> None:
    first, again = (send("/v1/submissions", "a", {"files": []}) for _ in range(2))
    assert first.status_code == again.status_code == 201
    assert first.data == again.data
    assert first.content_type == again.content_type
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert count(database, Submission) == 1
    assert count(database, AuditEvent) == 1
    send("/v1/submissions", "b", {"files": []})
    assert count(database, Submission) == 2


def test_files_are_told_apart_by_their_bytes_not_by_the_boundary(send: Callable, database: Database) -> None:
    def files(seed: int, name: str = "a.png"):
        return [("files", (name, png(seed, 300))), ("files", ("b.png", png(9)))]

    first, again = (send("/v1/studies", "a", files=files(1)) for _ in range(2))
    assert first.status_code == 202
    assert (again.status_code, again.data) == (202, first.data)
    assert "duplicate" not in again.text
    assert count(database, Job) == 2
    for other in (files(2), files(1, "c.png"), files(1)[:1]):
        refused = send("/v1/studies", "a", files=other)
        assert (refused.status_code, problem_of(refused)) == (409, "idempotency_key_reused")
    assert count(database, Image) == 2


def test_a_key_stands_for_one_route_one_query_and_one_body(send: Callable, keys: Keys) -> None:
    assert send("/v1/submissions", "a", {"files": []}).status_code == 201
    for path, body in [
        ("/v1/submissions", {"files": [], "priority": 6}),
        ("/v1/webhooks", {"files": []}),
        ("/v1/submissions?priority=1", {"files": []}),
    ]:
        assert problem_of(send(path, "a", body)) == "idempotency_key_reused", path
    # Of another API key it is another one.
    assert send("/v1/submissions", "a", {"files": []}, api_key=keys.submit).headers.get("Idempotency-Replayed") is None
    assert send("/v1/submissions", "a", {"files": []}, api_key=keys.read).status_code == 403


def test_what_is_to_be_mended_does_not_use_a_key_up(send: Callable) -> None:
    assert send("/v1/submissions", "a", {"files": [], "priority": 99}).status_code == 422
    assert send("/v1/submissions", "a", {"files": []}).status_code == 201


def test_a_failure_of_ours_does_not_use_a_key_up(send: Callable, database: Database) -> None:
    with database.begin() as session:
        session.execute(sa.text("ALTER TABLE submission ADD CONSTRAINT closed CHECK (false) NOT VALID"))
    assert send("/v1/submissions", "a", {"files": []}).status_code == 500
    assert count(database, IdempotencyKey) == 0
    with database.begin() as session:
        session.execute(sa.text("ALTER TABLE submission DROP CONSTRAINT closed"))
    assert send("/v1/submissions", "a", {"files": []}).status_code == 201


def test_a_key_is_1_to_255_visible_characters(send: Callable) -> None:
    for bad in ("", "a b", "x" * 256, "ä"):
        response = send("/v1/submissions", bad, {"files": []})
        assert (response.status_code, problem_of(response)) == (422, "invalid_request"), bad
    assert send("/v1/submissions", "!" * 255, {"files": []}).status_code == 201


def test_while_the_first_is_under_way_the_second_is_to_wait(
    send: Callable, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.begin() as session:
        session.execute(sa.text("LOCK TABLE submission"))
        answers: list = []
        first = threading.Thread(target=lambda: answers.append(send("/v1/submissions", "a", {"files": []})))
        first.start()
        wait_for(lambda: count(database, IdempotencyKey) == 1)
        response = send("/v1/submissions", "a", {"files": []})
        assert (response.status_code, problem_of(response)) == (409, "idempotency_key_in_use")
        assert int(response.headers["Retry-After"]) >= 1
    first.join()
    assert answers[0].status_code == 201
    assert send("/v1/submissions", "a", {"files": []}).headers["Idempotency-Replayed"] == "true"


def is_locked(database: Database) -> bool:
    """Whether a request holds the only idempotency key."""
    with database.begin() as session:
        return bool(session.scalar(sa.select(IdempotencyKey.locked_until > sa.func.now())))


def test_a_request_that_died_is_taken_over_and_what_it_says_late_is_not_kept(
    send: Callable, database: Database
) -> None:
    with database.begin() as session:
        session.execute(sa.text("LOCK TABLE submission"))
        answers: list = []
        slow = threading.Thread(target=lambda: answers.append(send("/v1/submissions", "a", {"files": []})))
        slow.start()
        wait_for(lambda: count(database, IdempotencyKey) == 1)
        with database.begin() as another:
            past = IdempotencyKey.locked_until - timedelta(seconds=idempotency.LOCK_S + 1)
            another.execute(sa.update(IdempotencyKey).values(locked_until=past))
        taken: list = []
        second = threading.Thread(target=lambda: taken.append(send("/v1/submissions", "a", {"files": []})))
        second.start()
        wait_for(lambda: is_locked(database))
    slow.join()
    second.join()
    assert (answers[0].status_code, taken[0].status_code) == (201, 201)
    replayed = send("/v1/submissions", "a", {"files": []})
    assert replayed.data == taken[0].data


def test_a_cut_upload_is_not_kept_and_its_key_is_free(server: Server, keys: Keys, database: Database) -> None:
    import socket

    body = httpx.Request("POST", "http://api", files=[("files", ("a.png", png(1, 900)))])
    data = body.read()
    head = (
        f"POST /v1/studies HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {keys.both}\r\nIdempotency-Key: a\r\n"
        f"Content-Type: {body.headers['Content-Type']}\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + data[:300_000])
        wait_for(lambda: count(database, IdempotencyKey) == 1)
    wait_for(lambda: count(database, IdempotencyKey) == 0)
    with httpx.Client(
        base_url=server.url, headers={"Authorization": f"Bearer {keys.both}"}, timeout=DEADLINE_S
    ) as http:
        for replayed in (None, "true"):  # chunked, as a client sends what it does not measure
            answer = http.post(
                "/v1/studies",
                headers={"Idempotency-Key": "a", "Content-Type": body.headers["Content-Type"]},
                content=iter([data[:100_000], data[100_000:]]),
            )
            assert answer.status_code == 202
            assert answer.headers.get("Idempotency-Replayed") == replayed
    assert count(database, Image) == 1


def test_every_route_that_creates_takes_the_header(api: Api, settings: Settings) -> None:
    paths = api.get("/openapi.json").get_json()["paths"]
    takes = {
        path
        for path, item in paths.items()
        for parameter in item.get("post", {}).get("parameters", [])
        if parameter["name"] == "Idempotency-Key"
    }
    assert takes >= {
        "/v1/studies",
        "/v1/submissions",
        "/v1/submissions/{submission_id}/files",
        "/v1/datasets",
        "/v1/trainings",
        "/v1/evaluations",
        "/v1/schedules",
        "/v1/gate-decisions",
        "/v1/webhooks",
        "/dicom-web/studies",
        "/dicom-web/studies/{study_uid}",
    }
