"""Whether a claim stays quick with a million rows behind it and a long queue before it."""

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from api.operations.queue_metrics import QueueMetrics
from shared.database import Database
from shared.queue.claim import Claim, claim
from shared.queue.outcome import FoundBox, FoundImage, succeed
from shared.queue.stages import DETECT
from tests.bench.figure import Figure
from tests.bench.queue_rows import add_demo_model, add_jobs
from tests.bench.servers import servers

FINISHED, READY = 1_000_000, 100_000
BATCH = 16
CLAIMS = 500
CLAIMERS = 4
LEASE_S = 3600


def measure() -> Iterator[Figure]:
    """Claims one after the other, from several at once, and with results committed between; then `/metrics`."""
    with servers() as settings:
        database = Database.from_settings(settings)
        add_demo_model(settings, database)
        begun = time.monotonic()
        add_jobs(database, FINISHED, state="succeeded")
        add_jobs(database, READY)
        yield Figure("adding the rows", time.monotonic() - begun, "s")

        took_ms = _claim_often(database, "alone", CLAIMS)
        yield Figure(f"claim of {BATCH}, median", statistics.median(took_ms), "ms", 5, "below")
        yield Figure(f"claim of {BATCH}, p99", _p99(took_ms), "ms")

        with ThreadPoolExecutor(CLAIMERS) as threads:
            owners = [f"claimer {number}" for number in range(CLAIMERS)]
            each = threads.map(lambda owner: _claim_often(database, owner, CLAIMS // CLAIMERS), owners)
            took_ms = [one for claimer in each for one in claimer]
        yield Figure(f"the same from {CLAIMERS} threads of a process at once, median", statistics.median(took_ms), "ms")
        yield Figure(f"the same from {CLAIMERS} threads of a process at once, p99", _p99(took_ms), "ms")

        took_ms = _commit_often(database, CLAIMS)
        yield Figure(f"commit of {BATCH} with {BATCH * 10} detections, median", statistics.median(took_ms), "ms")
        begun = time.monotonic()
        QueueMetrics(database).collect()
        yield Figure("reading the numbers of /metrics", 1000 * (time.monotonic() - begun), "ms")
        database.close()


def _claim_often(database: Database, owner: str, times: int) -> list[float]:
    return [_claim(database, owner)[1] for _ in range(times)]


def _claim(database: Database, owner: str) -> tuple[list[Claim], float]:
    """Claim a batch; return it, and the milliseconds from the start of the transaction to its commit."""
    begun = time.perf_counter()
    with database.begin() as session:
        claims = claim(session, DETECT, owner, limit=BATCH, lease_s=LEASE_S)
    took_ms = 1000 * (time.perf_counter() - begun)
    if len(claims) < BATCH:
        raise RuntimeError(f"{len(claims)} jobs claimed instead of {BATCH}")
    return claims, took_ms


def _commit_often(database: Database, times: int) -> list[float]:
    boxes = [FoundBox(0, "Nodule/Mass", 0.9 - 0.05 * rank, (1.0, 2.0, 3.0, 4.0)) for rank in range(10)]
    took_ms = []
    for _ in range(times):
        claims, _ = _claim(database, "committer")
        begun = time.perf_counter()
        with database.begin() as session:
            succeed(session, dict.fromkeys(claims, FoundImage(boxes)))
        took_ms.append(1000 * (time.perf_counter() - begun))
    return took_ms


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]
