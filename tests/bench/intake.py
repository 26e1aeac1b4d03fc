"""Taking files in: over HTTP and STOW-RS beside Orthanc, and in bulk beside a bare upload loop of boto3.

`BENCH_FILES=200 make bench ARGS=intake` is the quick one. Every request carries one instance, from the same threads and
the same HTTP client. Orthanc keeps its index and its files in the PostgreSQL server that Carina uses, and commits
before it answers; Carina's object store syncs the file and PostgreSQL the rows before it does.
"""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import boto3
import botocore.config
import httpx
import numpy as np

from api.client import Carina
from shared.access.keys import create_key
from shared.database import Database
from shared.settings import Settings
from shared.vocabulary.states import Scope
from tests.bench.figure import Figure
from tests.bench.orthanc import is_here, orthanc
from tests.bench.servers import REPOSITORY, servers
from tests.synthetic_dicom import make_dicom

FILES = int(os.environ.get("BENCH_FILES", "2000"))
#: 0.5 to 8 MB, small ones more often than large ones: 2.1 MB on average, as many 12-bit images compressed without loss.
SIZES_MB = tuple(0.5 * 16 ** ((step / 15) ** 1.4) for step in range(16))
THREADS = 8
#: Each contender gets its share in so many turns, so that a neighbour's load falls on all.
TURNS = 4
#: A bulk submission has a beginning and an end, which count for less the longer it is.
BULK_TURNS = 2
_SOP, _STUDY = f"1.2.826.0.1.3680043.{10**20}", f"1.2.826.0.1.3680043.{2 * 10**20}"
_BOUNDARY = "carina-bench-boundary"

#: Sends one instance; raises unless it is stored.
Send = Callable[[bytes], None]


def measure() -> Iterator[Figure]:
    """Without workers, as Orthanc has none: what is measured ends with the answer that the instance is durable."""
    images = _Images()
    with servers() as settings, _api(settings) as (api_url, key), tempfile.TemporaryDirectory() as folder:
        mean_mb = sum(len(image) for image in images.templates) / len(images.templates) / 1e6
        yield Figure("an instance, on average", mean_mb, "MB")
        if is_here():
            with orthanc(Path(folder), settings.database_url.get_secret_value()) as orthanc_url:
                yield from _one_by_one(images, api_url, key, orthanc_url)
        yield from _bulk(images, settings, api_url, key, Path(folder))


class _Images:
    """Instances of noise, which no compression makes smaller; each is another one."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.templates = [self._image(random, round(size * 1e6)) for size in SIZES_MB]
        self._numbers = count()
        self._lock = threading.Lock()

    def take(self, files: int) -> Iterator[bytes]:
        """Yield new instances, two to a study."""
        for _ in range(files):
            with self._lock:
                number = next(self._numbers)
            image = self.templates[number % len(self.templates)]
            for placeholder, value in ((_SOP, 10**20 + number), (_STUDY, 2 * 10**20 + number // 2)):
                image = image.replace(placeholder.encode(), f"1.2.826.0.1.3680043.{value}".encode())
            yield image

    @staticmethod
    def _image(random: np.random.Generator, byte_count: int) -> bytes:
        pixels = random.integers(0, 2**16, (byte_count // 2 // 1000, 1000), np.uint16)
        return make_dicom(
            pixels, SOPInstanceUID=_SOP, StudyInstanceUID=_STUDY, SeriesInstanceUID=f"{_STUDY}.1", PatientID="bench",
            Modality="DX", BodyPartExamined="CHEST",
        )  # fmt: skip


def _one_by_one(images: _Images, api_url: str, key: str, orthanc_url: str) -> Iterator[Figure]:
    with (
        httpx.Client(timeout=120, headers={"Authorization": f"Bearer {key}"}) as ours,
        httpx.Client(timeout=120) as theirs,
    ):
        contenders = {
            "POST /v1/studies": _form(ours, f"{api_url}/v1/studies"),
            "Orthanc's POST /instances": _raw(theirs, f"{orthanc_url}/instances"),
            "STOW-RS": _stow(ours, f"{api_url}/dicom-web/studies"),
            "Orthanc's STOW-RS": _stow(theirs, f"{orthanc_url}/dicom-web/studies"),
        }
        took_s = dict.fromkeys(contenders, 0.0)
        for _ in range(TURNS):
            for name, send in contenders.items():
                took_s[name] += _time(send, images.take(FILES // TURNS))
    per_s = {name: FILES // TURNS * TURNS / seconds for name, seconds in took_s.items()}
    for name, pace in per_s.items():
        yield Figure(f"{name}, {THREADS} clients", pace, "instances/s")
    http, of_orthanc, stow, stow_of_orthanc = per_s.values()
    yield Figure("over HTTP, of Orthanc's pace", http / of_orthanc, target=1.0)
    yield Figure("over STOW-RS, of Orthanc's pace", stow / stow_of_orthanc, target=1.0)


def _bulk(images: _Images, settings: Settings, api_url: str, key: str, folder: Path) -> Iterator[Figure]:
    """The same files from the same disk into the same store."""
    paths = []
    for number, image in enumerate(images.take(FILES)):
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(image)
    byte_count = sum(path.stat().st_size for path in paths)
    took_s = [0.0, 0.0]
    share = -(-len(paths) // BULK_TURNS)
    for first in range(0, len(paths), share):
        some = paths[first : first + share]
        took_s[0] += _submit_all(api_url, key, some)
        took_s[1] += _upload_bare(settings, some)
    ours, bare = (byte_count / seconds / 1e6 for seconds in took_s)
    yield Figure(f"bulk submission, {THREADS} uploads at a time", ours, "MB/s")
    yield Figure("bare loop of boto3's upload_fileobj, as many threads", bare, "MB/s")
    yield Figure("bulk submission, of the bare loop", ours / bare, target=0.8)


def _submit_all(api_url: str, key: str, paths: Sequence[Path]) -> float:
    """Hash, announce, upload, say so and close; what comes then is the workers'."""
    with Carina(api_url, key) as carina:
        begun = time.monotonic()
        submission = carina.submit_all(paths, threads=THREADS)
        took_s = time.monotonic() - begun
    if submission.counts.arrived != len(paths):
        raise RuntimeError(f"not every file arrived: {submission.counts}")
    return took_s


def _upload_bare(settings: Settings, paths: Sequence[Path]) -> float:
    s3 = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key_id.get_secret_value(),
        aws_secret_access_key=settings.s3_secret_access_key.get_secret_value(),
        config=botocore.config.Config(max_pool_connections=2 * THREADS),
    )

    def upload(path: Path) -> None:
        with path.open("rb") as file:
            s3.upload_fileobj(file, settings.s3_bucket, f"bare/{path.name}")

    with ThreadPoolExecutor(THREADS) as pool:
        begun = time.monotonic()
        for done in [pool.submit(upload, path) for path in paths]:
            done.result()
        return time.monotonic() - begun


def _time(send: Send, images: Iterator[bytes]) -> float:
    """Return the seconds that the threads take for all; what they send is made beforehand."""
    bodies = list(images)
    with ThreadPoolExecutor(THREADS) as pool:
        begun = time.monotonic()
        for done in [pool.submit(send, body) for body in bodies]:
            done.result()
        return time.monotonic() - begun


def _raw(http: httpx.Client, url: str) -> Send:
    return lambda image: _stored(http.post(url, content=image))


def _form(http: httpx.Client, url: str) -> Send:
    head = 'Content-Disposition: form-data; name="files"; filename="image.dcm"'
    return _enveloped(http, url, head, f"multipart/form-data; boundary={_BOUNDARY}")


def _stow(http: httpx.Client, url: str) -> Send:
    kind = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'
    return _enveloped(http, url, "Content-Type: application/dicom", kind)


def _enveloped(http: httpx.Client, url: str, head: str, kind: str) -> Send:
    before, after = f"--{_BOUNDARY}\r\n{head}\r\n\r\n".encode(), f"\r\n--{_BOUNDARY}--\r\n".encode()
    headers = {"Content-Type": kind, "Accept": "application/dicom+json, application/json"}
    return lambda image: _stored(http.post(url, content=before + image + after, headers=headers))


def _stored(response: httpx.Response) -> None:
    if not response.is_success or "rejected" in response.text:
        raise RuntimeError(f"not stored: {response.status_code} {response.text[:500]}")


@contextmanager
def _api(settings: Settings) -> Iterator[tuple[str, str]]:
    """The API as it is served; yields its URL and a key."""
    database = Database.from_settings(settings)
    with database.begin() as session:
        key = create_key(session, project_name="bench", name="bench", scopes=[Scope.SUBMIT, Scope.READ])
    database.close()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CARINA_")}
    given = {
        f"CARINA_{name.upper()}": value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
        for name in settings.model_fields_set
        if (value := getattr(settings, name)) is not None
    }
    environ = clean | given | {"CARINA_API_PORT": str(port)}
    with subprocess.Popen([sys.executable, "-m", "deploy.cli", "api"], env=environ, cwd=REPOSITORY) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 60
            while not _is_up(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("The API did not come up.")
                time.sleep(0.1)
            yield url, key
        finally:
            process.terminate()
            process.wait(timeout=60)


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False
