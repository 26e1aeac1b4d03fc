"""Sends any number of files in constant memory: hashing, announcing and uploading at the same time."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID, uuid4

import httpx

from api.client.errors import RequestRefused
from api.client.files import OnUnreadable, UnreadableFile
from api.client.journal import Journal, LocalFile
from api.client.submissions import Submissions
from api.client.uploading import OnFallback, Stopped, Uploader
from api.contract.submissions import AnnouncedFile, Part, SubmissionAnswer, SubmissionRequest, Upload
from shared.errors import CarinaError
from shared.vocabulary.states import FileState, SubmissionState

#: Maximum files and bytes per announcement. While they are uploaded, the next files are hashed. The first
#: pages are smaller, so that uploads start at once.
PAGE_FILES, PAGE_BYTES, FIRST_FILES = 500, 1024**3, 16
#: Finished uploads are reported to the server in groups of this size.
ARRIVED_FILES = 100
_CHUNK_BYTES = 1024**2
#: Refusals that concern one file only, not the submission.
_OF_ONE_FILE = {400, 411, 413, 415, 422}


@dataclass(frozen=True)
class Progress:
    """Files and bytes that are done: uploaded, not wanted by the server, or unreadable."""

    files: int
    byte_count: int


@dataclass
class _Open:
    """A file whose upload is under way."""

    file: LocalFile
    upload: Upload
    tasks_left: int
    has_failed: bool = False
    #: Whether the object store did not take the file or a part of it.
    is_left_to_api: bool = False


class Sender:
    """Sends the files of one submission, once."""

    def __init__(
        self,
        client: Submissions,
        journal: Journal,
        threads: int,
        names: bool = False,
        on_progress: Callable[[Progress], object] = lambda _: None,
        on_unreadable: OnUnreadable = lambda _, __: None,
        on_fallback: OnFallback = lambda _: None,
    ) -> None:
        self._client = client
        self._journal = journal
        self._threads = threads
        self._names = names
        self._on_progress = on_progress
        self._on_unreadable = on_unreadable
        self._lock = threading.Lock()
        self._progress = Progress(0, 0)
        #: Uploaded files that are not reported to the server yet.
        self._arrived: list[int] = []
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._uploader = Uploader(client, self._stopped, on_fallback)
        #: Limits the uploads that wait or run.
        self._room = threading.BoundedSemaphore(2 * PAGE_FILES)

    def send(self, walk: Callable[..., Iterator[Path]], request: SubmissionRequest) -> SubmissionAnswer:
        """Send the files of a walk that the journal does not know as sent; close the submission and return it."""
        self._submission_id, is_open = self._begin(request)
        self._count(*self._journal.done())
        if not is_open:
            return self._client.complete(self._submission_id)
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as hashers, ThreadPoolExecutor(self._threads) as uploaders:
            try:
                self._go_on(uploaders)
                self._journal.forget_unreadable()
                for page in self._pages(walk(on_unreadable=self._cannot_read)):
                    self._send_page(page, hashers, uploaders)
                self._wait_for_uploads()
            except BaseException as exc:
                self._stopped.set()
                hashers.shutdown(wait=False, cancel_futures=True)
                uploaders.shutdown(wait=False, cancel_futures=True)
                if isinstance(exc, Stopped) and self._error is not None:
                    raise self._error from None  # which an upload has met, and for which this thread was stopped
                raise
        self._tell(self._journal.uploaded())
        self._journal.is_sent = True
        return self._client.complete(self._submission_id)

    def _begin(self, request: SubmissionRequest) -> tuple[UUID, bool]:
        """Return the journal's submission or a new one, and whether it takes files."""
        known = self._journal.submission_id
        if known is not None:
            state = self._state(known)
            if self._journal.is_sent and state not in (None, SubmissionState.OPEN):
                return known, False
            if state == SubmissionState.OPEN:
                return known, True
            # It was cancelled, or closed after a long time without files. The server knows the files that it has.
            self._journal.reset()
        made = self._client.create_submission(request, key=self._journal.key).submission
        self._journal.submission_id = made.id
        return made.id, True

    def _state(self, submission_id: UUID) -> SubmissionState | None:
        try:
            return self._client.submission(submission_id).state
        except RequestRefused as exc:
            if exc.status == httpx.codes.FORBIDDEN:  # a key with the scope `submit` alone has to rely on the journal
                return SubmissionState.PROCESSING if self._journal.is_sent else SubmissionState.OPEN
            if exc.status == httpx.codes.NOT_FOUND:
                return None
            raise

    def _go_on(self, uploaders: ThreadPoolExecutor) -> None:
        """Finish the files that an earlier process has begun."""
        for key, files in self._journal.pages_without_numbers():
            for file, upload in zip(files, self._announce(key, files), strict=True):
                if upload.state != FileState.EXPECTED:
                    self._start(file, upload, uploaders)
        self._tell(self._journal.uploaded())
        if not self._journal.has_open():
            return
        for upload in self._client.uploads(self._submission_id):
            known = self._journal.file(upload.number)
            # A file that has changed since is announced again.
            if known is not None and known.is_as_it_was():
                self._start(known, upload, uploaders)

    def _pages(self, paths: Iterable[Path]) -> Iterator[list[LocalFile]]:
        """Divide the files that the journal does not know into pages."""
        page: dict[Path, LocalFile] = {}
        byte_count, max_files = 0, min(FIRST_FILES, PAGE_FILES)
        for path in paths:
            try:
                file = LocalFile.at(path)
            except OSError as exc:
                self._cannot_read(path, exc)
                continue
            if path in page or self._journal.knows(file):
                continue
            if page and (len(page) == max_files or byte_count + file.byte_count > PAGE_BYTES):
                yield list(page.values())
                page, byte_count, max_files = {}, 0, min(2 * max_files, PAGE_FILES)
            page[path] = file
            byte_count += file.byte_count
        if page:
            yield list(page.values())

    def _send_page(self, page: list[LocalFile], hashers: ThreadPoolExecutor, uploaders: ThreadPoolExecutor) -> None:
        hashed = []
        for file, digest in zip(page, hashers.map(self._hash, page), strict=True):
            if isinstance(digest, OSError):
                self._cannot_read(file.path, digest)
            else:
                # Not every name is text in Unicode.
                name = file.path.name.encode(errors="replace").decode() if self._names else ""
                hashed.append(replace(file, sha256=digest, name=name))
        if not hashed:
            return
        key = str(uuid4())
        self._journal.add_page(key, hashed)
        for file, upload in zip(hashed, self._announce(key, hashed), strict=True):
            self._start(replace(file, number=upload.number), upload, uploaders)

    def _announce(self, key: str, files: list[LocalFile]) -> list[Upload]:
        announced = [AnnouncedFile(name=file.name, byte_count=file.byte_count, sha256=file.sha256) for file in files]
        uploads = self._client.announce(self._submission_id, announced, key=key)
        self._journal.number_page(key, [upload.number for upload in uploads])
        return uploads

    def _start(self, file: LocalFile, upload: Upload, uploaders: ThreadPoolExecutor) -> None:
        """Have a file uploaded once there is room."""
        if upload.state != FileState.EXPECTED:
            self._journal.mark([upload.number], "done")
            self._count(1, file.byte_count)
            return
        parts: list[Part | None] = [None]
        if upload.url is None and upload.parts is None:
            # An answer has no room for the URLs of very many parts.
            upload = next(self._client.uploads(self._submission_id, after=upload.number - 1, limit=1))
        if upload.parts is not None:
            parts = [part for part in upload.parts if not part.done]
        opened = _Open(file, upload, len(parts))
        if not parts:
            self._arrive(opened)
        for part in parts:
            self._take_room()
            uploaders.submit(self._run, opened, part)

    def _take_room(self) -> None:
        self._room.acquire()
        if self._error is not None:
            raise self._error

    def _wait_for_uploads(self) -> None:
        for _ in range(2 * PAGE_FILES):
            self._take_room()

    def _run(self, opened: _Open, part: Part | None) -> None:
        """Upload a file or a part of it; an error that concerns more than this file stops the submission."""
        try:
            if not self._stopped.is_set():
                self._upload(opened, part)
        except Stopped:
            pass
        except BaseException as exc:  # noqa: BLE001, raised again by the thread that waits for this one
            self._error = self._error or exc
            self._stopped.set()
        finally:
            self._room.release()

    def _upload(self, opened: _Open, part: Part | None) -> None:
        with self._failing(opened):
            if not self._uploader.put(self._submission_id, opened.file, opened.upload, part):
                opened.is_left_to_api = True
        with self._lock:
            opened.tasks_left -= 1
            is_last = opened.tasks_left == 0
        if is_last and opened.is_left_to_api:
            with self._failing(opened):
                self._uploader.put_through_api(self._submission_id, opened.file, opened.upload.number)
        if is_last and not opened.has_failed:
            self._arrive(opened)

    @contextmanager
    def _failing(self, opened: _Open) -> Iterator[None]:
        """Record an error that concerns this file only; raise others."""
        try:
            yield
        except (OSError, UnreadableFile) as exc:
            self._fail(opened, UnreadableFile.code, exc)
        except RequestRefused as exc:
            if exc.status not in _OF_ONE_FILE:
                raise
            self._fail(opened, exc.code, exc)

    def _fail(self, opened: _Open, code: str, error: Exception) -> None:
        with self._lock:
            is_first, opened.has_failed = not opened.has_failed, True
        if is_first:
            self._journal.mark([opened.upload.number], code, _reason(error))
            self._on_unreadable(opened.file.path, error)
            self._count(1, opened.file.byte_count)

    def _arrive(self, opened: _Open) -> None:
        number, is_taken_in = opened.upload.number, opened.upload.through_api or opened.is_left_to_api
        self._journal.mark([number], "done" if is_taken_in else "uploaded")
        self._count(1, opened.file.byte_count)
        if is_taken_in:
            return
        with self._lock:
            self._arrived.append(number)
            if len(self._arrived) < ARRIVED_FILES:
                return
            numbers, self._arrived = self._arrived, []
        self._tell(numbers)

    def _tell(self, numbers: list[int]) -> None:
        for first in range(0, len(numbers), 1000):
            some = numbers[first : first + 1000]
            self._client.arrived(self._submission_id, some)
            self._journal.mark(some, "done")

    def _hash(self, file: LocalFile) -> str | OSError:
        try:
            with file.path.open("rb") as opened:
                digest = hashlib.sha256()
                while chunk := opened.read(_CHUNK_BYTES):
                    if self._stopped.is_set():
                        raise Stopped
                    digest.update(chunk)
                return digest.hexdigest()
        except OSError as exc:
            return exc

    def _cannot_read(self, path: Path, error: Exception) -> None:
        code = error.code if isinstance(error, CarinaError) else UnreadableFile.code
        self._journal.add_unreadable(path, code, _reason(error))
        self._on_unreadable(path, error)
        self._count(1, 0)

    def _count(self, files: int, byte_count: int) -> None:
        with self._lock:
            self._progress = Progress(self._progress.files + files, self._progress.byte_count + byte_count)
            self._on_progress(self._progress)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}."
    return str(error)
