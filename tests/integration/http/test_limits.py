"""How much a key may ask for: its time, its requests, its files and bytes."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import redis
import sqlalchemy as sa
import structlog

from api.http import limits
from deploy.stack import redis_server
from shared.access.keys import Allowance, create_key
from shared.database import Database
from shared.settings import Settings
from shared.vocabulary.states import Scope
from tests.integration.conftest import Api, Keys, Server, png
from tests.integration.http.test_access import problem_of
from tests.ports import free_port
from tests.waiting import wait_for

MakeKey = Callable[..., str]


@pytest.fixture
def make_key(database: Database) -> MakeKey:
    """Make a key of the ward that may submit and read, with these limits."""

    def make(**allowed: object) -> str:
        with database.begin() as session:
            scopes, allowance = [Scope.SUBMIT, Scope.READ], Allowance(**allowed)
            return create_key(session, project_name="ward", name="", scopes=scopes, allowance=allowance)

    return make


def test_a_key_ends_when_its_time_is_over(api: Api, make_key: MakeKey) -> None:
    expires_at = datetime.now(UTC) + timedelta(seconds=4)
    key = make_key(expires_at=expires_at)
    assert api.as_(key).get("/v1/models").status_code == 200
    wait_for(lambda: datetime.now(UTC) > expires_at)
    response = api.as_(key).get("/v1/models")  # also while the keyring still knows it
    assert (response.status_code, problem_of(response)) == (401, "key_expired")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    # Who has only the public part of a key learns nothing from it.
    guessed = api.as_(key[:-3] + "abc").get("/v1/models")
    assert problem_of(guessed) == "unauthorized"


def test_a_key_gets_as_many_answers_as_its_rate_allows(api: Api, keys: Keys, make_key: MakeKey) -> None:
    mine, other = api.as_(make_key(rate_limit="3/minute")), api.as_(make_key(rate_limit="3/minute"))
    # All routes count together.
    for path in ("/v1/models", "/v1/trainings", "/v1/models"):
        assert mine.get(path).status_code == 200
    response = mine.get("/v1/models")
    assert (response.status_code, problem_of(response)) == (429, "rate_limited")
    assert 0 < int(response.headers["Retry-After"]) <= 61
    assert other.get("/v1/models").status_code == 200
    assert api.get("/v1/models").status_code == 200
    for path in ("/healthz", "/openapi.json"):
        assert mine.get(path).status_code == 200


def test_the_setting_counts_for_keys_that_have_no_rate_of_their_own(
    make_api: Callable[[Settings], Api], settings: Settings, keys: Keys, make_key: MakeKey
) -> None:
    api = make_api(settings.model_copy(update={"rate_limit": "2/minute"}))
    assert [api.get("/v1/models").status_code for _ in range(3)] == [200, 200, 429]
    own = api.as_(make_key(rate_limit="4/minute"))
    assert [own.get("/v1/models").status_code for _ in range(5)] == [200, 200, 200, 200, 429]
    with pytest.raises(ValueError, match="often"):
        make_api(settings.model_copy(update={"rate_limit": "often"}))


def test_a_key_sends_as_many_files_a_day_as_it_may(api: Api, make_key: MakeKey) -> None:
    mine = api.as_(make_key(files_per_day=2))
    assert mine.send(("a", png(1))).status_code == 202
    response = mine.send(("b", png(2)), ("c", png(3)))
    assert (response.status_code, problem_of(response)) == (429, "quota_exceeded")
    assert 0 < int(response.headers["Retry-After"]) <= 86_401
    # The first of the two was within the quota and stays, as every file before an error does.
    (file,) = api.send(("b", png(2))).get_json()["files"]
    assert file["outcome"] == "duplicate"
    (file,) = api.send(("c", png(3))).get_json()["files"]
    assert file["outcome"] == "accepted"
    announced = {"files": [{"byte_count": 100, "sha256": "0" * 64}]}
    assert problem_of(mine.post("/v1/submissions", announced)) == "quota_exceeded"


def test_a_key_sends_as_many_bytes_a_day_as_it_may(api: Api, make_key: MakeKey) -> None:
    image = png(1)
    mine = api.as_(make_key(files_per_day=10, bytes_per_day=2 * len(image)))
    assert mine.send(("a", image)).status_code == 202
    response = mine.send(("large", png(2, side_px=300)))
    assert (response.status_code, problem_of(response)) == (429, "quota_exceeded")
    assert mine.send(("a", image)).status_code == 202, "what was refused has not been charged"
    assert mine.send(("b", png(3))).status_code == 429


@pytest.fixture
def own_redis(servers: dict[str, str], tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A Redis of this test's own, to be stopped; its URL and its process."""
    port = free_port()
    command = [str(redis_server.program()), "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        with redis.Redis(port=port) as client:

            def answers() -> bool:
                with suppress(redis.ConnectionError):
                    return bool(client.ping())
                return False

            wait_for(answers)
        yield f"redis://127.0.0.1:{port}/0", process
        process.kill()


def test_while_redis_is_down_everything_passes_and_one_warning_says_so(
    make_api: Callable[[Settings], Api],
    settings: Settings,
    own_redis: tuple[str, "subprocess.Popen[bytes]"],
    make_key: MakeKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "_QUIET_S", 3600)
    monkeypatch.setattr(limits, "_TIMEOUT_S", 2)
    url, process = own_redis
    api = make_api(settings.model_copy(update={"redis_url": type(settings.redis_url)(url)}))
    mine = api.as_(make_key(rate_limit="2/hour", files_per_day=2))
    assert [mine.get("/v1/models").status_code for _ in range(3)] == [200, 200, 429]
    os.kill(process.pid, signal.SIGSTOP)
    with structlog.testing.capture_logs() as logged:
        start = time.monotonic()
        assert {mine.get("/v1/models").status_code for _ in range(100)} == {200}
        assert time.monotonic() - start < 100  # each of them would wait for two seconds otherwise
        assert mine.send(("a", png(1)), ("b", png(2))).status_code == 202
        assert problem_of(mine.send(("c", png(3)))) == "quota_exceeded", "which PostgreSQL counts"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        monkeypatch.setattr(limits, "_QUIET_S", 0)
        assert {mine.get("/v1/models").status_code for _ in range(10)} == {200}
    assert [entry["event"] for entry in logged].count("limits_not_enforced") == 1


def test_limits_are_enforced_again_once_redis_is_back(
    make_api: Callable[[Settings], Api],
    settings: Settings,
    own_redis: tuple[str, "subprocess.Popen[bytes]"],
    make_key: MakeKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "_QUIET_S", 0.5)
    url, process = own_redis
    mine = make_api(settings.model_copy(update={"redis_url": type(settings.redis_url)(url)})).as_(
        make_key(rate_limit="1/hour")
    )
    assert [mine.get("/v1/models").status_code for _ in range(2)] == [200, 429]
    os.kill(process.pid, signal.SIGSTOP)
    assert mine.get("/v1/models").status_code == 200
    os.kill(process.pid, signal.SIGCONT)
    wait_for(lambda: mine.get("/v1/models").status_code == 429)


#: As chatty as can be, into a file of this test process' own.
_LOG = Path(tempfile.gettempdir()) / f"carina-test-{os.getpid()}.log"
_CHATTY = (
    f"import os; os.environ['CARINA_LOG_LEVEL'] = 'debug'; "
    f"os.dup2(os.open({str(_LOG)!r}, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)"
)


@pytest.mark.parametrize("server", [_CHATTY], indirect=True)
def test_no_key_is_ever_logged_or_kept(server: Server, keys: Keys, settings: Settings, database: Database) -> None:
    """At the chattiest level, with keys that are right, wrong, and in places where none belongs."""
    wrong = keys.both[:-4] + "aaaa"
    with httpx.Client(base_url=server.url) as http:
        for key in (keys.both, wrong, "carina_" + wrong):
            headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "once"}
            http.get("/v1/models", headers=headers)
            http.get(f"/v1/{key}", headers=headers)
            http.post("/v1/studies", headers=headers, files=[("files", ("a.png", png(1)))])
            http.post("/v1/studies", headers=headers, content=b"nothing")
            http.post("/v1/datasets", headers=headers, json={"name": key})
    secrets = {key.split("_", 2)[2] for key in (keys.both, wrong)}
    said = _LOG.read_text()
    _LOG.unlink()
    assert "files_received" in said
    assert not [secret for secret in secrets if secret in said]
    with database.begin() as session:
        for table in ("audit_event", "api_key", "idempotency_key"):
            rows = "".join(map(str, session.execute(sa.text(f"SELECT * FROM {table}")).all()))
            assert rows
            assert not [secret for secret in secrets if secret in rows]
    client = redis.Redis.from_url(settings.redis_url.get_secret_value())
    assert not [name for name in client.keys("*") for secret in secrets if secret.encode() in name]
    client.close()
