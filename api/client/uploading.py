"""Uploads one file, or one part of a large file, to the object store or through the API."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from uuid import UUID

from api.client.errors import StoreUnreachable, UploadRefused, UrlExpired
from api.client.files import UnreadableFile
from api.client.journal import LocalFile
from api.client.submissions import Submissions
from api.contract.submissions import Part, Upload
from shared.errors import CarinaError, ObjectStoreUnavailable
from shared.vocabulary.states import FileState

#: Called with the reason why files go through the API instead of the object store.
OnFallback = Callable[[CarinaError], object]

#: A body up to this size is sent from memory.
_WHOLE_BYTES = 8 * 1024**2
_CHUNK_BYTES = 1024**2
#: Maximum number of refused URLs; after that, expiry is not the reason.
_MAX_URLS = 3


class Stopped(Exception):
    """Another error has stopped the transfer."""


class Uploader:
    """Uploads files until `stopped` is set. Safe to share between threads.

    If the object store cannot be reached or refuses an upload, `on_fallback` is called with the reason, and from then
    on every file goes through the API.
    """

    def __init__(
        self,
        client: Submissions,
        stopped: threading.Event | None = None,
        on_fallback: OnFallback = lambda _: None,
    ) -> None:
        self._client = client
        self._stopped = stopped or threading.Event()
        self._on_fallback = on_fallback
        self._lock = threading.Lock()
        self._is_reached = self._is_given_up = False

    def put(self, submission_id: UUID, file: LocalFile, upload: Upload, part: Part | None) -> bool:
        """Upload a file or a part of it; return False if the whole file has to go through `put_through_api`.

        Raises `UnreadableFile` and `OSError` of the file, `Stopped`, and the errors of the client.
        """
        if upload.through_api:
            self._put_once(file, upload, part)
            return True
        try:
            if not self._may_use_store(upload, part):
                return False
            self._put_into_store(submission_id, file, upload, part)
        except (StoreUnreachable, ObjectStoreUnavailable, UploadRefused) as error:
            self._give_up(error)
            return False
        return True

    def put_through_api(self, submission_id: UUID, file: LocalFile, number: int) -> None:
        """Upload a whole file through the API; raises as `put` does."""
        url = f"/v1/submissions/{submission_id}/files/{number}/content"
        self._put_once(file, Upload(number=number, state=FileState.EXPECTED, url=url, through_api=True), None)

    def _may_use_store(self, upload: Upload, part: Part | None) -> bool:
        """Return whether the object store can be reached; checked once, before the first upload."""
        with self._lock:
            if not self._is_reached and not self._is_given_up:
                self._is_reached = True
                try:
                    self._client.reach_store(str(part.url if part else upload.url))
                except StoreUnreachable as error:
                    self._is_given_up = True
                    self._on_fallback(error)
            return not self._is_given_up

    def _give_up(self, error: CarinaError) -> None:
        with self._lock:
            is_first, self._is_given_up = not self._is_given_up, True
        if is_first:
            self._on_fallback(error)

    def _put_into_store(self, submission_id: UUID, file: LocalFile, upload: Upload, part: Part | None) -> None:
        """Upload a file or a part of it; get a new URL for one that has expired."""
        for _ in range(_MAX_URLS):
            try:
                self._put_once(file, upload, part)
            except UrlExpired as exc:
                refused = exc
                fresh = next(self._client.uploads(submission_id, after=upload.number - 1, limit=1), None)
                if fresh is None or fresh.number != upload.number:
                    return  # it has arrived
                if fresh.through_api:
                    raise UploadRefused("The server no longer offers uploads to the object store.") from exc
                upload = fresh
                if part is not None:
                    part = next((piece for piece in fresh.parts or () if piece.part_number == part.part_number), None)
                    if part is None:
                        return
            else:
                return
        raise refused

    def _put_once(self, file: LocalFile, upload: Upload, part: Part | None) -> None:
        offset, byte_count = (part.offset, part.byte_count) if part else (0, file.byte_count)
        url = part.url if part else upload.url
        assert url is not None, "the server says where to put what it expects"
        body = partial(self._body, file, offset, byte_count)
        headers = {"Content-Length": str(byte_count), **upload.headers}
        if upload.through_api:
            self._client.put_through_api(url, body, headers)
        else:
            self._client.put_into_store(url, body, headers)

    def _body(self, file: LocalFile, offset: int, byte_count: int) -> bytes | Iterator[bytes]:
        if self._stopped.is_set():
            raise Stopped
        if not file.is_as_it_was():
            raise UnreadableFile("The file has changed since it was hashed.")
        chunks = self._chunks(file, offset, byte_count)
        return next(chunks, b"") if byte_count <= _WHOLE_BYTES else chunks

    def _chunks(self, file: LocalFile, offset: int, byte_count: int) -> Iterator[bytes]:
        at_once = byte_count if byte_count <= _WHOLE_BYTES else _CHUNK_BYTES
        with file.path.open("rb") as opened:
            opened.seek(offset)
            while byte_count:
                chunk = opened.read(min(at_once, byte_count))
                if self._stopped.is_set():
                    raise Stopped
                if not chunk:
                    raise UnreadableFile("The file has become shorter since it was hashed.")
                byte_count -= len(chunk)
                yield chunk
