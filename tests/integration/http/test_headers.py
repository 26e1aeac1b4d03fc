"""Every answer carries the headers that keep it out of caches and of other sites' pages."""

import socket

import pytest

from api.http.headers import HEADERS
from api.http.services import NAME
from shared.ids import new_id
from tests.integration.conftest import Api, Keys, Server
from tests.integration.http.test_access import PAGES, PUBLIC, PUBLIC_PAGES, SCOPES
from tests.waiting import DEADLINE_S

#: Parts of paths that are no ids.
PARTS = {"study_uid": "1.2", "series_uid": "1.3", "instance_uid": "1.4", "frames": "1", "name": "start.js"}
PARTS |= {"_": "nowhere", "digest": "0" * 12, "path": "console.css", "number": "0", "attempt": "1"}
#: Pages, which show pictures and run scripts of their own.
PAGE, OWN_POLICY = "/console", ("/console", "/docs")


class Parts(dict[str, str]):
    """The parts of any path."""

    def __missing__(self, name: str) -> str:
        return str(new_id())


@pytest.mark.parametrize("key", ["admin", "read", None])
def test_every_answer_has_them(api: Api, keys: Keys, key: str | None) -> None:
    api._http.application.extensions[NAME].stopping.set()  # streams end at once
    caller = api.as_(getattr(keys, key) if key else None)
    others = [("GET", "/nowhere"), ("PUT", "/v1/models"), ("HEAD", "/v1/models"), ("OPTIONS", "/v1/models")]
    routes = [*SCOPES, *PUBLIC, *PAGES, *PUBLIC_PAGES, *others]
    for method, path in routes:
        response = caller.call(method, path.format_map(Parts(PARTS)))
        given = {name: response.headers.get(name) for name in HEADERS}
        where = (method, path, response.status_code)
        if path == "/" or path.startswith(OWN_POLICY):
            assert "frame-ancestors 'none'" in given["Content-Security-Policy"], where
            given["Content-Security-Policy"] = HEADERS["Content-Security-Policy"]
        if path == "/" or path.startswith(PAGE):
            given["Referrer-Policy"] = HEADERS["Referrer-Policy"]
        assert given == HEADERS, where


@pytest.mark.parametrize("request_line", ["GET / HTTP/9.9", f"GET /{'a' * 9000} HTTP/1.1", "nonsense"])
def test_so_has_an_answer_to_no_http(server: Server, request_line: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        connection.sendall(f"{request_line}\r\nHost: api\r\n\r\n".encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head = answer.partition(b"\r\n\r\n")[0].decode().splitlines()
    assert {f"{name}: {value}" for name, value in HEADERS.items()} <= set(head), head
