"""Puts one file, or one part of a large one, where the server says."""

import threading
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from api.client.connection import UploadRefused, UrlExpired
from api.client.files import UnreadableFile
from api.client.journal import LocalFile
from api.submission_schemas import Part, Upload

if TYPE_CHECKING:
    from api.client.submissions import Submissions

#: A smaller body is sent at once, from memory.
_WHOLE_BYTES = 8 * 1024**2
_CHUNK_BYTES = 1024**2
#: A URL that is refused so often is not refused for its age.
_MOST_URLS = 3


class Stopped(Exception):
    """Something else has ended the sending."""


class Uploader:
    """Uploads files until `stopped` is set. Safe to share between threads."""

    def __init__(self, client: "Submissions", stopped: threading.Event | None = None) -> None:
        self._client = client
        self._stopped = stopped or threading.Event()

    def put(self, submission_id: UUID, file: LocalFile, upload: Upload, part: Part | None) -> None:
        """Upload a file or a part of one; a URL that has grown too old is asked for anew.

        Raises `UnreadableFile` and `OSError` of the file, `Stopped`, and what the client raises.
        """
        for _ in range(_MOST_URLS):
            try:
                self._put_once(file, upload, part)
            except UrlExpired:
                fresh = next(self._client.uploads(submission_id, after=upload.number - 1, limit=1), None)
                if fresh is None or fresh.number != upload.number:
                    return  # it has arrived
                upload = fresh
                if part is not None:
                    part = next(piece for piece in fresh.parts or () if piece.part_number == part.part_number)
            else:
                return
        raise UploadRefused

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
