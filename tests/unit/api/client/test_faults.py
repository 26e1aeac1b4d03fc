"""A URL that leads nowhere, or elsewhere, is one sentence after a few seconds; further tries are announced."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from api.client import ApiUnavailable, Carina, RequestRefused, UnexpectedAnswer, first_answer
from api.client.errors import InvalidUrl
from shared.errors import CarinaError

KEY = "carina_x_y"


@contextmanager
def answering(*answers: tuple[int, str, bytes]) -> Iterator[str]:
    """Serve these answers, each a status, a type and a body, one after another, and yield where."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if 300 <= status < 400:
                self.send_header("Location", "https://elsewhere.test/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as url:
        yield url


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve with this handler, and yield where."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def black_hole() -> Iterator[str]:
    """Yield the address of a port that answers no attempt to connect: its queue is full."""
    with ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def silent() -> Iterator[str]:
    """Yield the address of a port that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def problem(status: int, code: str, detail: str) -> tuple[int, str, bytes]:
    body = {"title": "x", "status": status, "detail": detail, "code": code}
    return status, "application/problem+json", json.dumps(body).encode()


def ask(url: str) -> tuple[CarinaError, list[str]]:
    """Return the error that a client of this URL raises, and what it announced before."""
    heard: list[str] = []
    with pytest.raises(CarinaError) as raised, Carina(url, KEY, on_retry=heard.append) as client:
        client.models()
    assert raised.value.detail.endswith((".", "?"))
    assert "\n" not in raised.value.detail
    return raised.value, heard


@pytest.mark.parametrize(
    "url",
    [
        *("", "127.0.0.1:80", "ftp://h", "http://h:x", "http://h:99999", "http://a b", "http://", "http://[::1"),
        *("http://exa_mple..com", "http://h\\x", f"http://{'a' * 300}", "http://h:0", "https//h", "http://h?x=1"),
    ],
)
def test_a_malformed_url_is_refused_before_anything_is_sent(url: str) -> None:
    error, _ = ask(url)
    assert isinstance(error, InvalidUrl)
    assert "Give a URL such as https://carina.example.org." in error.detail


@pytest.mark.parametrize(
    ("url", "because"),
    [("http://no-such-host.invalid", "no host of that name"), ("http://127.0.0.1:1", "nothing listens")],
)
def test_a_host_that_is_not_there_is_said_once_to_be_tried_again(url: str, because: str) -> None:
    error, heard = ask(url)
    assert isinstance(error, ApiUnavailable)
    assert because in error.detail
    assert len(heard) == 1
    assert "trying again in" in heard[0]


def test_a_host_that_answers_no_attempt_to_connect_is_given_up_on() -> None:
    with black_hole() as url:
        began = time.monotonic()
        error, _ = ask(url)
        # The client's own limits: 10 s for an address, and 90 s in all.
        assert time.monotonic() - began < 10
    assert isinstance(error, ApiUnavailable)
    assert "takes too long" in error.detail


@pytest.mark.parametrize("is_upload", [False, True])
def test_a_server_that_takes_connections_and_never_answers_is_given_up_on(
    is_upload: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_answer, "_ALIVE_S", 0.5)
    (image := tmp_path / "image.dcm").write_bytes(b"x")
    with silent() as url, Carina(url, KEY, on_retry=lambda _: None) as client:
        began = time.monotonic()
        with pytest.raises(ApiUnavailable, match="takes too long"):
            client.submit([image]) if is_upload else client.models()
        # The client's own limits: 120 s for an answer, and 90 s in all.
        assert time.monotonic() - began < 60


def test_a_server_that_is_alive_may_take_its_time() -> None:
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"models": []}'
            if self.path == "/healthz":
                over.set()
            else:
                over.wait(60)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    heard: list[str] = []
    with serving(Handler) as url, Carina(url, KEY, first_answer_s=8, on_retry=heard.append) as client:
        assert client.models() == []
    assert heard == [f"The API at {url} takes its time; giving up in 25 s unless it is alive."]
    assert over.is_set()


def test_a_name_that_is_not_resolved_in_time_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, over = threading.Event(), threading.Event()

    def resolve(*_: object, **__: object) -> list[object]:
        asked.set()
        over.wait(60)
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    error, _ = ask("http://carina.test")
    assert asked.is_set()
    assert isinstance(error, ApiUnavailable)
    over.set()


def test_tls_to_a_port_without_it_is_named() -> None:
    with answering((200, "text/html", b"x")) as url:
        error, _ = ask(url.replace("http:", "https:"))
    assert "does not speak TLS" in error.detail


@pytest.mark.parametrize(
    ("status", "kind"), [(200, "text/html"), (404, "text/html"), (301, "text/html"), (403, "text/plain")]
)
def test_another_server_is_known_by_its_answer(status: int, kind: str) -> None:
    with answering((status, kind, b"<html>Welcome</html>")) as url:
        error, heard = ask(url)
    assert isinstance(error, UnexpectedAnswer)
    assert "another server" in error.detail
    assert heard == []


def test_a_503_is_announced_and_tried_again() -> None:
    heard: list[str] = []
    busy = problem(503, "database_unavailable", "PostgreSQL does not answer.")
    models = (200, "application/json", b'{"models": []}')
    with answering(busy, busy, models) as url, Carina(url, KEY, on_retry=heard.append) as client:
        assert client.models() == []
    assert len(heard) == 2
    assert heard[0].startswith("The API answered 503 (PostgreSQL does not answer); trying again in ")
    assert "(try 2, giving up in " in heard[0]
    assert "(try 3, giving up in " in heard[1]


def test_a_refusal_says_which_parameter_is_wrong() -> None:
    status, kind, body = problem(422, "invalid_request", "A parameter of the request is not valid.")
    said = json.loads(body) | {"errors": [{"name": "state", "detail": "Did you mean failed?"}]}
    with answering((status, kind, json.dumps(said).encode())) as url:
        error, _ = ask(url)
    assert isinstance(error, RequestRefused)
    assert error.detail == "A parameter of the request is not valid. state: Did you mean failed?"


@pytest.mark.parametrize("queue", [Carina.train, Carina.evaluate], ids=["training", "evaluation"])
def test_a_task_is_queued_once_however_often_the_request_is_repeated(queue: Callable[[Carina, str], object]) -> None:
    keys: list[str | None] = []

    class Busy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            keys.append(self.headers["Idempotency-Key"])
            self.send_response(503 if len(keys) == 1 else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with serving(Busy) as url, Carina(url, KEY) as client, pytest.raises(UnexpectedAnswer):
        queue(client, "films")
    assert len(keys) == 2
    assert keys[0] is not None
    assert keys[0] == keys[1]
