"""The whole way: files into the API, until each has its result."""

import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from api.client import Carina
from shared.database import Database
from shared.phantoms import demo_studies
from shared.settings import Settings
from shared.tables import Job
from tests.bench.figure import Figure
from tests.bench.servers import Stack, stack

IMAGES = 48
TIMEOUT_S = 300


def measure() -> Iterator[Figure]:
    """Draw the images beforehand, in every transfer syntax and size that the demo has; then send them all at once."""
    with stack() as running:
        folder = running.folder / "films"
        folder.mkdir()
        images = []
        for name, content, _ in demo_studies(IMAGES):
            images.append(folder / name)
            images[-1].write_bytes(content)
        sent_in_s, took_s = _send(running, images)
        yield Figure(f"{IMAGES} images, from the first byte to the last result", IMAGES / took_s, "images/s")
        yield Figure("taking them in", IMAGES / sent_in_s, "images/s")
        yield from _by_stage(running)


def _send(running: Stack, images: list[Path]) -> tuple[float, float]:
    """Return the seconds until the last answer, and until the last result."""
    with Carina(running.environ["CARINA_API_URL"], running.environ["CARINA_API_KEY"]) as client:
        begun = time.monotonic()
        outcomes = client.submit(images)
        sent_in_s = time.monotonic() - begun
        jobs = client.wait([outcome.job_id for outcome in outcomes if outcome.job_id], timeout_s=TIMEOUT_S)
        took_s = time.monotonic() - begun
    if [job.state for job in jobs] != ["succeeded"] * len(images):
        raise RuntimeError(f"not every image succeeded: {[job.state.value for job in jobs]}")
    return sent_in_s, took_s


def _by_stage(running: Stack) -> Iterator[Figure]:
    database = Database.from_settings(Settings.from_env(running.environ))
    times = sa.select(Job.created_at, Job.ready_at, Job.finished_at)
    with database.begin() as session:
        taken_in, ready, finished = zip(*session.execute(times).tuples(), strict=True)
    database.close()
    for stage, begun, ended in (("prepare", taken_in, ready), ("detect", ready, finished)):
        yield Figure(f"{stage}, while it had work", IMAGES / (max(ended) - min(begun)).total_seconds(), "images/s")
