"""How soon /healthz answers, and whether slow uploads arrive, while clients without a key try to stop the API."""

import asyncio
import multiprocessing
import os
import resource
import socket
import statistics
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from io import BytesIO

import httpx
import numpy as np
import PIL.Image
import psutil
from pydantic import SecretStr

from shared.access.keys import create_key
from shared.database import Database
from shared.settings import Settings
from shared.vocabulary.states import Scope
from tests.bench.figure import Figure
from tests.bench.servers import servers
from tests.bench.submissions import serve_api
from tests.synthetic_dicom import make_dicom, make_image

#: For how long each attack is watched, after the time that it takes to begin.
WATCH_S, BEGIN_S = 25.0, 12.0
#: Between two looks at /healthz, each over a connection of its own.
PAUSE_S = 0.1
#: Between two bytes of a slow client.
TRICKLE_S = 8.0
SLOW_HEADS, SLOW_BODIES, SLOW_READERS, FORMS = 3050, 2010, 2010, 3
FORM_BYTES = 150_000_000
#: A legitimate client with a slow link: how many, how fast, and the size of the one that is large.
UPLOADS, UPLOAD_BYTES_PER_S, LARGE_BYTES = 8, 50_000, 200_000_000

Client = Callable[[int], Coroutine[None, None, None]]

_FORM = b"POST /console/sign-in HTTP/1.1\r\nHost: api\r\nContent-Type: application/x-www-form-urlencoded\r\n"
_SCRIPT = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: api\r\n\r\n"


def measure() -> Iterator[Figure]:
    """Look at an API that is left alone, then at one under each attack."""
    yield Figure("load of this machine at the start, for each core", os.getloadavg()[0] / (os.cpu_count() or 1))
    attacks: list[tuple[str, Client | None, int]] = [
        ("nobody", None, 0),
        (f"{SLOW_HEADS:,} slow heads", slow_head, SLOW_HEADS),
        (f"{SLOW_BODIES:,} slow sign-ins", slow_sign_in, SLOW_BODIES),
        (f"{FORMS} forms of 150 MB", large_form, FORMS),
        (f"{SLOW_READERS:,} slow readers", slow_reader, SLOW_READERS),
    ]
    with servers() as settings:
        settings = settings.model_copy(update={"session_secret": SecretStr("s" * 32)})
        key = _key(settings)
        undisturbed_ms = 0.0
        for name, client, count in attacks:
            with serve_api(settings, key) as (http, process), attack(client, count, http.base_url.port or 0):
                for figure in _watch(name, http, process):
                    yield figure
                    if not figure.what.endswith("median"):
                        continue
                    if client is None:
                        undisturbed_ms = figure.measured
                    else:
                        yield Figure("which is, times the one without an attack", figure.measured / undisturbed_ms)
        with serve_api(settings, key) as (http, _), attack(slow_head, SLOW_HEADS, http.base_url.port or 0):
            yield from asyncio.run(_upload_slowly(str(http.base_url), key))


def _watch(name: str, http: httpx.Client, process: psutil.Process) -> Iterator[Figure]:
    took_ms, refused, max_bytes, until = [], 0, 0, time.monotonic() + WATCH_S
    while time.monotonic() < until:
        begun = time.monotonic()
        with closing(HTTPConnection("127.0.0.1", http.base_url.port, timeout=60)) as connection:
            try:
                connection.request("GET", "/healthz")
                refused += connection.getresponse().status != 200
            except (OSError, HTTPException):
                refused += 1
        took_ms.append(1000 * (time.monotonic() - begun))
        max_bytes = max(max_bytes, process.memory_info().rss)
        time.sleep(PAUSE_S)
    yield Figure(f"/healthz, {name}, median", statistics.median(took_ms), "ms", 100, "below")
    yield Figure(f"/healthz, {name}, slowest of {len(took_ms)}", max(took_ms), "ms")
    yield Figure(f"of which were refused, {name}", refused, "", 1, "below")
    yield Figure(f"threads of the API, {name}", process.num_threads())
    yield Figure(f"memory of the API, {name}", max_bytes / 1024**2, "MB")


async def _upload_slowly(url: str, key: str) -> list[Figure]:
    """Send images over slow links, and a large one."""
    headers, begun = {"Authorization": f"Bearer {key}"}, time.monotonic()

    async def send(name: str, image: bytes, bytes_per_s: float) -> bool:
        async def paced() -> AsyncIterator[bytes]:
            yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="image"\r\n\r\n'
            step = min(len(image), max(1000, int(bytes_per_s / 4)))
            for start in range(0, len(image), step):
                await asyncio.sleep(step / bytes_per_s)
                yield image[start : start + step]
            yield b"\r\n--b--\r\n"

        content_type = {"Content-Type": "multipart/form-data; boundary=b"}
        answer = await client.post(f"{url}/v1/studies", headers=headers | content_type, content=paced())
        return answer.is_success and answer.json()["files"][0]["outcome"] == "accepted"

    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=None)) as client:
        slow = [send("slow", _png(seed), UPLOAD_BYTES_PER_S) for seed in range(UPLOADS)]
        taken = sum(await asyncio.gather(*slow))
        took_s = time.monotonic() - begun
        large = await send("large", _large_image(), LARGE_BYTES / 30)
    return [
        Figure(f"of {UPLOADS} uploads at 50 KB/s, taken", taken, "", UPLOADS),
        Figure("which took", took_s, "s"),
        Figure("of one upload of 200 MB, taken", float(large), "", 1),
    ]


@contextmanager
def attack(client: Client | None, count: int, port: int) -> Iterator[None]:
    """Have a process of its own run so many of these clients, each again and again."""
    if client is None:
        yield
        return
    process = multiprocessing.get_context("spawn").Process(target=_attack, args=(client, count, port), daemon=True)
    process.start()
    try:
        time.sleep(BEGIN_S)
        yield
    finally:
        process.terminate()
        process.join()


def _attack(client: Client, count: int, port: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def again() -> None:
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                await client(port)
            await asyncio.sleep(TRICKLE_S)

    async def attack_together() -> None:
        await asyncio.gather(*(again() for _ in range(count)))

    asyncio.run(attack_together())


async def slow_head(port: int) -> None:
    """A byte of a head every few seconds."""
    await _trickle(port, b"GET /healthz HTTP/1.1\r\nX: ")


async def slow_sign_in(port: int) -> None:
    """A byte of a form every few seconds."""
    await _trickle(port, _FORM + b"Content-Length: 2000\r\n\r\nkey=")


async def _trickle(port: int, begin: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(begin)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TRICKLE_S):
                    if not await reader.read(1000):
                        return
            writer.write(b"y")
            await writer.drain()
    finally:
        writer.close()


async def large_form(port: int) -> None:
    """As much of a form as the server takes."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(_FORM + b"Content-Length: %d\r\n\r\nkey=" % FORM_BYTES)
        for _ in range(FORM_BYTES // 1_000_000):
            writer.write(b"y" * 1_000_000)
            await writer.drain()
    finally:
        writer.close()


async def slow_reader(port: int) -> None:
    """Ask for a large file, and take a byte of it every few seconds."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(connection, ("127.0.0.1", port))
        await loop.sock_sendall(connection, _SCRIPT)
        while await loop.sock_recv(connection, 1):
            await asyncio.sleep(TRICKLE_S)


def _key(settings: Settings) -> str:
    database = Database.from_settings(settings)
    with database.begin() as session:
        key = create_key(session, project_name="bench", name="", scopes=[Scope.SUBMIT, Scope.READ])
    database.close()
    return key


def _png(seed: int) -> bytes:
    buffer = BytesIO()
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 255, (1700, 1700), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _large_image() -> bytes:
    whole = make_dicom(make_image(), Rows=8000, Columns=7000)
    start = whole[: whole.index(b"\xe0\x7f\x10\x00OW")]
    return start + b"\xe0\x7f\x10\x00OW\0\0" + LARGE_BYTES.to_bytes(4, "little") + bytes(LARGE_BYTES)
