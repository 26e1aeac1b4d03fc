"""Clients that are slow, idle, many or malformed hold no request thread, and each kind comes to its end."""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial

import httpx
import pytest

from shared.database import Database
from tests.integration.conftest import Keys, Server, png
from tests.integration.http.test_uploads import HEAD, TAIL, answer_on, chunked, rows
from tests.synthetic_dicom import make_dicom, make_image
from tests.waiting import DEADLINE_S, wait_for

Connect = Callable[..., socket.socket]

#: Two threads serve everything, so that one client that held a thread would soon be noticed.
_FEW_THREADS = "import os; os.environ |= {'CARINA_API_THREADS': '2', 'CARINA_SESSION_SECRET': 's' * 32}"
CLIENTS = 40


def with_settings(change: str = "", **environ: object) -> pytest.MarkDecorator:
    """Serve with two threads, these variables, and after a statement that changes `connections` or `sockets`."""
    set_them = f"os.environ |= { ({name: str(value) for name, value in environ.items()})!r}"
    imports = "from api.http import client_socket as sockets, connections"
    return pytest.mark.parametrize("server", ["; ".join([_FEW_THREADS, set_them, imports, change])], indirect=True)


@pytest.fixture
def connect(server: Server) -> Iterator[Connect]:
    """Connects to the server, sends some bytes, and closes everything in the end."""
    with ExitStack() as stack:

        def connect(sent: bytes = b"", *, receive_bytes: int | None = None, address: str = "") -> socket.socket:
            connection = stack.enter_context(socket.socket())
            if receive_bytes is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            connection.settimeout(DEADLINE_S)
            connection.bind((address, 0))
            connection.connect(("127.0.0.1", server.port))
            connection.sendall(sent)
            return connection

        yield connect


def request(path: str = "/healthz", method: str = "GET", body: bytes = b"", **headers: object) -> bytes:
    """A request as it is sent; `body` adds its length unless a header frames it."""
    if body and not {"Content_Length", "Transfer_Encoding"} & headers.keys():
        headers["Content_Length"] = len(body)
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in {"Host": "api", **headers}.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode() + body


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def begin_upload(connect: Connect, key: str) -> socket.socket:
    """Begin an upload, which a thread waits for as soon as the client is told to go on."""
    content_type = "multipart/form-data; boundary=frontier"
    framing = {"Content_Length": 10**6, "Content_Type": content_type, "Expect": "100-continue"}
    connection = connect(request("/v1/studies", "POST", **bearer(key), **framing))
    assert status_of(connection) == 100
    connection.sendall(HEAD)
    return connection


def status_of(connection: socket.socket) -> int:
    """Of the next answer, which is read whole; 0 where the server closes instead."""
    return answer(connection)[0]


def answer(connection: socket.socket) -> tuple[int, bytes, bytes]:
    """Status, head and body of the next answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        try:
            more = connection.recv(1)
        except ConnectionResetError:
            more = b""
        if not more:
            return 0, data, b""
        data += more
    length = re.search(rb"content-length: (\d+)", data, re.IGNORECASE)
    body = b""
    while length and len(body) < int(length[1]):
        body += connection.recv(int(length[1]) - len(body))
    return int(data.split()[1]), data, body


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def is_served(server: Server) -> bool:
    return httpx.get(f"{server.url}/healthz", timeout=DEADLINE_S).is_success


SIGN_IN = {"Content_Type": "application/x-www-form-urlencoded"}


#: What a client sends that then stops; it has no key.
HALVES = {
    "nothing": b"",
    "head": b"GET /healthz HTTP/1.1\r\nHost: a",
    "sign_in": request("/console/sign-in", "POST", b"key=", Content_Length=500, **SIGN_IN),
    "expecting": request("/console/sign-in", "POST", b"key=", Content_Length=500, Expect="100-continue", **SIGN_IN),
    "padded": request("/console/sign-in", "POST", b"key=", Content_Length="0000000500", **SIGN_IN),
    "upload": request(
        "/v1/studies", "POST", b"--b", Content_Length=10**6, Content_Type="multipart/form-data; boundary=b"
    ),
    "no_route": request("/v1/none", "POST", b"{", Content_Length=10**9, Content_Type="application/json"),
    "chunked": request("/v1/none", "POST", b"1\r\n{\r\n", Transfer_Encoding="chunked"),
    "never_closes": request(Connection="close"),
}


@with_settings()
def test_many_clients_that_stop_halfway_hold_no_thread(server: Server, connect: Connect) -> None:
    for sent in HALVES.values():
        attackers = [connect(sent) for _ in range(CLIENTS)]
        assert is_served(server)
        assert len(attackers) == CLIENTS
    for _ in range(10):
        assert is_served(server)


@with_settings()
def test_clients_that_do_not_take_their_answer_hold_no_thread(server: Server, connect: Connect) -> None:
    asked = request("/docs/swagger-ui-bundle.js")
    readers = [connect(asked, receive_bytes=4096) for _ in range(10)]
    for _ in range(10):
        assert is_served(server)
    status, _, script = answer(readers[-1])
    assert (status, script.endswith(b"\n") or len(script) > 10**6) == (200, True)


@with_settings("connections.HEAD_S = connections.SMALL_BODY_S = 1; connections.IDLE_S = 2")
def test_each_client_that_stops_halfway_comes_to_its_end(server: Server, connect: Connect, keys: Keys) -> None:
    silent, in_head = connect(), connect(b"GET /healthz HTTP/1.1\r\nHo")
    body = connect(request("/console/sign-in", "POST", b"key=", Content_Length=500, **SIGN_IN))
    kept = connect(request())
    assert is_closed(silent)
    assert is_closed(in_head)
    status, head, problem = answer(body)
    assert (status, b"application/problem+json" in head, b'"code":"body_too_slow"' in problem) == (408, True, True)
    assert is_closed(body)
    assert status_of(kept) == 200
    assert is_closed(kept)
    # A body that a thread reads, because it comes in chunks.
    json = {**bearer(keys.both), "Content_Type": "application/json", "Transfer_Encoding": "chunked"}
    assert is_served(server)
    assert status_of(connect(request("/v1/submissions", "POST", chunked(b"{}") + b"0\r\n\r\n", **json))) == 201


@with_settings()
def test_a_small_body_that_is_cut_short_is_not_taken_for_a_whole_one(
    server: Server, connect: Connect, keys: Keys
) -> None:
    signed_in = answer(connect(request("/console/sign-in", "POST", b"key=" + keys.both.encode(), **SIGN_IN)))[1]
    cookie = re.search(rb"set-cookie: ([^;]+)", signed_in, re.IGNORECASE)
    assert cookie is not None
    for kind in (
        {**bearer(keys.both), "Content_Type": "application/json"},
        {"Cookie": cookie[1].decode(), **SIGN_IN},  # of which the form's token is read before the key is known
    ):
        connection = connect(request("/v1/submissions", "POST", b'{"files": []}', Content_Length=14, **kind))
        connection.shutdown(socket.SHUT_WR)
        status, _, problem = answer(connection)
        assert (status, b'"code":"upload_cut_short"' in problem) == (400, True), problem


@with_settings("sockets.BODY_S = 1")
def test_a_chunked_body_that_stops_halfway_gives_its_thread_back(server: Server, connect: Connect, keys: Keys) -> None:
    json = {**bearer(keys.both), "Content_Type": "application/json", "Transfer_Encoding": "chunked"}
    status, _, problem = answer(connect(request("/v1/submissions", "POST", b"1\r\n{\r\n", **json)))
    assert (status, b'"code":"body_too_slow"' in problem) == (408, True)


@with_settings("connections.HEAD_S = 2")
def test_the_time_for_a_head_is_not_prolonged_by_bytes(server: Server, connect: Connect) -> None:
    connection = connect(b"GET /healthz HTTP/1.1\r\nX: ")
    connection.settimeout(0.2)

    def is_given_up() -> bool:
        try:
            connection.sendall(b"y")
            return connection.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    wait_for(is_given_up)


@with_settings()
def test_a_key_is_checked_before_the_body_is_there(server: Server, connect: Connect, keys: Keys) -> None:
    """Whatever the body: small, large or in chunks; the client is not told to send it, and the connection ends."""
    wrong = bearer(keys.both[:-3] + "abc")
    for path in ("/v1/studies", "/v1/submissions", "/dicom-web/studies"):
        for framing in ({"Content_Length": 500}, {"Content_Length": 10**9}, {"Transfer_Encoding": "chunked"}):
            for expected in ({}, {"Expect": "100-continue"}):
                connection = connect(request(path, "POST", **wrong, **framing, **expected))
                status, head, problem = answer(connection)
                assert (status, b'"code":"unauthorized"' in problem) == (401, True), (path, framing, head)
                assert b"\r\nConnection: close\r\n" in head
                connection.close()


@with_settings(CARINA_API_THREADS=4)
def test_a_client_is_told_to_go_on_once_its_key_is_known(
    server: Server, connect: Connect, keys: Keys, database: Database
) -> None:
    known = {**bearer(keys.both), "Expect": "100-continue"}
    form = HEAD + png(1) + TAIL
    sent = {
        "/v1/studies": (form, "multipart/form-data; boundary=frontier", 202),
        "/v1/submissions": (b'{"files": []}', "application/json", 201),
        "/console/sign-in": (b"key=" + keys.both.encode(), SIGN_IN["Content_Type"], 303),
    }
    for path, (body, content_type, expected) in sent.items():
        connection = connect(request(path, "POST", Content_Length=len(body), Content_Type=content_type, **known))
        assert answer(connection)[0] == 100
        connection.sendall(body)
        assert status_of(connection) == expected
    assert rows(database) == 3


@with_settings(CARINA_API_THREADS=4)  # the thread of an answered request may not be free at once
def test_bodies_are_as_large_as_their_route_allows(server: Server, connect: Connect, keys: Keys) -> None:
    def refused(path: str, length: int, **headers: object) -> tuple[int, str]:
        status, _, problem = answer(connect(request(path, "POST", Content_Length=length, **headers)))
        return status, problem.decode().rpartition('"code":"')[2].partition('"')[0]

    too_large = (413, "request_entity_too_large")  # the console shows it as a page
    for content_type in ("application/json", SIGN_IN["Content_Type"], "multipart/form-data; boundary=b", "text/plain"):
        known = {**bearer(keys.train), "Content_Type": content_type}
        assert refused("/v1/trainings", 64 * 1024 + 1, **known) == too_large
        assert refused("/console/sign-in", 150_000_000, Content_Type=content_type)[0] == 413
        assert refused("/console/sign-out", 4097, Content_Type=content_type)[0] == 413
    json = {**bearer(keys.both), "Content_Type": "application/json"}
    assert refused("/v1/submissions", 1024**2 + 1, **json) == too_large
    names = b'{"files": [' + b",".join(
        b'{"name": "%0200d", "byte_count": 1, "sha256": "%064x"}' % (n, n) for n in range(900)
    )
    assert status_of(connect(request("/v1/submissions", "POST", names + b"]}", **json))) == 201
    # In chunks nobody can say how long it will be, so it is read that far. JSON is valid there and goes on.
    large = chunked(b"{}".ljust(70_000)) + b"0\r\n\r\n"
    framed = {**bearer(keys.train), "Content_Type": "application/json", "Transfer_Encoding": "chunked"}
    assert status_of(connect(request("/v1/trainings", "POST", large, **framed))) == 413
    malformed = request("/v1/trainings", "POST", b"2\r\n{}x\r\n0\r\n\r\n", **framed)
    status, _, problem = answer(connect(malformed))
    assert (status, b'"code":"upload_cut_short"' in problem) == (400, True)
    form = {"Transfer_Encoding": "chunked", **SIGN_IN}
    assert status_of(connect(request("/console/sign-in", "POST", large, **form))) == 411


@with_settings(CARINA_API_THREADS=4)
def test_requests_that_follow_at_once_are_answered_in_order(server: Server, connect: Connect, keys: Keys) -> None:
    json = {**bearer(keys.both), "Content_Type": "application/json"}
    first = request("/v1/none", "POST", b"{}" * 100, **json)
    second = request("/v1/submissions", "POST", b'{"files": []}', **json)
    third = request("/v1/submissions", "POST", chunked(b"{}") + b"0\r\n\r\n", Transfer_Encoding="chunked", **json)
    connection = connect(first + second + third + request())
    assert [status_of(connection) for _ in range(4)] == [404, 201, 201, 200]
    for byte in request():
        connection.sendall(bytes([byte]))
    assert status_of(connection) == 200


REFUSED = [
    (request(X="y" * 40_000), 431),
    (b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 10_000, 431),
    (b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 40_000, 431),
    (request(X="y" * 9000), 431),
    (b"GET /healthz HTTP/1.1\r\nHost: api\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    (request("/" + "y" * 9000), 414),
    (b"GET /healthz HTTP/1.1\nHost: api\n\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: api\nX: y\r\n\r\n", 400),
    (request(X="y\r\n folded"), 400),
    (request(Content_Length=3, Transfer_Encoding="chunked") + b"0\r\n\r\n", 400),
    (b"POST /healthz HTTP/1.1\r\nHost: api\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    (b"POST /healthz HTTP/1.1\r\nHost: api\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    (request(Content_Length=-1), 400),
    (request(Content_Length="+1"), 400),
    (request(Content_Length="1, 1"), 400),
    (request(Content_Length="0x1"), 400),
    (request(Transfer_Encoding="chunked, identity") + b"0\r\n\r\n", 400),
    (request(Transfer_Encoding="xchunked") + b"0\r\n\r\n", 501),
    (request(Expect="gifts"), 417),
    (b"\r\n\r\n", 400),
    (b"GET / \r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 400),
]


@with_settings()
def test_heads_that_are_too_large_or_ambiguous_are_refused(server: Server, connect: Connect) -> None:
    for sent, expected in REFUSED:
        connection = connect(sent)
        status, head, problem = answer(connection)
        assert status == expected, (sent[:100], head, problem)
        assert b"Content-Type: application/problem+json" in head
        assert b'"code":"' in problem
        assert is_closed(connection)
    assert is_served(server)


@with_settings(CARINA_CONNECTIONS_PER_ADDRESS=3, CARINA_API_THREADS=8)
def test_a_full_address_makes_room_among_its_own(server: Server, connect: Connect, keys: Keys) -> None:
    """Of another address than this machine's own processes have, which are not counted."""
    ours = connect(b"GET /he")
    ward = partial(connect, address="127.0.0.2")
    first, *others = [ward(b"GET /he") for _ in range(3)]
    assert status_of(ward(request())) == 200
    assert is_closed(first)
    for connection in others:
        connection.close()
    # Where threads have all of them there is no room.
    uploads = [begin_upload(ward, keys.both) for _ in range(3)]
    status, head, problem = answer(ward())
    assert (status, b"Retry-After" in head, b'"code":"too_many_connections"' in problem) == (503, True, True)
    ours.sendall(b"althz HTTP/1.1\r\nHost: api\r\n\r\n")
    assert status_of(ours) == 200
    assert [is_served(server) for _ in range(5)] == [True] * 5
    uploads[0].close()
    wait_for(lambda: status_of(ward(request())) == 200)


@with_settings(CARINA_CONNECTIONS_PER_ADDRESS=3, CARINA_TRUSTED_PROXIES=1)
def test_proxies_have_as_many_connections_as_they_like(server: Server, connect: Connect) -> None:
    begun = b"GET /healthz HTTP/1.1\r\nHost: api\r\n"
    connections = [connect(begun, address="127.0.0.2") for _ in range(10)]
    for connection in connections:
        connection.sendall(b"\r\n")
    assert {status_of(connection) for connection in connections} == {200}


@with_settings(CARINA_API_THREADS=8)
def test_a_key_leaves_threads_to_others(server: Server, connect: Connect, keys: Keys) -> None:
    """Six of eight are one key's at most, and seven all keys'."""
    uploads = [begin_upload(connect, keys.both) for _ in range(6)]
    status, head, problem = answer(connect(request("/v1/models", **bearer(keys.both))))
    assert (status, b"Retry-After" in head, b'"code":"too_many_at_a_time"' in problem) == (429, True, True)
    assert status_of(connect(request("/v1/models", **bearer(keys.read)))) == 200
    uploads.append(begin_upload(connect, keys.submit))
    status, _, problem = answer(connect(request("/v1/models", **bearer(keys.read))))
    assert (status, b'"code":"server_busy"' in problem) == (503, True)
    assert is_served(server)
    for upload in uploads:
        upload.close()
    wait_for(lambda: status_of(connect(request("/v1/models", **bearer(keys.both)))) == 200)


@with_settings("sockets.SILENCE_S = 5; sockets.MIN_BYTES_PER_S = 500", CARINA_API_THREADS=8)
def test_a_slow_upload_is_taken_and_one_that_is_too_slow_is_not(
    server: Server, connect: Connect, keys: Keys, database: Database
) -> None:
    """Both go on without a pause; only one brings as much as it has to."""
    form = HEAD + png(1, side_px=300) + TAIL
    content_type = "multipart/form-data; boundary=frontier"
    head = request("/v1/studies", "POST", Content_Length=len(form), Content_Type=content_type, **bearer(keys.both))
    slow, too_slow = connect(head), connect(head)
    too_slow.settimeout(0.2)
    given_up, sent = b"", 0
    while not given_up:
        slow.sendall(form[sent : sent + 500])
        sent += 500
        assert sent < len(form)
        too_slow.sendall(b"-")
        with suppress(TimeoutError):
            given_up = too_slow.recv(4096)
    too_slow.settimeout(DEADLINE_S)
    assert b'"code":"upload_cut_short"' in given_up + answer_on(too_slow)
    slow.sendall(form[sent:])
    assert status_of(slow) == 202
    assert rows(database) == 3


@with_settings("sockets.SILENCE_S = 1")
def test_a_long_answer_that_nobody_takes_gives_its_thread_back(server: Server, connect: Connect, keys: Keys) -> None:
    """It is made while it is sent, and one of two threads; a client that takes it gets all of it."""
    image = make_dicom(make_image(2400, 2400), SeriesInstanceUID="1.2.3.1")
    sent = {"Content-Type": "application/dicom", **bearer(keys.both)}
    stored = httpx.post(f"{server.url}/dicom-web/studies", content=image, headers=sent, timeout=DEADLINE_S)
    assert stored.status_code == 200
    path = stored.json()["00081199"]["Value"][0]["00081190"]["Value"][0].removeprefix(server.url)
    asked = {**bearer(keys.both), "Accept": 'multipart/related; type="application/dicom"'}
    stuck = connect(request(path, **asked), receive_bytes=4096)
    assert stuck.recv(100).startswith(b"HTTP/1.1 200 ")
    wait_for(lambda: httpx.get(f"{server.url}{path}", headers=asked, timeout=DEADLINE_S).is_success)
    wait_for(lambda: len(httpx.get(f"{server.url}{path}", headers=asked, timeout=DEADLINE_S).content) > len(image))
    assert stuck.fileno() > 0


@with_settings(CARINA_API_CONNECTIONS=5, CARINA_CONNECTIONS_PER_ADDRESS=1000)
def test_when_there_are_too_many_the_oldest_idle_one_ends(server: Server, connect: Connect) -> None:
    first, second, *rest = [connect() for _ in range(5)]
    assert is_served(server)
    assert is_closed(first)
    for _ in range(20):
        assert is_served(server)
    assert is_closed(second)
    assert rest


@with_settings("connections.IDLE_S = 1000", CARINA_API_THREADS=1, CARINA_API_CONNECTIONS=2)
def test_while_threads_have_all_connections_new_ones_wait(server: Server, connect: Connect, keys: Keys) -> None:
    queued = connect(request())
    assert status_of(queued) == 200
    upload = begin_upload(connect, keys.both)
    queued.sendall(request())
    waiting = [connect(request()) for _ in range(3)]
    upload.close()
    assert [status_of(connection) for connection in (queued, *waiting)] == [200, 200, 200, 200]


@with_settings(CARINA_API_THREADS=1, CARINA_API_CONNECTIONS=2)
def test_a_request_that_has_arrived_is_answered_rather_than_closed_to_make_room(
    server: Server, connect: Connect
) -> None:
    server.worker.suspend()
    connections = [connect(request()) for _ in range(4)]
    server.worker.resume()
    assert [status_of(connection) for connection in connections] == [200] * 4
