"""How long small images wait to be prepared: alone, and beside a large JPEG 2000 image that is always being decoded."""

import statistics
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa
from pydicom import dcmread

from api.client import Carina
from shared.database import Database
from shared.phantoms import encode_dicom, make_phantom
from shared.settings import Settings
from shared.tables import Job
from tests.bench.figure import Figure
from tests.bench.servers import stack

SMALL_PX, LARGE_PX = 512, 3600
SMALL = 40
#: Each kind of company in so many turns, so that other load on the machine falls on all.
TURNS = 3
PAUSE_S = 0.25
TARGET = 1.5


def measure() -> Iterator[Figure]:
    """Send small images one after the other, as a clinic does; the times are those of the database's rows."""
    with stack("--detect-workers", "0", "--trainers", "0") as running:
        settings = Settings.from_env(running.environ)
        database = Database.from_settings(settings)
        with Carina(running.environ["CARINA_API_URL"], running.environ["CARINA_API_KEY"]) as client:
            bench = _Bench(client, database, running.folder)
            bench.send(SMALL_PX, 4)  # so that the decoders run
            alone, beside = [], []
            for _ in range(TURNS):
                alone += bench.send(SMALL_PX, SMALL)
                beside += bench.send(SMALL_PX, SMALL, beside_large=True)
        database.close()
        alone_s, beside_s = (statistics.quantiles(waits, n=20)[-1] for waits in (alone, beside))
        yield Figure("a large image", 1000 * statistics.median(bench.large_s), "ms")
        yield Figure("p95 of small images, alone", 1000 * alone_s, "ms")
        yield Figure("p95 beside a large image", 1000 * beside_s, "ms")
        yield Figure("p95 beside a large image, times that alone", beside_s / alone_s, "times", TARGET, "below")


class _Bench:
    def __init__(self, client: Carina, database: Database, folder: Path) -> None:
        self._client, self._database, self._folder = client, database, folder
        self._seed = 0
        #: Seconds from each large image's row to its rendition's.
        self.large_s: list[float] = []
        self._large = encode_dicom(make_phantom(1, LARGE_PX, LARGE_PX), bits_stored=12, transfer_syntax="jpeg-2000")

    def send(self, side_px: int, count: int, *, beside_large: bool = False) -> list[float]:
        """Send images; return the seconds from each one's row to its rendition's."""
        jobs: list[UUID] = []
        large: list[UUID] = []
        for _ in range(count):
            if beside_large and len(self._prepared_s(large)) == len(large):
                large.append(self._submit(self._new_large()))
            jobs.append(self._submit(encode_dicom(make_phantom(self._next(), side_px, side_px))))
            time.sleep(PAUSE_S)
        while len(found := self._prepared_s([*jobs, *large])) < len(jobs) + len(large):
            time.sleep(PAUSE_S)
        self.large_s += [found[job] for job in large]
        return [found[job] for job in jobs]

    def _submit(self, file: bytes) -> UUID:
        (self._folder / "image.dcm").write_bytes(file)
        (outcome,) = self._client.submit([self._folder / "image.dcm"])
        assert outcome.job_id is not None
        return outcome.job_id

    def _new_large(self) -> bytes:
        """Return the large image under another UID, because encoding takes as long as decoding."""
        uid = str(dcmread(BytesIO(self._large), stop_before_pixels=True).SOPInstanceUID)
        return self._large.replace(uid.encode(), f"{uid[:-4]}{1000 + self._next()}".encode())

    def _prepared_s(self, jobs: list[UUID]) -> dict[UUID, float]:
        waited_s = sa.extract("epoch", Job.ready_at - Job.created_at)
        with self._database.begin() as session:
            rows = session.execute(sa.select(Job.id, waited_s).where(Job.id.in_(jobs), Job.ready_at.is_not(None)))
            return {job_id: float(seconds) for job_id, seconds in rows}

    def _next(self) -> int:
        self._seed += 1
        return self._seed
