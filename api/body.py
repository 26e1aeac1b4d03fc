"""Reads a request's body as it arrives, and tells one that has come to its end from one that broke off."""

from collections.abc import Iterator

from flask import Request

from shared.errors import LimitExceeded, UploadCutShort

#: The most that is read at a time.
CHUNK_BYTES = 256 * 1024


class Body:
    """A body under way, to be read once."""

    def __init__(self, request: Request, *, max_bytes: int) -> None:
        """Raise `LimitExceeded` for a body that says it is larger than `max_bytes`."""
        #: None for a chunked body, of whose end the server makes sure.
        self._announced_bytes = request.content_length
        if self._announced_bytes is not None and self._announced_bytes > max_bytes:
            raise LimitExceeded("max_upload_bytes", max_bytes)
        self._stream = request.stream
        self._max_bytes = max_bytes
        #: How much has been read.
        self.bytes_read = 0

    def read(self) -> bytes:
        """Return some bytes, or none at the end; raise `UploadCutShort` before it, and `LimitExceeded`."""
        try:
            chunk = self._stream.read(CHUNK_BYTES)
        except Exception as exc:  # each server has errors of its own for a body that ends early
            raise UploadCutShort from exc
        self.bytes_read += len(chunk)
        if not chunk and self._announced_bytes is not None and self.bytes_read < self._announced_bytes:
            # Behind gunicorn a stream that breaks off looks like one that ends.
            raise UploadCutShort
        if self.bytes_read > self._max_bytes:
            raise LimitExceeded("max_upload_bytes", self._max_bytes)
        return chunk

    def chunks(self) -> Iterator[bytes]:
        """Yield all of it; errors as of `read`."""
        while chunk := self.read():
            yield chunk
