"""A thousand clients that send next to nothing hold up nobody."""

import asyncio
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from shared.intake import receive as intake
from shared.object_store import PART_BYTES
from tests.integration.conftest import Keys, Server, png
from tests.waiting import DEADLINE_S, wait_for

CLIENTS = 1000
#: An image of a few megabytes.
LARGE_PX = 1800


async def _send_slowly(port: int, key: str, done: asyncio.Event) -> None:
    """Send the beginning of a large upload, a kilobyte every five seconds; raise where the server does not take it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /v1/studies HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {key}\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    )
    writer.write(head.encode())
    while not done.is_set():
        writer.write(b"\x89PNG" + bytes(1020))
        await writer.drain()
        await asyncio.sleep(5)
        assert not reader.at_eof()
    writer.close()


async def _among_slow_clients(server: Server, key: str, body: Callable[[], None]) -> None:
    """Run `body` in a thread; all clients are at it until it ends."""
    done, slow = asyncio.Event(), []
    for _ in range(CLIENTS):
        slow.append(asyncio.create_task(_send_slowly(server.port, key, done)))
        if len(slow) % 20 == 0:
            await asyncio.sleep(0.05)  # as they would come in, rather than all at once
    try:
        await asyncio.to_thread(body)
    finally:
        done.set()
        await asyncio.gather(*slow)


@pytest.fixture
def _many_files() -> Iterator[None]:
    """Let this process hold a connection to each client's, which is more than an ordinary user usually may."""
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2 * CLIENTS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * CLIENTS, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("_many_files")
def test_a_thousand_slow_clients_leave_the_others_working(server: Server, keys: Keys) -> None:
    image, headers = png(7, LARGE_PX), {"Authorization": f"Bearer {keys.both}"}

    def send_a_image() -> None:
        wait_for(lambda: server.worker.num_threads() > CLIENTS, server.worker.num_threads)
        with httpx.Client(base_url=server.url, headers=headers, timeout=DEADLINE_S) as http:
            (file,) = http.post("/v1/studies", files=[("files", ("image.png", image))]).json()["files"]
            assert file["outcome"] == "accepted"
            assert http.get(f"/v1/studies/{file['study_id']}").json()["images"][0]["height_px"] == LARGE_PX
            for _ in range(20):
                http.get("/healthz").raise_for_status()
        assert server.worker.num_threads() > CLIENTS

    asyncio.run(_among_slow_clients(server, keys.both, send_a_image))


def test_a_part_is_gathered_on_disk_where_many_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What comes out is the same, wherever it was gathered."""
    data = bytes(range(256)) * (PART_BYTES // 256) + b"rest"
    chunks = [data[start : start + 100_000] for start in range(0, len(data), 100_000)]
    in_memory = list(intake.in_parts(chunks))
    monkeypatch.setattr(intake._IN_MEMORY, "acquire", lambda blocking: False)
    on_disk = list(intake.in_parts(chunks))
    assert in_memory == on_disk == [data[:PART_BYTES], data[PART_BYTES:]]
