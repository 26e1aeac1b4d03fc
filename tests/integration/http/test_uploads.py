"""Uploads against the API as it is served: cut short, large, slow, and while a server is down."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import boto3
import httpx
import numpy as np
import pytest
import sqlalchemy as sa

from shared.database import Database
from shared.settings import Settings
from shared.tables import Image, Job, Study
from tests.integration.conftest import Api, Keys, Server, png
from tests.synthetic_dicom import make_dicom, make_image
from tests.waiting import DEADLINE_S, wait_for, wait_until_gone

BOUNDARY = b"frontier"
HEAD = b'--frontier\r\nContent-Disposition: form-data; name="files"; filename="image.dcm"\r\n\r\n'
TAIL = b"\r\n--frontier--\r\n"
MIB = 1024**2


def open_upload(server: Server, key: str, length: int | None, path: str = "/v1/studies") -> socket.socket:
    """Connect, and send a request's head; without a length the body is chunked."""
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)
    connection.sendall(
        b"POST %s HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer %s\r\n" % (path.encode(), key.encode())
        + b"Content-Type: multipart/form-data; boundary=%s\r\n%s\r\n\r\n" % (BOUNDARY, framing)
    )
    return connection


def answer_on(connection: socket.socket) -> bytes:
    """Everything that comes until the server closes or the answer's JSON ends."""
    answer = b""
    while not answer.endswith(b"}") and (some := connection.recv(65536)):
        answer += some
    return answer


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def large_dicom(pixel_bytes: int) -> bytes:
    """The start of an uncompressed image whose pixel data are `pixel_bytes` long, up to their first byte."""
    whole = make_dicom(make_image(), Rows=8000, Columns=7000)
    start = whole.index(b"\xe0\x7f\x10\x00OW")
    return whole[:start] + b"\xe0\x7f\x10\x00OW\0\0" + pixel_bytes.to_bytes(4, "little")


def rows(database: Database) -> int:
    with database.begin() as session:
        return sum(session.scalar(sa.select(sa.func.count()).select_from(table)) or 0 for table in (Study, Image, Job))


@pytest.fixture
def objects(settings: Settings) -> Iterator[Callable[[], list[str]]]:
    """Lists the bucket: its objects, and the uploads in parts that are under way."""
    s3 = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key_id.get_secret_value(),
        aws_secret_access_key=settings.s3_secret_access_key.get_secret_value(),
    )

    def listed() -> list[str]:
        stored = s3.list_objects_v2(Bucket=settings.s3_bucket).get("Contents", [])
        under_way = s3.list_multipart_uploads(Bucket=settings.s3_bucket).get("Uploads", [])
        return [item["Key"] for item in [*stored, *under_way]]

    yield listed
    s3.close()


def test_a_body_that_is_cut_short_leaves_nothing(
    server: Server, keys: Keys, database: Database, objects: Callable[[], list[str]]
) -> None:
    image = make_dicom(make_image())
    body = HEAD + image + TAIL
    chunks = chunked(body[:1000]) + chunked(body[1000:]) + b"0\r\n\r\n"
    rng = np.random.default_rng(1)
    ends = [*range(1, 8), *range(len(TAIL), len(TAIL) + 3)]  # around the last boundary, every byte counts
    middles = [0, 1, len(HEAD) - 1, len(HEAD), len(HEAD) + 1, *rng.integers(0, len(body), 10).tolist()]
    for cut in [*middles, *(len(body) - end for end in ends)]:
        with open_upload(server, keys.both, len(body)) as connection:
            connection.sendall(body[:cut])
            connection.shutdown(socket.SHUT_WR)
            answer = answer_on(connection)
            assert b"400 BAD REQUEST" in answer, cut
            assert b'"code":"upload_cut_short"' in answer, cut
    for cut in [0, 1, 500, 1010, len(chunks) // 2, *(len(chunks) - end for end in (1, 2, 4, 5, 6, 7, 30))]:
        with open_upload(server, keys.both, None) as connection:
            connection.sendall(chunks[:cut])
            connection.shutdown(socket.SHUT_WR)
            answer_on(connection)
    for cut in (1000, len(body) - 1):  # the client is gone without a word
        connection = open_upload(server, keys.both, len(body))
        connection.sendall(body[:cut])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    assert httpx.get(f"{server.url}/readyz").is_success
    assert objects() == []
    assert rows(database) == 0
    for length, sent in ((len(body), body), (None, chunks)):  # whole, they are taken
        with open_upload(server, keys.both, length) as connection:
            connection.sendall(sent)
            assert b"202 ACCEPTED" in answer_on(connection)
    assert len(objects()) == 1


def test_a_large_file_that_is_cut_short_leaves_no_upload_in_parts(
    server: Server, keys: Keys, database: Database, objects: Callable[[], list[str]]
) -> None:
    size = 40 * MIB
    start = HEAD + large_dicom(size)
    with open_upload(server, keys.both, len(start) + size + len(TAIL)) as connection:
        connection.sendall(start + bytes(20 * MIB))
        connection.shutdown(socket.SHUT_WR)
        assert b'"code":"upload_cut_short"' in answer_on(connection)
    assert objects() == []
    assert rows(database) == 0


def test_files_before_the_one_that_is_cut_stay(server: Server, keys: Keys, database: Database) -> None:
    body = HEAD + png(1) + b"\r\n" + HEAD + png(2) + b"\r\n" + HEAD + png(3) + TAIL
    with open_upload(server, keys.both, len(body)) as connection:
        connection.sendall(body[:-100])
        connection.shutdown(socket.SHUT_WR)
        assert b'"code":"upload_cut_short"' in answer_on(connection)
    assert rows(database) == 3 * 2
    with open_upload(server, keys.both, len(body)) as connection:
        connection.sendall(body)
        answer = answer_on(connection)
    assert answer.count(b'"duplicate"') == 2
    assert answer.count(b'"accepted"') == 1


def test_500_mb_raise_the_resident_memory_by_less_than_128_mb(server: Server, keys: Keys, database: Database) -> None:
    size = 500_000_000
    start, block = HEAD + large_dicom(size), os.urandom(4 * MIB)
    worker = server.worker
    before = worker.memory_info().rss
    peak, done = before, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, worker.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with open_upload(server, keys.both, len(start) + size + len(TAIL)) as connection:
        connection.sendall(start)
        for begin in range(0, size, len(block)):
            connection.sendall(block[: size - begin])
        connection.sendall(TAIL)
        answer = answer_on(connection)
    done.set()
    watcher.join()
    assert b'"accepted"' in answer
    with database.begin() as session:
        assert session.scalar(sa.select(Image.byte_count)) == size + len(start) - len(HEAD)
    assert peak - before < 128_000_000


def test_an_answer_to_a_body_that_is_too_large_reaches_a_client_that_is_still_sending(
    server: Server, keys: Keys, settings: Settings, database: Database
) -> None:
    size = settings.max_upload_bytes + 1
    with open_upload(server, keys.both, size) as connection:
        answer = b""
        for _ in range(50):
            connection.sendall(bytes(MIB))
        answer = answer_on(connection)
    assert b"413 " in answer
    assert b'"limit":"max_upload_bytes"' in answer
    assert rows(database) == 0


def test_slow_uploads_hold_up_nobody_and_are_taken(server: Server, keys: Keys) -> None:
    """A dozen clients that trickle their bytes, of sixteen threads."""
    bodies = [HEAD + png(seed) + TAIL for seed in range(12)]
    connections = [open_upload(server, keys.both, len(body)) for body in bodies]
    for step in range(4):
        for connection, body in zip(connections, bodies, strict=True):
            quarter = -(-len(body) // 4)
            connection.sendall(body[step * quarter : (step + 1) * quarter])
        assert httpx.get(f"{server.url}/healthz", timeout=DEADLINE_S).is_success
        time.sleep(0.2)
    for connection in connections:
        assert b"202 ACCEPTED" in answer_on(connection)
        connection.close()


@pytest.mark.parametrize(
    "server",
    ["from api.http import client_socket as body, connections as head; body.SILENCE_S = head.HEAD_S = 1"],
    indirect=True,
)
def test_a_client_that_falls_silent_is_given_up_on(server: Server, keys: Keys, database: Database) -> None:
    """In its body, and in its head, where no more than the start of a line is known of it."""
    body = HEAD + png(1) + TAIL
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as half_a_head,
        open_upload(server, keys.both, len(body)) as half_a_body,
    ):
        half_a_head.sendall(b"POST /v1/stu")
        half_a_body.sendall(body[:500])
        assert b'"code":"upload_cut_short"' in answer_on(half_a_body)
        assert half_a_head.recv(1) == b""
    assert rows(database) == 0


def test_a_broker_that_is_down_or_frozen_delays_an_upload_by_seconds_at_most(
    make_api: Callable[[Settings], Api], settings: Settings, database: Database
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for seed, port in enumerate((1, silent.getsockname()[1])):
            broker = settings.redis_url.__class__(f"redis://127.0.0.1:{port}/0")
            api = make_api(settings.model_copy(update={"redis_url": broker}))
            began = time.monotonic()
            response = api.send(("image.png", png(seed)))
            assert response.status_code == 202
            assert response.get_json()["files"][0]["outcome"] == "accepted"
            assert time.monotonic() - began < 60
    assert rows(database) == 3 * 2


def test_sigterm_ends_long_polls_and_finishes_uploads(server: Server, keys: Keys, database: Database) -> None:
    image, body = png(0), HEAD + png(1) + TAIL
    headers = {"Authorization": f"Bearer {keys.both}"}
    job_id = httpx.post(f"{server.url}/v1/studies", headers=headers, files=[("files", ("a", image))]).json()["files"][
        0
    ]["job_id"]
    polled: list[int] = []
    path = f"{server.url}/v1/jobs/{job_id}?wait=60"

    def wait_for_job() -> None:
        polled.append(httpx.get(path, headers=headers, timeout=DEADLINE_S).status_code)

    poll = threading.Thread(target=wait_for_job)
    poll.start()
    with open_upload(server, keys.both, len(body)) as connection:
        connection.sendall(body[:500])
        wait_for(lambda: len(server.worker.net_connections("tcp")) >= 3)  # one listens
        time.sleep(1)  # until the requests on the two others have been read
        began = time.monotonic()
        server.arbiter.send_signal(signal.SIGTERM)
        poll.join()
        assert polled == [200]
        assert time.monotonic() - began < 60, "the poll has been ended"
        connection.sendall(body[500:])
        assert b"202 ACCEPTED" in answer_on(connection)
    wait_until_gone([server.arbiter])
    assert rows(database) == 3 * 2


def test_the_server_does_next_to_nothing_when_nobody_calls(server: Server) -> None:
    httpx.get(f"{server.url}/readyz")
    processes = [server.arbiter, server.worker]

    def used_s() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    def is_idle() -> bool:
        before = used_s()
        time.sleep(5)
        return used_s() - before < 0.03

    wait_for(is_idle)
