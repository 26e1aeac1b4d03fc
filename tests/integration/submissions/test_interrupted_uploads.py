"""Uploads and their workers, cut off anywhere: nothing is half done or left over, and sent again it is whole."""

import hashlib
import os
import random
import socket
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, suppress
from itertools import count
from typing import Self
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import psutil
import pytest
import sqlalchemy as sa

from shared.database import Database
from shared.intake.archives import ArchiveKind
from shared.object_store.incoming import Incoming
from shared.queue.files import expire_file_leases
from shared.queue.hints import Hints
from shared.settings import Settings
from shared.tables import Image, Job, Study, SubmissionFile
from shared.vocabulary.states import FileState
from tests.integration.conftest import Api, Keys, Server
from tests.integration.submitting import Desk, finished, large, make_archive
from tests.integration.workshop import dicom, grey_image
from tests.requirements import REPOSITORY
from tests.synthetic_dicom import make_dicom
from tests.waiting import DEADLINE_S, wait_for
from workers.cleanup import Cleanup

#: In every kind of upload; a tenth of them in a file that is streamed in parts.
CUTS = 200
RESET = b"\1\0\0\0\0\0\0\0"  # of SO_LINGER: the client is gone without a word


class Audit:
    """Looks for what must not be."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database, self._incoming = database, Incoming(settings)
        self._cleanup = Cleanup(settings.model_copy(update={"upload_expires_h": 0}), database, self._incoming)

    def no_harm_done(self) -> int:
        """Every object is whole and every row has what it names; return how many images there are."""
        originals = finished(self._incoming, "originals/")
        for key in originals:
            assert hashlib.sha256(self._incoming.read(key)).hexdigest() == key.rpartition("/")[2]
        with self._database.begin() as session:
            digests = session.scalars(sa.select(Image.sha256)).all()
            with_image, with_job = sa.select(Image.study_id), sa.select(Job.image_id)
            assert session.scalars(sa.select(Study.id).where(Study.id.not_in(with_image))).all() == []
            assert session.scalars(sa.select(Image.id).where(Image.id.not_in(with_job))).all() == []
            accepted = sa.select(SubmissionFile.number).where(SubmissionFile.state.in_(["accepted", "duplicate"]))
            lacking = sa.or_(SubmissionFile.image_id.is_(None), SubmissionFile.job_id.is_(None))
            assert session.scalars(accepted.where(lacking)).all() == []
        assert {key.rpartition("/")[2] for key in originals} >= set(digests)
        assert len(set(digests)) == len(digests)
        return len(digests)

    def left_over(self) -> list[str]:
        """What lies in the way."""
        parts = [upload.key for upload in self._incoming.unfinished_uploads()]
        return [*self._incoming.keys("incoming/"), *parts]

    def sweep(self) -> None:
        """Clean up leftovers of any age until nothing is left over: requests that were cut off may still be ending."""

        def is_clear() -> bool:
            self._cleanup.run()
            return not self.left_over()

        wait_for(is_clear, self.left_over, pause_s=0.1)


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    """Clients upload straight to the object store."""
    return environ | {"CARINA_DIRECT_UPLOADS": "true"}


@pytest.fixture
def audit(settings: Settings, database: Database) -> Audit:
    return Audit(settings, database)


@pytest.fixture
def desk(settings: Settings, database: Database, hints: Hints) -> Desk:
    return Desk(settings, database, hints)


def cuts(small: int, whole: int, seed: int) -> list[tuple[bool, int]]:
    """Where to cut: whether in the large request, and after how many bytes."""
    rng = random.Random(seed)
    offsets = [(False, rng.randrange(small)) for _ in range(CUTS * 9 // 10 - 4)]
    ends = [(False, small - end) for end in range(1, 5)]
    return [*offsets, *ends, *((True, rng.randrange(whole)) for _ in range(CUTS // 10))]


def send(port: int, request: bytes, end: int | None = None, *, silently: bool = False) -> bytes:
    """Send a request up to `end`; return the answer, for which nobody waits who is gone silently."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
        try:
            connection.sendall(request[:end])
            if silently:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return b""
            if end is not None:
                connection.shutdown(socket.SHUT_WR)
            while not is_whole(answer) and (some := connection.recv(65536)):
                answer += some
        except ConnectionError:
            pass  # An answer may come before all is sent, and close the connection.
    return answer


def is_whole(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(found) and (not length or len(body) >= int(length[0].partition(b":")[2]))


def http(method: str, url: str, body: bytes, **headers: str) -> bytes:
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
    return "\r\n".join(
        [*lines, *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    ).encode() + (b"\r\n\r\n" + body)


class Ways:
    """Ways of one file into the API: whole requests, as bytes."""

    def __init__(self, server: Server, key: str) -> None:
        self.port, self._url, self._auth = server.port, server.url, {"Authorization": f"Bearer {key}"}

    def form(self, file: bytes) -> bytes:
        head = b'--frontier\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        kind = "multipart/form-data; boundary=frontier"
        return self._post("/v1/studies", head + file + b"\r\n--frontier--\r\n", kind)

    def stow(self, file: bytes) -> bytes:
        head = b"--frontier\r\nContent-Type: application/dicom\r\n\r\n"
        kind = 'multipart/related; type="application/dicom"; boundary=frontier'
        return self._post("/dicom-web/studies", head + file + b"\r\n--frontier--\r\n", kind)

    def content(self, file: bytes) -> bytes:
        """In a submission of its own."""
        told = {"name": "a", "byte_count": len(file), "sha256": hashlib.sha256(file).hexdigest()}
        answer = httpx.post(f"{self._url}/v1/submissions", json={"files": [told]}, headers=self._auth)
        self.path = f"{self._url}/v1/submissions/{answer.json()['submission']['id']}"
        return http("PUT", f"{self.path}/files/0/content", file, Content_Type="application/octet-stream", **self._auth)

    def complete(self) -> None:
        """End the last submission."""
        httpx.post(f"{self.path}/complete", headers=self._auth).raise_for_status()

    def _post(self, path: str, body: bytes, kind: str) -> bytes:
        return http("POST", self._url + path, body, Content_Type=kind, Accept="*/*", **self._auth)


def whole_image(number: int, *, is_large: bool = False) -> bytes:
    """One that also STOW-RS takes."""
    if is_large:
        return large(number)
    return make_dicom(
        grey_image(number), SOPInstanceUID=f"1.6.{number}", StudyInstanceUID="1.7", SeriesInstanceUID="1.8"
    )


def test_an_upload_to_the_api_that_is_cut_off_anywhere_leaves_nothing(
    server: Server, keys: Keys, audit: Audit, desk: Desk
) -> None:
    ways, taken = Ways(server, keys.both), 0
    for seed, way in enumerate((ways.form, ways.stow, ways.content)):
        files = [whole_image(seed), whole_image(seed, is_large=True)]
        small, whole = (way(file) for file in files)
        for number, (in_large, end) in enumerate(cuts(len(small), len(whole), seed)):
            answer = send(ways.port, whole if in_large else small, end, silently=number % 2 == 0)
            assert not answer or answer.startswith(b"HTTP/1.1 4"), (way, in_large, end, answer)
        audit.sweep()
        assert audit.no_harm_done() == taken
        assert desk.keys("originals/") == desk.keys("originals/")[:taken]
        for request in (small, whole):
            answer = send(ways.port, request)
            assert answer.startswith(b"HTTP/1.1 20"), (way, answer)
            taken += 1
        assert audit.no_harm_done() == len(desk.keys("originals/")) == taken
    audit.sweep()


def test_an_upload_to_the_store_that_is_cut_off_anywhere_is_sent_again(
    api: Api, audit: Audit, desk: Desk, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.submissions.announcing.WHOLE_BYTES", 1024**2)
    monkeypatch.setattr("api.submissions.announcing._PART_BYTES", 5 * 1024**2)
    port, files = urlsplit(settings.s3_endpoint_url).port, [dicom(1), large(2)]
    assert port is not None
    announced = [{"byte_count": len(file), "sha256": hashlib.sha256(file).hexdigest()} for file in files]
    answer = api.post("/v1/submissions", {"files": announced}).json
    path, (small, whole) = f"/v1/submissions/{answer['submission']['id']}", answer["uploads"]
    rng = random.Random(1)
    for number in range(CUTS):
        request = http("PUT", small["url"], files[0], **small["headers"])
        send(port, request, rng.randrange(len(request)), silently=number % 2 == 0)
        part = whole["parts"][number % 2]
        request = http("PUT", part["url"], files[1][part["offset"] :][: part["byte_count"]])
        head = request.index(b"\r\n\r\n")
        send(port, request, int(head + (len(request) - head) ** rng.random()) - 1, silently=number % 2 == 0)
    assert desk.keys("originals/") == []
    api.post(f"{path}/complete")
    desk.receive()
    assert audit.no_harm_done() == 0
    assert {row["outcome"] for row in api.get(f"{path}/manifest").json["files"]} <= {
        "failed:not_uploaded",
        "failed:size_mismatch",
    }
    audit.sweep()

    assert api.post(f"{path}/retry").json["to_upload"] == 2
    small, whole = api.get(f"{path}/uploads").json["uploads"]
    assert not any(part["done"] for part in whole["parts"])
    assert httpx.put(small["url"], content=files[0], headers=small["headers"]).is_success
    for part in whole["parts"]:
        assert httpx.put(part["url"], content=files[1][part["offset"] :][: part["byte_count"]]).is_success
    api.post(f"{path}/arrived", {"numbers": [0, 1]})
    desk.receive()
    assert [row["outcome"] for row in api.get(f"{path}/manifest").json["files"]] == ["accepted"] * 2
    assert audit.no_harm_done() == 2
    audit.sweep()


def test_a_killed_api_leaves_nothing_half_done(server: Server, keys: Keys, audit: Audit, desk: Desk) -> None:
    ways = Ways(server, keys.both)
    archive = make_archive(ArchiveKind.TAR, large(3), dicom(4))
    requests = [ways.form(large(0)), ways.stow(large(1)), ways.content(large(2)), ways.content(archive)]
    with ExitStack() as connections:
        for request in requests:
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)
            connections.enter_context(connection).sendall(request[: len(request) * 98 // 100])
        wait_for(lambda: len(audit.left_over()) == 4, audit.left_over)
        worker = server.worker
        worker.kill()
        psutil.wait_procs([worker])
    assert audit.no_harm_done() == 0

    for request in requests:

        def answer(request: bytes = request) -> bytes:
            with suppress(ConnectionError):
                return send(ways.port, request)
            return b""

        said = wait_for(answer)
        assert said.startswith(b"HTTP/1.1 20"), said
    ways.complete()
    desk.receive()
    assert audit.no_harm_done() == 5
    audit.sweep()


class Killer:
    """Runs intake workers, each for a while; a process that has everything loaded forks them."""

    def __init__(self, environ: dict[str, str]) -> None:
        code = "from tests.integration import submitting; submitting.fork_and_kill()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=REPOSITORY,
            env=os.environ | environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate(timeout=DEADLINE_S)

    def run(self, for_s: float) -> bool:
        """Run one for so long at most; return whether it had to be killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{for_s}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.endswith(("killed\n", "ended\n")):  # What is killed may leave half a line.
                return line.endswith("killed\n")
        pytest.fail("It has ended by itself.")


def test_killed_intake_workers_take_everything_once(
    desk: Desk, audit: Audit, environ: dict[str, str], settings: Settings
) -> None:
    """In the middle of archives and of a listing, with as many keys as make several pages."""
    bucket = Incoming(settings.model_copy(update={"s3_bucket": f"{settings.s3_bucket}-pacs"}))
    bucket.ensure_bucket()
    for number in range(30):
        bucket.put(f"{number}.dcm", dicom(number))
    # Half of the first one's images also lie in the bucket.
    images = [[dicom(15 + 20 * i + number) for number in range(20)] for i in range(3)]
    archives = [make_archive(kind, *of) for kind, of in zip(ArchiveKind, images, strict=True)]
    uploaded = desk.submit(*archives, dicom(200))
    imported = desk.import_from(f"{settings.s3_bucket}-pacs", "")
    rng, kills = random.Random(1), 0
    with Killer(environ) as killer:
        for max_s in count(0.1, 0.1):  # so that it comes to an end on any machine
            if not open_files(desk, uploaded, imported):
                break
            kills += killer.run(rng.uniform(0, max_s))
            audit.no_harm_done()
            with desk.database.begin() as session:
                held = sa.update(SubmissionFile).where(SubmissionFile.state == FileState.CHECKING)
                session.execute(held.values(lease_expires_at=sa.func.now()))
            with desk.database.begin() as session:
                expire_file_leases(session, max_attempts=100)
    assert kills >= 3

    files = desk.files(uploaded)
    assert [file.number for file in files] == list(range(4 + 60))
    assert Counter(file.state for file in files)["unpacked"] == 3
    assert Counter(file.archive_number for file in files) == {None: 4, 0: 20, 1: 20, 2: 20}
    assert len({(file.archive_number, file.entry_number) for file in files[4:]}) == 60
    assert [file.number for file in desk.files(imported)] == list(range(30))
    assert {file.name for file in desk.files(imported)} == {f"{number}.dcm" for number in range(30)}
    assert audit.no_harm_done() == 76
    assert desk.counts() == (76, 76)
    audit.sweep()


def open_files(desk: Desk, *submissions: UUID) -> bool:
    """Whether these are still being listed, or have a file that is to be taken in."""
    return any(
        desk.submission(submission_id).closed_at is None
        or any(not FileState(file.state).is_final for file in desk.files(submission_id))
        for submission_id in submissions
    )
