"""Whether bulk submissions stay cheap at 100,000 announced files and a million rows, and urgent work overtakes."""

import hashlib
import multiprocessing
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import PIL.Image
import psutil
import sqlalchemy as sa

from api.serve import serve
from shared.access.keys import create_key
from shared.database import Database
from shared.queue.claim import claim
from shared.queue.stages import PREPARE
from shared.settings import Settings
from shared.vocabulary.states import Scope
from tests.bench.figure import Figure
from tests.bench.queue_rows import add_jobs
from tests.bench.servers import servers

BACKLOG, URGENT = 100_000, 20
ANNOUNCED, PAGE = 100_000, 1000
#: Pages; more than the API has threads.
WARM_UP = 24
ROWS = 1_000_000
LOOKS = 20
MIB = 1024**2

#: A submission whose files have the backlog's jobs, over and over.
_ADD_FILES = sa.text("""
    WITH numbered AS MATERIALIZED (
        SELECT id, image_id, row_number() OVER () - 1 AS place FROM job WHERE state = 'queued' LIMIT :jobs
    )
    INSERT INTO submission_file (
        submission_id, number, name, byte_count, sha256, state, priority, image_id, job_id, attempt, finished_at
    )
    SELECT :submission_id, n, 'image ' || n || '.dcm', 1, repeat('0', 64), 'accepted', 5, image_id, id, 1, now()
    FROM generate_series(0, :rows - 1) AS n JOIN numbered ON place = n % :jobs
""")


def measure() -> Iterator[Figure]:
    """A backlog and urgent studies before it; then announcements, and a submission of a million files."""
    with servers() as settings:
        database = Database.from_settings(settings)
        with database.begin() as session:
            key = create_key(session, project_name="bench", name="bench", scopes=[Scope.SUBMIT, Scope.READ])
        with serve_api(settings, key) as (http, process):
            yield from _overtake(database, http)
            yield from _announce(http, process)
            yield from _read_back(database, http, process)
        database.close()


def _overtake(database: Database, http: httpx.Client) -> Iterator[Figure]:
    """Submit urgent studies behind a backlog, and claim as a worker does that has just become free."""
    add_jobs(database, BACKLOG, state="queued")
    took_ms = []
    for seed in range(URGENT):
        begun = time.perf_counter()
        (file,) = _answer(http.post("/v1/studies?priority=9", files={"files": ("image.png", _png(seed))}))["files"]
        with database.begin() as session:
            (claimed,) = claim(session, PREPARE, "bench", limit=1, lease_s=3600)
        took_ms.append(1000 * (time.perf_counter() - begun))
        if str(claimed.job_id) != file["job_id"]:
            raise RuntimeError("An urgent study did not overtake the backlog.")
    what = f"urgent study past {BACKLOG:,} queued ones, from its first byte to its claim"
    yield Figure(f"{what}, median", statistics.median(took_ms), "ms")
    yield Figure(f"{what}, longest of {URGENT}", max(took_ms), "ms")


def _announce(http: httpx.Client, process: psutil.Process) -> Iterator[Figure]:
    """Announce files page by page, as a client with a full archive does; the first page is a short one.

    Pages of another submission come before, so that every thread of the API has held one.
    """
    paths = [f"/v1/submissions/{_answer(http.post('/v1/submissions', json={}))['submission']['id']}" for _ in range(2)]

    def announce(path: str, first: int, count: int) -> None:
        digests = (hashlib.sha256(b"%d" % number).hexdigest() for number in range(first, first + count))
        files = [{"name": f"image {digest}.dcm", "byte_count": 8 * MIB, "sha256": digest} for digest in digests]
        uploads = _answer(http.post(f"{path}/files", json={"files": files}))["uploads"]
        if len(uploads) != count or not all(upload["url"] for upload in uploads):
            raise RuntimeError("Not every file has a place.")

    for page in range(WARM_UP):
        announce(paths[0], page * PAGE, PAGE)
    announce(paths[1], 0, 10)
    before, begun = process.memory_info().rss, time.monotonic()
    announce(paths[1], 10, PAGE - 10)
    for first in range(PAGE, ANNOUNCED, PAGE):
        announce(paths[1], first, PAGE)
    took_s, after = time.monotonic() - begun, process.memory_info().rss
    yield Figure("announced files per second, with their URLs", (ANNOUNCED - 10) / took_s, "/s")
    what = f"API's memory, from the 10th to the {ANNOUNCED:,}th announced file"
    yield Figure(what, max(0, after - before) / MIB, "MB", 16, "below")


def _read_back(database: Database, http: httpx.Client, process: psutil.Process) -> Iterator[Figure]:
    """Stream a manifest, and look where the submission stands."""
    submission_id = _answer(http.post("/v1/submissions", json={}))["submission"]["id"]
    with database.begin() as session:
        session.execute(sa.text("SET LOCAL session_replication_role = replica"))
        parameters = {"submission_id": submission_id, "rows": ROWS}
        session.execute(_ADD_FILES, parameters | {"jobs": BACKLOG - URGENT})
        session.execute(sa.text("UPDATE submission SET file_count = :rows WHERE id = :submission_id"), parameters)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM (ANALYZE) submission_file"))  # as autovacuum does within its next minute
    path = f"/v1/submissions/{submission_id}"
    for kind in ("jsonl", "csv"):
        before, most, lines, begun = process.memory_info().rss, 0, 0, time.monotonic()
        with http.stream("GET", f"{path}/manifest?format={kind}") as response:
            for chunk in response.iter_bytes(MIB):
                lines += chunk.count(b"\n")
                most = max(most, process.memory_info().rss)
        took_s = time.monotonic() - begun
        if lines != ROWS + (kind == "csv"):
            raise RuntimeError(f"{lines} lines instead of {ROWS}")
        yield Figure(f"manifest of {ROWS:,} files as {kind}", took_s, "s")
        yield Figure("meanwhile the API's memory grows by", max(0, most - before) / MIB, "MB", 32, "below")
    took_ms = []
    for _ in range(LOOKS):
        begun = time.monotonic()
        counts = _answer(http.get(path))["counts"]
        took_ms.append(1000 * (time.monotonic() - begun))
        if counts["accepted"] != ROWS:
            raise RuntimeError(f"The counts are {counts}.")
    yield Figure("the first look at that submission, which counts", took_ms[0], "ms")
    yield Figure("looks from then on, median", statistics.median(took_ms[1:]), "ms", 100, "below")


def _answer(response: httpx.Response) -> Any:
    return response.raise_for_status().json()


def _png(seed: int) -> bytes:
    buffer = BytesIO()
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 255, (80, 80), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def serve_api(settings: Settings, key: str) -> Iterator[tuple[httpx.Client, psutil.Process]]:
    """Serve the API as in production; yield a client of it, and the process that answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = settings.model_copy(update={"api_port": port})
    arbiter = multiprocessing.get_context("spawn").Process(target=serve, args=(served,))
    arbiter.start()
    try:
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=120) as http:
            _await(http)
            (process,) = psutil.Process(arbiter.pid).children()
            yield http, process
    finally:
        arbiter.terminate()
        arbiter.join(60)


def _await(http: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            http.get("/healthz").raise_for_status()
            return
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
