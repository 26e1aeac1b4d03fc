"""The API under test, in this process and as the real server; and jobs with workers on this test's servers."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from multiprocessing.context import ForkServerProcess
from uuid import UUID

import httpx
import numpy as np
import PIL.Image
import psutil
import pytest
from flask.testing import FlaskClient
from pynetdicom.transport import AssociationSocket

from api.app import create_app
from api.http.services import NAME
from deploy.cli import main
from shared.access.keys import create_key
from shared.database import Database
from shared.detector.card import ModelCard
from shared.object_store import ObjectStore
from shared.queue.hints import Hints
from shared.settings import Settings
from shared.submissions import progress
from shared.vocabulary.states import Scope
from tests.integration.dicomweb import Web
from tests.integration.forked import start_api
from tests.integration.workshop import Workshop
from tests.ports import free_port
from tests.tiny_model import make_tiny_model
from tests.waiting import DEADLINE_S, wait_for

#: Settings of servers that do not exist.
NOWHERE = {
    "CARINA_DATABASE_URL": "postgresql://carina:secret@127.0.0.1:1/carina",
    "CARINA_REDIS_URL": "redis://127.0.0.1:1/0",
    "CARINA_S3_ENDPOINT_URL": "http://127.0.0.1:1",
    "CARINA_S3_ACCESS_KEY_ID": "key",
    "CARINA_S3_SECRET_ACCESS_KEY": "secret",
}


@dataclass(frozen=True)
class Keys:
    """Keys of two projects."""

    submit: str
    read: str
    both: str
    train: str
    admin: str
    #: `admin` as well.
    system: str
    #: Of another project than the others.
    stranger: str


@pytest.fixture
def keys(database: Database) -> Keys:
    """Keys with each scope of one project, and one of another project."""
    with database.begin() as session:

        def key(*scopes: Scope, project: str = "ward") -> str:
            return create_key(session, project_name=project, name=" and ".join(scopes), scopes=scopes)

        return Keys(
            submit=key(Scope.SUBMIT),
            read=key(Scope.READ),
            both=key(Scope.SUBMIT, Scope.READ),
            train=key(Scope.TRAIN),
            admin=key(Scope.ADMIN),
            system=key(Scope.ADMIN, Scope.SYSTEM),
            stranger=key(Scope.ADMIN, project="elsewhere"),
        )


class Api:
    """The application in this process, called with one key."""

    def __init__(self, http: FlaskClient, key: str | None) -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def as_(self, key: str | None) -> "Api":
        """The same with another key."""
        return Api(self._http, key)

    def wait_for_poll(self) -> None:
        """Wait until a request has begun to wait for a change."""
        polls = self._http.application.extensions[NAME].long_polls
        wait_for(lambda: polls._value < polls._initial_value)

    def get(self, path: str, **query: object):
        return self._http.get(path, headers=self._headers, query_string=query)

    def post(self, path: str, body: object = None, **query: object):
        """Call with a JSON body, if there is one."""
        return self._http.post(path, headers=self._headers, query_string=query, json=body)

    def put(self, path: str, data: bytes):
        """Call with a body of bytes."""
        return self._http.put(path, headers=self._headers, data=data)

    def call(self, method: str, path: str, body: object = None):
        """Call with any method; the answer is read to its end."""
        with self._http.open(path, method=method, headers=self._headers, json=body) as response:
            response.get_data()
            return response

    def patch(self, path: str, body: object):
        return self._http.patch(path, headers=self._headers, json=body)

    def delete(self, path: str):
        return self._http.delete(path, headers=self._headers)

    def send(self, *files: tuple[str, bytes], **query: object):
        """Submit files, each a name and its bytes."""
        # Encoded by httpx, for Flask's test client leaves a temporary file open.
        body = httpx.Request("POST", "http://api", files=[("files", file) for file in files])
        headers = self._headers | {"Content-Type": body.headers.get("Content-Type", "")}
        return self._http.post("/v1/studies", headers=headers, query_string=query, data=body.read())


@pytest.fixture(autouse=True)
def _count_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count a submission's files at each request, however long the count takes on a busy machine."""
    monkeypatch.setattr(progress, "SLOW_COUNT_S", float("inf"))


@pytest.fixture
def senders_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close the senders' sockets also where the listener has gone first; pynetdicom leaves those to the collector."""
    shutdown_socket = AssociationSocket._shutdown_socket

    def close(self: AssociationSocket) -> None:
        shutdown_socket(self)
        if self.assoc.is_requestor and self.socket is not None:
            self.socket.close()

    monkeypatch.setattr(AssociationSocket, "_shutdown_socket", close)


@pytest.fixture
def make_api(keys: Keys) -> Iterator[Callable[[Settings], Api]]:
    """Build the application from settings, to be called with a key that may submit and read."""
    apps = []

    def make(settings: Settings) -> Api:
        apps.append(create_app(settings))
        return Api(apps[-1].test_client(), keys.both)

    yield make
    for app in apps:
        app.extensions[NAME].close()


@pytest.fixture
def api(make_api: Callable[[Settings], Api], settings: Settings) -> Api:
    """The application on this test's servers."""
    return make_api(settings)


@pytest.fixture
def make_web(settings: Settings) -> Iterator[Callable[..., Web]]:
    apps = []

    def make(key: str, **changes: object) -> Web:
        apps.append(create_app(settings.model_copy(update=changes)))
        return Web(apps[-1].test_client(), key)

    yield make
    for app in apps:
        app.extensions[NAME].close()


@pytest.fixture
def web(make_web: Callable[..., Web], keys: Keys) -> Web:
    return make_web(keys.both)


@dataclass(frozen=True)
class Server:
    """The API as it runs in production: gunicorn's arbiter and its worker."""

    port: int
    process: ForkServerProcess
    arbiter: psutil.Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def worker(self) -> psutil.Process:
        (worker,) = self.arbiter.children()
        return worker


@pytest.fixture
def server(settings: Settings, environ: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Server]:
    """The served API on this test's servers; a parameter is a statement that changes `api.serve` before."""
    port = free_port()
    process = start_api(os.environ | environ | {"CARINA_API_PORT": str(port)}, getattr(request, "param", ""))
    try:
        _await_health(process, port)
        yield Server(port, process, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.join(DEADLINE_S)


def _await_health(process: ForkServerProcess, port: int) -> None:
    def answers() -> bool:
        assert process.is_alive(), "The API did not come up."
        with suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}/healthz").is_success
        return False

    wait_for(answers)


@pytest.fixture
def local_operator(carina: Callable[..., str], server: Server, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands reach the served API with a key that may do anything, and the servers behind it."""
    monkeypatch.setenv("CARINA_API_URL", server.url)
    monkeypatch.setenv("CARINA_API_KEY", keys.system)


@pytest.fixture
def operator(local_operator: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands reach the served API alone: the settings of the other servers lead nowhere."""
    for name, value in NOWHERE.items():
        monkeypatch.setenv(name, value)


def png(seed: int = 0, side_px: int = 80) -> bytes:
    """A PNG that no other seed makes."""
    pixels = np.random.default_rng(seed).integers(0, 255, (side_px, side_px), np.uint8)
    buffer = BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def workshop(settings: Settings, database: Database, store: ObjectStore, hints: Hints) -> Workshop:
    """Jobs and workers on this test's servers."""
    return Workshop(settings, database, store, hints)


@pytest.fixture(scope="session")
def tiny_model() -> tuple[ModelCard, bytes]:
    """A quick model with random weights."""
    return make_tiny_model()


@pytest.fixture
def tiny_model_id(workshop: Workshop, tiny_model: tuple[ModelCard, bytes]) -> UUID:
    """The quick model, active."""
    return workshop.promote(*tiny_model)


@pytest.fixture
def carina(
    environ: dict[str, str],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """Run a command in this process, for the many that these tests take; return what it printed."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    opened: list[Database] = []

    def connect(given: Settings, process: str = "command") -> Database:
        opened.append(Database(given.database_url.get_secret_value(), name=f"carina-{process}"))
        return opened[-1]

    monkeypatch.setattr(Database, "from_settings", connect)

    def run(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr("sys.argv", ["carina", *arguments])
        ended = 0
        try:
            main()
        except SystemExit as exit_:
            ended = exit_.code
        while opened:  # A process' connections would end with it.
            opened.pop().close()
        printed = "".join(capsys.readouterr())
        assert ended == code, printed
        return printed

    return run
