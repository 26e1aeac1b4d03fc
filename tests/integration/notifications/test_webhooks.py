"""Webhooks: a message is written with its event, reaches its receiver at least once, and goes nowhere else."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from shared.access.keys import verify_key
from shared.database import Database
from shared.errors import DetectionFailed, PermanentError
from shared.notifications.deliveries import DELIVERED_KEPT_DAYS, MAX_AT_ONCE, delete_delivered
from shared.notifications.outbox import announce
from shared.queue.claim import claim, expire_leases
from shared.queue.outcome import DUPLICATE, FoundImage, cancel, give_up_or_retry, succeed
from shared.queue.stages import DETECT
from shared.settings import Settings
from shared.tables import ApiKey, Image, Job, Webhook, WebhookDelivery
from shared.vocabulary.states import DeliveryState, WorkerKind
from shared.vocabulary.webhook_events import WebhookEvent
from tests.certificates import Authority
from tests.integration.conftest import Api, Keys, Server
from tests.integration.receiver import Receiver, verify
from tests.integration.workshop import Workshop
from tests.requirements import REPOSITORY, needs_ipv6
from tests.waiting import DEADLINE_S, wait_for
from workers.heartbeat import Heartbeat
from workers.notify import NotifyWorker

COMPLETED = WebhookEvent.SUBMISSION_COMPLETED
RETRY_S = 0.1


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Receivers may be on loopback, and no second try comes while a test looks at the first one."""
    return settings.model_copy(update={"webhook_allow_private": True, "webhook_timeout_s": 60, "retry_backoff_s": 600})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().serving() as serving:
        yield serving


@pytest.fixture
def slow_receiver() -> Iterator[Receiver]:
    with Receiver().serving() as serving:
        yield serving


@pytest.fixture
def notify(settings: Settings, database: Database) -> NotifyWorker:
    return make_notify(settings, database)


@pytest.fixture
def quick_notify(settings: Settings, database: Database) -> NotifyWorker:
    """Tries again at once."""
    return make_notify(settings.model_copy(update={"retry_backoff_s": RETRY_S}), database)


def make_notify(settings: Settings, database: Database, stop: threading.Event | None = None) -> NotifyWorker:
    heartbeat = Heartbeat(database, WorkerKind.NOTIFY, lease_s=settings.lease_s, stuck_after_s=60)
    return NotifyWorker(settings, database, heartbeat, stop or threading.Event())


@pytest.fixture
def ward(database: Database, keys: Keys) -> UUID:
    """The project of the keys."""
    with database.begin() as session:
        return verify_key(session, keys.both).project_id


def create(api: Api, url: str, *events: WebhookEvent) -> dict[str, Any]:
    response = api.post("/v1/webhooks", {"url": url} | ({"events": events} if events else {}))
    assert response.status_code == 201, response.get_data(as_text=True)
    return response.get_json()


def tell(database: Database, project_id: UUID, count: int = 1) -> None:
    with database.begin() as session:
        for number in range(count):
            announce(session, project_id, COMPLETED, {"number": number})


def deliveries(database: Database) -> list[WebhookDelivery]:
    with database.begin() as session:
        rows = list(session.scalars(sa.select(WebhookDelivery).order_by(WebhookDelivery.id)))
        session.expunge_all()
        return rows


def only(database: Database) -> WebhookDelivery:
    (row,) = deliveries(database)
    return row


def run_until(notify: NotifyWorker, done: Callable[[], bool]) -> None:
    def run() -> bool:
        notify.run()
        return done()

    wait_for(run)


def test_a_receiver_may_have_an_ipv6_address(api: Api, database: Database, notify: NotifyWorker, ward: UUID) -> None:
    needs_ipv6()
    with Receiver(host="::1").serving() as receiver:
        create(api, receiver.url, COMPLETED)
        tell(database, ward)
        run_until(notify, lambda: only(database).state == DeliveryState.DELIVERED)
        assert [message.headers["host"] for message in receiver.messages] == [f"[::1]:{receiver.port}"]


# --- what is written -------------------------------------------------------------------------------------------------


def subscribe(database: Database, project_id: UUID, url: str = "http://127.0.0.1:9/") -> UUID:
    """A webhook for all events, of a key of this project."""
    with database.begin() as session:
        session.add(key := ApiKey(project_id=project_id, name="key", prefix="prefix", secret_sha256="", scopes=[]))
        session.flush()
        hook = Webhook(project_id=project_id, api_key_id=key.id, url=url, secret="whsec_", events=list(WebhookEvent))
        session.add(hook)
        session.flush()
        return hook.id


@pytest.mark.usefixtures("tiny_model_id")
def test_each_end_of_a_job_is_told_once_and_in_its_own_transaction(workshop: Workshop) -> None:
    subscribe(workshop.database, workshop.project_id)
    database = workshop.database
    workshop.rows(5)
    with database.begin() as session:
        claims = claim(session, DETECT, "worker", limit=5, lease_s=60)
    good, bad, lost, slow, unlucky = claims
    with database.begin() as session:
        assert succeed(session, {good: FoundImage()}) == {good.job_id}
        give_up_or_retry(session, bad, PermanentError(), max_attempts=4, backoff_s=1)
        give_up_or_retry(session, lost, DetectionFailed(), max_attempts=1, backoff_s=1)
        give_up_or_retry(session, slow, DetectionFailed(), max_attempts=4, backoff_s=9)  # not its end
    workshop.set(unlucky.job_id, lease_expires_at="epoch")
    with database.begin() as session:
        expire_leases(session, max_attempts=1)
        assert cancel(session, workshop.project_id, slow.job_id)
        assert not cancel(session, workshop.project_id, slow.job_id)
    # A second job of an image ends as a duplicate of the first.
    with database.begin() as session:
        study_id = session.get_one(Image, good.image_id).study_id
        session.add(Job(project_id=workshop.project_id, image_id=good.image_id, study_id=study_id, state="ready"))
    with database.begin() as session:
        (second,) = claim(session, DETECT, "worker", limit=5, lease_s=60)
        assert succeed(session, {second: FoundImage()}) == set()
    # What is rolled back was never told.
    with pytest.raises(RuntimeError), database.begin() as session:  # noqa: PT012
        study_id = session.get_one(Image, bad.image_id).study_id
        session.add(job := Job(project_id=workshop.project_id, image_id=bad.image_id, study_id=study_id))
        session.flush()
        assert cancel(session, workshop.project_id, job.id)
        raise RuntimeError

    told = {UUID(row.payload["job_id"]): row.payload for row in deliveries(database)}
    assert len(told) == len(deliveries(database)) == 6
    assert {job_id: (payload["state"], payload["code"]) for job_id, payload in told.items()} == {
        good.job_id: ("succeeded", None),
        bad.job_id: ("rejected", PermanentError.code),
        lost.job_id: ("failed", DetectionFailed.code),
        unlucky.job_id: ("failed", "worker_lost"),
        slow.job_id: ("cancelled", DetectionFailed.code),
        second.job_id: ("cancelled", DUPLICATE),
    }
    with database.begin() as session:
        image = session.get_one(Image, good.image_id)
        expected = {"image_id": str(image.id), "study_id": str(image.study_id), "model_id": str(good.model_id)}
    assert told[good.job_id] == expected | {
        "job_id": str(good.job_id),
        "submission_id": None,
        "state": "succeeded",
        "code": None,
    }


def test_only_who_asked_is_told(database: Database, api: Api, keys: Keys, ward: UUID, receiver: Receiver) -> None:
    chosen = [create(api, receiver.url)["id"], create(api.as_(keys.submit), receiver.url, COMPLETED)["id"]]
    create(api.as_(keys.stranger), receiver.url)  # of another project
    create(api, receiver.url, WebhookEvent.JOB_FINISHED)  # another event
    disabled = create(api, receiver.url)
    api.patch(f"/v1/webhooks/{disabled['id']}", {"enabled": False})
    create(api.as_(keys.admin), receiver.url)
    create(api.as_(keys.admin), receiver.url)
    with database.begin() as session:
        revoked, expired = (sa.func.now(), None), (None, sa.func.now())
        hooks = session.scalars(sa.select(Webhook).order_by(Webhook.id.desc()).limit(2)).all()
        for hook, (revoked_at, expires_at) in zip(hooks, (revoked, expired), strict=True):
            key = ApiKey(project_id=ward, name="", prefix=str(hook.id), secret_sha256="", scopes=[])
            key.revoked_at, key.expires_at = revoked_at, expires_at
            session.add(key)
            session.flush()
            hook.api_key_id = key.id
    tell(database, ward)
    assert sorted(str(row.webhook_id) for row in deliveries(database)) == sorted(chosen)


# --- what is sent ----------------------------------------------------------------------------------------------------


def test_a_message_is_signed_as_its_receiver_checks(
    api: Api, database: Database, notify: NotifyWorker, ward: UUID, receiver: Receiver
) -> None:
    webhook = create(api, receiver.url, COMPLETED)
    ping = api.post(f"/v1/webhooks/{webhook['id']}/test")
    assert ping.status_code == 202
    tell(database, ward)
    notify.run()
    messages = {message.content["type"]: message for message in receiver.messages}
    assert messages.keys() == {"ping", "submission.completed"}
    assert messages["ping"].id == ping.get_json()["id"]
    message = messages["submission.completed"]
    told = next(row for row in deliveries(database) if row.event == COMPLETED)
    assert message.id == str(told.id)
    assert message.content == {
        "type": "submission.completed",
        "timestamp": told.created_at.isoformat(),
        "data": {"number": 0},
    }
    assert (message.path, message.headers["content-type"]) == ("/hook", "application/json")
    assert message.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert verify(webhook["secret"], message.headers, message.body)
    assert not verify(webhook["secret"], message.headers, message.body + b" ")
    assert not verify(webhook["secret"], message.headers | {"webhook-id": "another"}, message.body)
    late = str(int(message.headers["webhook-timestamp"]) - 301)
    assert not verify(webhook["secret"], message.headers | {"webhook-timestamp": late}, message.body)
    assert not verify(create(api, receiver.url)["secret"], message.headers, message.body)
    assert {(row.state, row.response_status, row.attempt) for row in deliveries(database)} == {("delivered", 200, 1)}


def test_what_fails_is_tried_again_with_growing_pauses(
    api: Api, database: Database, quick_notify: NotifyWorker, ward: UUID, receiver: Receiver
) -> None:
    secret = create(api, receiver.url)["secret"]
    statuses = iter((500, 404, 204))

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(next(statuses))
        request.end_headers()

    receiver.answer = answer
    tell(database, ward)
    run_until(quick_notify, lambda: only(database).state == "delivered")
    assert (only(database).attempt, only(database).response_status, only(database).code) == (3, 204, None)
    assert len(set(receiver.ids)) == 1
    pauses = [after.at - before.at for before, after in zip(receiver.messages, receiver.messages[1:], strict=False)]
    assert pauses[0] >= 0.75 * RETRY_S
    assert pauses[1] >= 0.75 * 2 * RETRY_S
    assert all(verify(secret, message.headers, message.body) for message in receiver.messages)


def test_a_receiver_that_cannot_be_reached_is_tried_again(
    api: Api, database: Database, notify: NotifyWorker, ward: UUID
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        create(api, f"http://127.0.0.1:{free.getsockname()[1]}/")
    tell(database, ward)
    notify.run()
    assert (only(database).state, only(database).code) == ("pending", "receiver_unreachable")


def test_a_message_that_was_given_up_can_be_sent_again(
    api: Api, settings: Settings, database: Database, ward: UUID, receiver: Receiver
) -> None:
    notify = make_notify(
        settings.model_copy(update={"retry_backoff_s": RETRY_S, "webhook_retry_h": RETRY_S * 1.5 / 3600}), database
    )
    path = f"/v1/webhooks/{create(api, receiver.url)['id']}/deliveries"
    receiver.status = 503
    tell(database, ward, count=3)
    run_until(notify, lambda: {row.state for row in deliveries(database)} == {"dead"})
    assert {row.attempt for row in deliveries(database)} == {2}

    pages = [api.get(path, state="dead", limit=2).get_json()]
    pages.append(api.get(path, state="dead", limit=2, before=pages[0]["next"]).get_json())
    dead = [delivery for page in pages for delivery in page["deliveries"]]
    assert [delivery["payload"]["number"] for delivery in dead] == [2, 1, 0]
    assert {(delivery["code"], delivery["response_status"]) for delivery in dead} == {("receiver_refused", 503)}
    assert pages[1]["next"] is None

    assert 'carina_webhook_deliveries{state="dead"} 3.0' in api.get("/metrics").get_data(as_text=True)

    receiver.status = 200
    receiver.messages.clear()
    again = api.post(f"{path}/{dead[0]['id']}/redeliver")
    assert (again.status_code, again.get_json()["state"]) == (202, "pending")
    notify.run()
    assert receiver.ids == [dead[0]["id"]]
    assert len(api.get(path, state="dead").get_json()["deliveries"]) == 2
    assert api.get(path, state="delivered").get_json()["deliveries"][0]["id"] == dead[0]["id"]


def test_a_receiver_that_is_gone_is_asked_once(
    api: Api, database: Database, notify: NotifyWorker, ward: UUID, receiver: Receiver
) -> None:
    path = f"/v1/webhooks/{create(api, receiver.url)['id']}"
    receiver.status = 410
    tell(database, ward)
    notify.run()
    assert (only(database).state, only(database).response_status) == ("dead", 410)
    assert api.get(path).get_json()["enabled"] is False
    for refused in (f"{path}/test", f"{path}/deliveries/{only(database).id}/redeliver"):
        assert api.post(refused).get_json()["code"] == "webhook_disabled"
    tell(database, ward)
    notify.run()
    assert len(receiver.messages) == 1
    api.patch(path, {"enabled": True})
    receiver.status = 200
    assert api.post(f"{path}/deliveries/{only(database).id}/redeliver").status_code == 202
    notify.run()
    assert (len(receiver.messages), only(database).state) == (2, "delivered")


def test_what_waits_for_a_disabled_webhook_waits_for_its_time_and_is_then_given_up(
    api: Api, database: Database, notify: NotifyWorker, ward: UUID, receiver: Receiver
) -> None:
    path = f"/v1/webhooks/{create(api, receiver.url)['id']}"
    tell(database, ward)
    api.patch(path, {"enabled": False})
    notify.run()
    assert only(database).state == "pending"
    with database.begin() as session:
        day_ago = sa.func.now() - sa.text("interval '25 hours'")
        session.execute(sa.update(WebhookDelivery).values(available_at=day_ago))
    notify.run()
    assert (only(database).state, only(database).code, receiver.messages) == ("dead", "webhook_disabled", [])


def test_no_redirect_is_followed(
    api: Api, database: Database, notify: NotifyWorker, ward: UUID, receiver: Receiver, slow_receiver: Receiver
) -> None:
    def redirect(request: BaseHTTPRequestHandler) -> None:
        request.send_response(307)
        request.send_header("Location", slow_receiver.url)
        request.end_headers()

    receiver.answer = redirect
    create(api, receiver.url)
    tell(database, ward)
    notify.run()
    assert (len(receiver.messages), slow_receiver.messages) == (1, [])
    assert (only(database).state, only(database).response_status) == ("pending", 307)


def test_a_slow_receiver_holds_up_nobody_else(
    api: Api, settings: Settings, database: Database, ward: UUID, receiver: Receiver, slow_receiver: Receiver
) -> None:
    enough = threading.Event()
    slow_receiver.answer = lambda _: enough.wait(DEADLINE_S)
    create(api, slow_receiver.url)
    tell(database, ward, count=40)
    create(api, receiver.url)
    tell(database, ward, count=40)
    stop = threading.Event()
    sending = threading.Thread(target=make_notify(settings, database, stop).run)
    sending.start()
    try:
        wait_for(lambda: len(receiver.messages) == 40)
        assert slow_receiver.max_under_way <= MAX_AT_ONCE
    finally:
        stop.set()
        enough.set()
        sending.join()
    assert sum(row.state == "delivered" for row in deliveries(database)) == 40


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n"])
def test_a_receiver_that_drips_its_answer_is_cut_off(
    api: Api, database: Database, settings: Settings, ward: UUID, receiver: Receiver, said: bytes
) -> None:
    def drip(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(said)
        while True:  # until the sender hangs up
            request.wfile.write(b"x")
            request.wfile.flush()
            time.sleep(0.1)

    receiver.answer = drip
    create(api, receiver.url)
    tell(database, ward)
    make_notify(settings.model_copy(update={"webhook_timeout_s": 1}), database).run()
    assert only(database).code == "receiver_timed_out"


def test_workers_side_by_side_send_each_message_once(
    api: Api, settings: Settings, database: Database, ward: UUID, receiver: Receiver
) -> None:
    create(api, receiver.url)
    tell(database, ward, count=60)
    workers = [threading.Thread(target=make_notify(settings, database).run) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(receiver.ids) == len(set(receiver.ids)) == 60
    assert {row.state for row in deliveries(database)} == {"delivered"}


def test_an_answers_body_without_end_is_not_read_to_it(
    api: Api, database: Database, notify: NotifyWorker, ward: UUID, receiver: Receiver
) -> None:
    sent = 0

    def flood(request: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        request.send_response(200)
        request.end_headers()
        while True:  # until the sender hangs up
            request.wfile.write(bytes(2**16))
            sent += 2**16

    receiver.answer = flood
    create(api, receiver.url)
    tell(database, ward)
    notify.run()
    assert only(database).state == "delivered"
    assert sent < 64 * 2**20


def test_a_worker_that_is_killed_while_it_sends_leaves_a_message_that_is_sent_again(
    api: Api, environ: dict[str, str], database: Database, quick_notify: NotifyWorker, ward: UUID, receiver: Receiver
) -> None:
    killed = threading.Event()
    receiver.answer = lambda _: killed.wait(DEADLINE_S)
    create(api, receiver.url)
    tell(database, ward)
    quick = {"CARINA_WEBHOOK_ALLOW_PRIVATE": "true", "CARINA_WEBHOOK_TIMEOUT_S": "60"}
    code = "from shared.settings import Settings; from workers.notify import run; run(Settings())"
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ | environ | quick, cwd=REPOSITORY) as worker:
        try:
            wait_for(lambda: len(receiver.messages) == 1)
        finally:
            worker.kill()
    assert only(database).state == "sending"
    with database.begin() as session:
        session.execute(sa.update(WebhookDelivery).values(lease_expires_at="epoch"))
    receiver.answer = None
    killed.set()
    run_until(quick_notify, lambda: only(database).state == "delivered")
    assert len(receiver.messages) == 2
    assert len(set(receiver.ids)) == 1
    assert only(database).attempt == 2


def test_what_was_delivered_long_ago_is_forgotten_but_nothing_else(
    api: Api, database: Database, ward: UUID, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(api, receiver.url)
    tell(database, ward, count=3)
    ids = [row.id for row in deliveries(database)]
    with database.begin() as session:
        for delivery_id, state in zip(ids, (DeliveryState.DELIVERED, DeliveryState.DEAD), strict=False):
            change = sa.update(WebhookDelivery).where(WebhookDelivery.id == delivery_id)
            session.execute(change.values(state=state))
        delete_delivered(session)
    assert len(deliveries(database)) == 3
    later = time.time_ns() + (DELIVERED_KEPT_DAYS * 86_400 + 60) * 10**9
    monkeypatch.setattr("shared.ids.time.time_ns", lambda: later)
    with database.begin() as session:
        delete_delivered(session)
    assert [row.id for row in deliveries(database)] == ids[1:]


# --- where nothing is sent -------------------------------------------------------------------------------------------


class Names:
    """A name server for names under `.example`: gives one answer after the other, the last one for good."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = {}
        self.asked = 0
        self._real = socket.getaddrinfo

    def getaddrinfo(self, host: Any, port: Any, *args: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in self.answers:
            assert not str(name).endswith(".example")
            return self._real(host, port, *args, **options)
        self.asked += 1
        answers = self.answers[name]
        return self._real(answers.pop(0) if len(answers) > 1 else answers[0], port, *args, **options)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    known = Names()
    monkeypatch.setattr(socket, "getaddrinfo", known.getaddrinfo)
    return known


@pytest.fixture
def strict(settings: Settings) -> Settings:
    """Private addresses are not allowed, as is the default."""
    return settings.model_copy(update={"webhook_allow_private": False})


def test_a_private_address_is_refused_however_it_is_written(
    make_api: Callable[[Settings], Api], strict: Settings, names: Names
) -> None:
    api = make_api(strict)
    names.answers = {
        "inside.example": ["10.1.2.3"],
        "public.example": ["93.184.215.14"],
        "mapped.example": ["::ffff:10.1.2.3"],
    }
    for url in (
        *("http://127.0.0.1/", "http://localhost:8080/", "http://127.1/", "http://2130706433/", "http://0x7f000001/"),
        *("http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://0.0.0.0/", "http://169.254.169.254/latest/meta-data"),
        *("https://inside.example/", "https://mapped.example/", "http://[64:ff9b::7f00:1]/"),
    ):
        response = api.post("/v1/webhooks", {"url": url})
        assert (response.status_code, response.get_json()["code"]) == (422, "webhook_address_not_allowed"), url
    webhook = create(api, "https://public.example/")
    moved = api.patch(f"/v1/webhooks/{webhook['id']}", {"url": "https://inside.example/"})
    assert moved.get_json()["code"] == "webhook_address_not_allowed"
    for url, code in (
        ("https://user:word@public.example/", "invalid_webhook_url"),
        ("ftp://public.example/", "invalid_webhook_url"),
        ("https://nowhere.invalid/", "webhook_host_unknown"),
        (f"https://{'x' * 64}.test/", "webhook_host_unknown"),
    ):
        assert api.post("/v1/webhooks", {"url": url}).get_json()["code"] == code, url


def test_a_cloud_metadata_address_is_refused_even_where_private_ones_are_allowed(api: Api) -> None:
    response = api.post("/v1/webhooks", {"url": "http://169.254.169.254/latest/api/token"})
    assert response.get_json()["code"] == "webhook_address_not_allowed"


def test_a_name_that_turns_to_a_private_address_gets_nothing(
    make_api: Callable[[Settings], Api],
    strict: Settings,
    database: Database,
    ward: UUID,
    receiver: Receiver,
    names: Names,
) -> None:
    names.answers = {"rebinding.example": ["93.184.215.14", "127.0.0.1"]}
    create(make_api(strict), f"http://rebinding.example:{receiver.port}/")
    tell(database, ward)
    make_notify(strict, database).run()
    assert receiver.messages == []
    assert (only(database).state, only(database).code) == ("pending", "webhook_address_not_allowed")


def test_a_message_goes_to_the_very_address_that_was_checked(
    api: Api, database: Database, notify: NotifyWorker, ward: UUID, receiver: Receiver, names: Names
) -> None:
    """The name would lead elsewhere when asked once more."""
    names.answers = {"rebinding.example": ["127.0.0.1", "127.0.0.1", "127.0.0.2"]}
    create(api, f"http://rebinding.example:{receiver.port}/")
    tell(database, ward)
    notify.run()
    assert (only(database).state, names.asked) == ("delivered", 2)
    assert receiver.messages[0].headers["host"] == f"rebinding.example:{receiver.port}"


@pytest.mark.needs("openssl")
@pytest.mark.parametrize(("host", "state"), [("receiver.example", "delivered"), ("other.example", "pending")])
def test_over_tls_the_certificate_must_be_the_names(
    host: str,
    state: str,
    api: Api,
    settings: Settings,
    database: Database,
    ward: UUID,
    names: Names,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authority = Authority(tmp_path)
    tls = authority.sign("DNS:receiver.example").server_context()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    asked_for: list[str | None] = []
    tls.sni_callback = lambda _, name, __: asked_for.append(name)
    names.answers = {host: ["127.0.0.1"]}
    with Receiver(tls).serving() as receiver:
        create(api, f"https://{host}:{receiver.port}/")
        tell(database, ward)
        make_notify(settings, database).run()
        assert (only(database).state, len(receiver.messages)) == (state, 1 if state == "delivered" else 0)
    assert asked_for == [host]


def test_no_proxy_of_the_environment_is_used(
    api: Api, settings: Settings, database: Database, ward: UUID, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9/")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9/")
    create(api, receiver.url)
    tell(database, ward)
    make_notify(settings, database).run()
    assert only(database).state == "delivered"


# --- whose it is -----------------------------------------------------------------------------------------------------


def test_a_webhook_from_its_creation_to_its_end(api: Api, receiver: Receiver, database: Database, ward: UUID) -> None:
    made = create(api, receiver.url)
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert (made["events"], made["enabled"]) == (["job.finished", "submission.completed"], True)
    path = f"/v1/webhooks/{made['id']}"
    assert api.get(path).get_json() == made
    assert api.get("/v1/webhooks").get_json() == {"webhooks": [made]}
    changed = api.patch(path, {"events": ["job.finished"], "url": receiver.url + "?to=2"}).get_json()
    assert changed == made | {"events": ["job.finished"], "url": receiver.url + "?to=2"}
    for wrong in ({"events": []}, {"events": ["job.begun"]}, {"enabled": "maybe"}, {"secret": "mine"}, {"url": ""}):
        assert api.patch(path, wrong).status_code == 422, wrong
    assert api.get(path).get_json() == changed
    api.post(f"{path}/test")
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404
    assert deliveries(database) == []


def test_only_its_own_key_and_an_admin_may_change_a_webhook(api: Api, keys: Keys, receiver: Receiver) -> None:
    made = create(api, receiver.url)
    path = f"/v1/webhooks/{made['id']}"
    ping = api.post(f"{path}/test").get_json()
    changes: list[Callable[[Api], Any]] = [
        lambda who: who.post(f"{path}/test"),
        lambda who: who.post(f"{path}/deliveries/{ping['id']}/redeliver"),
        lambda who: who.patch(path, {"enabled": False}),
        lambda who: who.patch(path, {"enabled": True}),
        lambda who: who.delete(path),
    ]
    for change in changes:
        assert change(api.as_(keys.submit)).get_json()["code"] == "forbidden"
        assert change(api.as_(keys.stranger)).get_json()["code"] == "not_found"
        assert change(api.as_(keys.read)).status_code == 403
    assert api.as_(keys.read).get(path).get_json()["url"] == receiver.url
    assert api.as_(keys.stranger).get("/v1/webhooks").get_json() == {"webhooks": []}
    assert [change(api.as_(keys.admin)).status_code for change in changes] == [202, 202, 200, 200, 204]


def test_a_message_that_is_being_sent_or_of_another_webhook_is_not_sent_again(
    api: Api, database: Database, receiver: Receiver
) -> None:
    path, other = (f"/v1/webhooks/{create(api, receiver.url)['id']}" for _ in range(2))
    ping = api.post(f"{path}/test").get_json()
    assert api.post(f"{other}/deliveries/{ping['id']}/redeliver").get_json()["code"] == "not_found"
    with database.begin() as session:
        leased = {"state": "sending", "lease_owner": "somebody", "lease_expires_at": sa.func.now()}
        session.execute(sa.update(WebhookDelivery).values(**leased))
    assert api.post(f"{path}/deliveries/{ping['id']}/redeliver").get_json()["code"] == "delivery_under_way"


def test_a_project_has_only_so_many_webhooks(api: Api, receiver: Receiver, database: Database, ward: UUID) -> None:
    first = create(api, receiver.url)
    with database.begin() as session:
        columns = {"project_id": ward, "url": receiver.url, "secret": "", "events": []}
        session.add_all(Webhook(**columns, api_key_id=UUID(first["api_key_id"])) for _ in range(49))
    assert api.post("/v1/webhooks", {"url": receiver.url}).get_json()["code"] == "too_many_webhooks"


def test_webhooks_by_command(
    server: Server,
    carina: Callable[..., str],
    environ: dict[str, str],
    keys: Keys,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a public address, to which nobody here sends anything."""
    monkeypatch.setenv("CARINA_API_URL", server.url)
    monkeypatch.setenv("CARINA_API_KEY", keys.both)
    url = "https://93.184.215.14/hook"
    made = json.loads(carina("webhook", "create", url, "--event", "job.finished", "--json"))
    assert (made["url"], made["events"], made["secret"][:6]) == (url, ["job.finished"], "whsec_")
    listed = carina("webhook", "list")
    assert made["id"] in listed
    assert made["secret"] not in listed
    message = carina("webhook", "test", made["id"]).split()[1]
    assert "pending" in carina("webhook", "deliveries", made["id"])
    carina("webhook", "disable", made["id"])
    assert json.loads(carina("webhook", "list", "--json"))[0]["enabled"] is False
    carina("webhook", "enable", made["id"])
    assert json.loads(carina("webhook", "list", "--json"))[0]["enabled"] is True
    with database.begin() as session:
        session.execute(sa.update(WebhookDelivery).values(state="dead", code="receiver_refused", attempt=9))
    (dead,) = json.loads(carina("webhook", "deliveries", made["id"], "--state", "dead", "--json"))
    assert (dead["id"], dead["code"]) == (message, "receiver_refused")
    assert "1 to be sent again" in carina("webhook", "redeliver", made["id"], "--dead")
    assert (str(only(database).id), only(database).state, only(database).attempt) == (message, "pending", 0)
    assert "1 to be sent again" in carina("webhook", "redeliver", made["id"], message)
    carina("webhook", "redeliver", made["id"], code=2)
    carina("webhook", "delete", made["id"])
    assert deliveries(database) == []
    assert f"There is no webhook {made['id']}." in carina("webhook", "test", made["id"], code=1)
    assert "is not allowed" in carina("webhook", "create", "http://169.254.169.254/", code=1)
