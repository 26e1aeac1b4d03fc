"""Bulk submissions put together by hand, and intake workers in this process."""

import hashlib
import io
import os
import signal
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx
import numpy as np
import sqlalchemy as sa
from flask import Flask

from api.client import Carina
from shared.database import Database
from shared.intake.archives import ArchiveKind
from shared.object_store.incoming import Incoming
from shared.queue.hints import Hints
from shared.settings import Settings
from shared.submissions.progress import incoming_key
from shared.tables import Image, Job, Project, Submission, SubmissionFile
from shared.vocabulary.states import FileState, SubmissionState, WorkerKind
from tests.synthetic_dicom import make_dicom
from workers import bucket_listing
from workers.heartbeat import Heartbeat
from workers.intake import IntakeWorker


def large(number: int) -> bytes:
    """A DICOM file that is streamed in parts, and which no other number makes."""
    image = np.random.default_rng(number).integers(0, 2**16, (2300, 2300), np.uint16)
    return make_dicom(image, SOPInstanceUID=f"1.4.{number}", StudyInstanceUID=f"1.5.{number}", SeriesInstanceUID="1.9")


def make_archive(kind: ArchiveKind, *files: bytes) -> bytes:
    """Files in an archive, under names that must not be seen again."""
    buffer = io.BytesIO()
    if kind is ArchiveKind.ZIP:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
            for number, file in enumerate(files):
                zipped.writestr(f"../Doe^Jane/{number}.dcm", file)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w:gz" if kind is ArchiveKind.GZIP else "w") as archive:
        for number, file in enumerate(files):
            info = tarfile.TarInfo(f"../Doe^Jane/{number}.dcm")
            info.size = len(file)
            archive.addfile(info, io.BytesIO(file))
    return buffer.getvalue()


def finished(store: Incoming, prefix: str) -> list[str]:
    """The keys that begin so, without what nanio lists of a write that is under way, or was when its client died."""
    return [key for key in store.keys(prefix) if "/.tmp." not in key]


class Desk:
    """One project's submissions, and who takes them in."""

    def __init__(self, settings: Settings, database: Database, hints: Hints) -> None:
        self.settings, self.database, self.hints = settings, database, hints
        self.incoming = Incoming(settings)
        with database.begin() as session:
            session.add(project := Project(name="desk"))
            session.flush()
            self.project_id = project.id

    def submit(self, *files: bytes, state: SubmissionState = SubmissionState.PROCESSING, **columns: object) -> UUID:
        """Announce and upload files, of which no more come."""
        with self.database.begin() as session:
            submission = Submission(
                project_id=self.project_id, state=state, file_count=len(files), closed_at=sa.func.now(), **columns
            )
            session.add(submission)
            session.flush()
            for number, file in enumerate(files):
                session.add(
                    SubmissionFile(
                        submission_id=submission.id,
                        number=number,
                        name=f"file {number}",
                        byte_count=len(file),
                        sha256=hashlib.sha256(file).hexdigest(),
                        state=FileState.ARRIVED,
                        priority=submission.priority or 5,
                    )
                )
            submission_id = submission.id
        for number, file in enumerate(files):
            self.incoming.put(incoming_key(submission_id, number), file)
        return submission_id

    def import_from(self, bucket: str, prefix: str) -> UUID:
        """Have a bucket read."""
        with self.database.begin() as session:
            submission = Submission(project_id=self.project_id, source_bucket=bucket, source_prefix=prefix)
            session.add(submission)
            session.flush()
            return submission.id

    @contextmanager
    def receiving(self, stop: threading.Event | None = None, **changed: object) -> Iterator[IntakeWorker]:
        """An intake worker under these settings."""
        settings = self.settings.model_copy(update=changed)
        heartbeat = Heartbeat(self.database, WorkerKind.INTAKE, lease_s=settings.lease_s, stuck_after_s=60)
        heartbeat.start()
        try:
            yield IntakeWorker(
                settings, self.database, Incoming(settings), self.hints, heartbeat, stop or threading.Event()
            )
        finally:
            heartbeat.stop()

    def receive(self, **changed: object) -> None:
        """Take in all that has arrived."""
        with self.receiving(**changed) as worker:
            worker.run()

    def files(self, submission_id: UUID) -> list[SubmissionFile]:
        """The manifest, by number."""
        rows = sa.select(SubmissionFile).where(SubmissionFile.submission_id == submission_id)
        with self.database.begin() as session:
            files = list(session.scalars(rows.order_by(SubmissionFile.number)))
            session.expunge_all()
            return files

    def outcomes(self, submission_id: UUID) -> list[str]:
        """What each file has come to, with the code where there is one."""
        return [f"{file.state}:{file.code}" if file.code else file.state for file in self.files(submission_id)]

    def submission(self, submission_id: UUID) -> Submission:
        """The submission as it is now."""
        with self.database.begin() as session:
            submission = session.get_one(Submission, submission_id)
            session.expunge(submission)
            return submission

    def set_file(self, submission_id: UUID, number: int, **columns: object) -> None:
        """Change a file behind everybody's back."""
        which = (SubmissionFile.submission_id == submission_id, SubmissionFile.number == number)
        with self.database.begin() as session:
            session.execute(sa.update(SubmissionFile).where(*which).values(**columns))

    def counts(self) -> tuple[int, int]:
        """How many images and jobs there are."""
        with self.database.begin() as session:
            images, jobs = (session.scalar(sa.select(sa.func.count()).select_from(row)) for row in (Image, Job))
            return images or 0, jobs or 0

    def keys(self, prefix: str) -> list[str]:
        """What lies in the object store."""
        return finished(self.incoming, prefix)

    def multiparts(self) -> list[str]:
        """The keys of uploads in parts that are under way."""
        return [upload.key for upload in self.incoming.unfinished_uploads()]


def fork_and_kill() -> None:
    """For each number of seconds that is read from standard input, run an intake worker for so long at most."""
    bucket_listing.PAGE_KEYS = 7
    settings = Settings()
    incoming = Incoming(settings)  # takes half a second, and connects to nothing
    for line in sys.stdin:
        reader, writer = os.pipe()
        if not (pid := os.fork()):
            try:
                _take_in(settings, incoming, writer)
            finally:
                os._exit(0)
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        deadline = time.monotonic() + float(line)
        while not (ended := os.waitpid(pid, os.WNOHANG)[0]) and time.monotonic() < deadline:
            time.sleep(0.005)
        if not ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        sys.stdout.write("ended\n" if ended else "killed\n")
        sys.stdout.flush()


def _take_in(settings: Settings, incoming: Incoming, ready: int) -> None:
    database = Database.from_settings(settings)
    heartbeat = Heartbeat(database, WorkerKind.INTAKE, lease_s=settings.lease_s, stuck_after_s=60)
    heartbeat.start()
    worker = IntakeWorker(settings, database, incoming, Hints(settings, database), heartbeat, threading.Event())
    os.write(ready, b"!")
    worker.run()


class Counting(Carina):
    """A client that notes what it puts where, and can be stopped in between."""

    def __init__(self, app: Flask, key: str, *, stop_after: int = 10**9) -> None:
        super().__init__("http://api", key, retry_for_s=20)
        self.app = app
        # The application in this process: nothing of the server's own is tested here.
        self._http.close()
        headers, transport = {"Authorization": f"Bearer {key}"}, httpx.WSGITransport(app)
        self._http = httpx.Client(base_url=self.api_url, headers=headers, transport=transport)
        self.put: list[tuple[str, int]] = []
        self.stop_after = stop_after

    def _note(self, url: str, headers: dict[str, str]) -> None:
        if len(self.put) >= self.stop_after:
            raise KeyboardInterrupt
        target = httpx.URL(url)
        part = target.params.get("partNumber")
        self.put.append((target.path + (f"#{part}" if part else ""), int(headers["Content-Length"])))

    def put_into_store(self, url, body, headers) -> None:
        self._note(url, headers)
        super().put_into_store(url, body, headers)

    def put_through_api(self, path, body, headers) -> None:
        self._note(path, headers)
        super().put_through_api(path, body, headers)
