"""Which proxy a request goes through."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from shared.errors import ProxyUnusable
from shared.network.proxies import http_client, proxy_of
from shared.network.urls import is_loopback
from shared.object_store import ObjectStore
from shared.settings import Settings

#: Nothing listens there.
DEAD = "http://127.0.0.1:9"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class _Says(BaseHTTPRequestHandler):
    """Answers every request with what was asked of it, as a proxy or as a server."""

    def do_GET(self) -> None:
        said = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server on 127.0.0.1 that answers as a server and as a proxy."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Says) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/x",
        "http://127.8.9.10",
        "https://[::1]:9000/",
        "http://[::ffff:127.0.0.1]/",
        "http://localhost:1",
        "http://LOCALHOST.",
        "http://s3.localhost:1",
        "http://key:secret@127.0.0.1:1/",
    ],
)
def test_this_machine_is_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name in VARIABLES[:3]:
        monkeypatch.setenv(name, DEAD)
        monkeypatch.setenv(name.upper(), DEAD)
    assert is_loopback(url)
    for exceptions in (None, "", "example.org", "*"):
        if exceptions is not None:
            monkeypatch.setenv("NO_PROXY", exceptions)
        assert proxy_of(url) is None


@pytest.mark.parametrize(
    "url", ["http://carina.test", "http://128.0.0.1", "http://[::2]/", "http://localhost.test", "http://notlocalhost"]
)
def test_other_hosts_follow_the_environment(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert not is_loopback(url)
    assert proxy_of(url) is None
    monkeypatch.setenv("ALL_PROXY", "proxy.test:3128")
    assert proxy_of(url) == "http://proxy.test:3128"
    monkeypatch.setenv("http_proxy", DEAD)
    assert proxy_of(url) == DEAD
    assert proxy_of(url.replace("http:", "https:")) == "http://proxy.test:3128"
    monkeypatch.setenv("no_proxy", "other.test," + url.removeprefix("http://").strip("/[]"))
    assert proxy_of(url.replace("[", "").replace("]", "") if "[" in url else url) is None


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_request_takes_the_proxy_of_its_url(monkeypatch: pytest.MonkeyPatch, port: int, name: str) -> None:
    monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    with http_client() as client:
        assert client.get("http://carina.test/v1/models").text == "http://carina.test/v1/models"
        for host in ("127.0.0.1", "127.0.0.2", "localhost"):
            try:
                assert client.get(f"http://{host}:{port}/v1/models").text == "/v1/models"
            except httpx.ConnectError:
                assert host == "127.0.0.2", "the server listens on 127.0.0.1 alone"


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "ftp://127.0.0.1:9", "http://[", "http://a b"])
def test_an_unusable_proxy_is_only_missed_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, port: int, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with http_client() as client:
        assert client.get(f"http://127.0.0.1:{port}/").is_success
        with pytest.raises((ProxyUnusable, httpx.TransportError)):
            client.get("http://carina.test/")


def test_the_object_store_on_this_machine_is_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    def store(endpoint: str) -> ObjectStore:
        return ObjectStore(
            Settings(
                database_url="postgresql://x",
                redis_url="redis://x",
                s3_endpoint_url=endpoint,
                s3_access_key_id="key",
                s3_secret_access_key="secret",
            )
        )

    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked: list[bytes] = []

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        for endpoint, expected in (
            (f"http://127.0.0.1:{listener.getsockname()[1]}", b"HEAD /carina HTTP/1.1"),
            ("http://s3.test", b"HEAD http://s3.test/carina HTTP/1.1"),
        ):
            # The same socket stands for both: how it is asked tells which.
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")
            thread = threading.Thread(target=answer)
            thread.start()
            opened = store(endpoint)
            opened.ping()
            opened.close()
            thread.join()
            assert asked.pop().startswith(expected)
