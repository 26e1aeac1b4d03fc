"""The end of a key or a session reaches every process, and requests that are under way."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from pydantic import SecretStr

from api.http.keyring import KEPT_S
from shared.access.keys import prefix_of, revoke_key
from shared.database import Database
from shared.errors import KeyExpired
from shared.settings import Settings
from shared.tables import ApiKey, AuditEvent, ConsoleSession, IdempotencyKey, Image
from tests.integration.conftest import Api, Keys, Server, png
from tests.waiting import DEADLINE_S, wait_for

Carina = Callable[..., str]


@pytest.fixture
def make_browser(make_api: Callable[[Settings], Api], settings: Settings) -> Callable[[], FlaskClient]:
    """Browsers before consoles of the same database; each console is a process of its own as far as keys go."""
    secret = SecretStr("s" * 32)
    return lambda: make_api(settings.model_copy(update={"session_secret": secret}))._http


def sign_in(browser: FlaskClient, key: str) -> str:
    """Sign in; return the cookie."""
    assert browser.post("/console/sign-in", data={"key": key}).status_code == 303
    cookie = browser.get_cookie("carina")
    assert cookie is not None
    return cookie.value


def test_signing_out_ends_copies_of_the_cookie_in_every_process(
    make_browser: Callable[[], FlaskClient], keys: Keys, database: Database
) -> None:
    here, elsewhere = make_browser(), make_browser()
    cookie = sign_in(here, keys.read)
    elsewhere.set_cookie("carina", cookie)
    assert elsewhere.get("/v1/models").status_code == 200
    assert here.post("/console/sign-out").status_code == 303
    here.set_cookie("carina", cookie)
    assert here.get("/v1/models").status_code == 401
    assert here.get("/console/queue").location.startswith("/console/sign-in")
    wait_for(lambda: elsewhere.get("/v1/models").status_code == 401)
    assert here.post("/console/sign-out").status_code == 303, "again does nothing"
    with database.begin() as session:
        assert session.scalar(sa.select(ConsoleSession)) is None
        events = session.scalars(sa.select(AuditEvent).order_by(AuditEvent.id)).all()
        signed = [(event.action, event.status, event.api_key_id is not None) for event in events]
    assert signed == [("sign_in.begin", 303, True), ("sign_in.finish", 303, True)]


def test_another_session_of_the_same_key_goes_on(make_browser: Callable[[], FlaskClient], keys: Keys) -> None:
    first, second = make_browser(), make_browser()
    sign_in(first, keys.read)
    sign_in(second, keys.read)
    first.post("/console/sign-out")
    assert second.get("/v1/models").status_code == 200


def test_the_end_of_a_key_ends_its_sessions(
    make_browser: Callable[[], FlaskClient], keys: Keys, database: Database
) -> None:
    browser = make_browser()
    sign_in(browser, keys.read)
    assert browser.get("/v1/models").status_code == 200
    with database.begin() as session:
        revoke_key(session, prefix_of(keys.read))
    wait_for(lambda: browser.get("/v1/models").status_code == 401)


def test_a_session_lasts_half_a_day(make_browser: Callable[[], FlaskClient], keys: Keys, database: Database) -> None:
    browser = make_browser()
    sign_in(browser, keys.read)
    with database.begin() as session:
        session.execute(sa.text("UPDATE console_session SET created_at = now() - interval '12 hours'"))
    assert browser.get("/v1/models").status_code == 401


# --- requests under way ----------------------------------------------------------------------------------------------

_CONSOLE = pytest.mark.parametrize(
    "server", ["import os; os.environ['CARINA_SESSION_SECRET'] = 's' * 32"], indirect=True
)


@contextmanager
def streaming(http: httpx.Client, path: str) -> Iterator[Iterator[str]]:
    """The lines of a stream that has told its first event."""
    with http.stream("GET", path) as response:
        assert response.status_code == 200
        lines = response.iter_lines()
        while next(lines):  # an event ends with an empty line
            pass
        yield lines


@pytest.mark.parametrize("path", ["/v1/queue/events", "/v1/submissions/{}/events"])
def test_revoking_a_key_ends_its_event_streams(server: Server, keys: Keys, carina: Carina, path: str) -> None:
    headers = {"Authorization": f"Bearer {keys.both}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=DEADLINE_S) as http:
        made = http.post("/v1/submissions", json={"files": []}).json()["submission"]["id"]
        with streaming(http, path.format(made)) as lines:
            carina("key", "revoke", prefix_of(keys.both))
            *_, name, data, end = lines
        assert (name, end) == ("event: end", "")
        assert '"code": "unauthorized"' in data
        assert http.get(path.format(made)).status_code == 401


def test_a_key_that_expires_ends_its_event_streams(server: Server, keys: Keys, database: Database) -> None:
    headers = {"Authorization": f"Bearer {keys.read}"}
    with (
        httpx.Client(base_url=server.url, headers=headers, timeout=DEADLINE_S) as http,
        streaming(http, "/v1/queue/events") as lines,
    ):
        mine = sa.update(ApiKey).where(ApiKey.prefix == prefix_of(keys.read))
        with database.begin() as session:
            session.execute(mine.values(expires_at=sa.func.now()))
        *_, data, _ = lines
    assert KeyExpired.code in data


@_CONSOLE
def test_signing_out_ends_the_sessions_event_streams(server: Server, keys: Keys) -> None:
    with httpx.Client(base_url=server.url, timeout=DEADLINE_S) as http:
        assert http.post("/console/sign-in", data={"key": keys.read}).status_code == 303
        with streaming(http, "/v1/queue/events") as lines:
            with httpx.Client(base_url=server.url, cookies=dict(http.cookies), timeout=DEADLINE_S) as tab:
                assert tab.post("/console/sign-out").status_code == 303
            *_, name, data, _ = lines
    assert (name, "unauthorized" in data) == ("event: end", True)


def test_revoking_a_key_ends_its_long_polls(api: Api, keys: Keys, database: Database) -> None:
    (file,) = api.send(("a.png", png())).get_json()["files"]
    answers: list[int] = []
    polling = threading.Thread(
        target=lambda: answers.append(api.get(f"/v1/jobs/{file['job_id']}", wait=60).status_code)
    )
    polling.start()
    api.wait_for_poll()
    with database.begin() as session:
        revoke_key(session, prefix_of(keys.both))
    polling.join(DEADLINE_S)
    assert answers == [401]


def test_what_a_key_sends_on_after_its_end_is_not_stored(server: Server, keys: Keys, database: Database) -> None:
    image = png()

    def body() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + image[:100]
        wait_for(under_way)
        with database.begin() as session:
            revoke_key(session, prefix_of(keys.both))
        time.sleep(KEPT_S)  # for which a key that has ended may be taken to be good
        yield image[100:] + b"\r\n--x--\r\n"

    def under_way() -> bool:
        with database.begin() as session:
            return session.scalar(sa.select(IdempotencyKey.id)) is not None

    headers = {"Authorization": f"Bearer {keys.both}", "Content-Type": "multipart/form-data; boundary=x"}
    headers["Idempotency-Key"] = "first"
    answer = httpx.post(f"{server.url}/v1/studies", headers=headers, content=body(), timeout=DEADLINE_S)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    with database.begin() as session:
        assert session.scalar(sa.select(Image)) is None
