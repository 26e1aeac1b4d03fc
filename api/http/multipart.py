"""Reads the files of a multipart body while it arrives. Nothing is written to disk; at most one chunk is in memory."""

from collections.abc import Iterator
from dataclasses import dataclass

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Field, File, MultipartDecoder, NeedData, State

from api.http.body import CHUNK_BYTES, Body
from shared.bounded import MAX_STRING_CHARACTERS, is_odd
from shared.errors import LimitExceeded, MalformedUpload, NoFiles, UnexpectedFile, UploadCutShort

FIELD = "files"

#: Limit of a part's headers.
MAX_HEADER_BYTES = 16 * 1024
#: Limit of the data before the first part and after the last one.
_MAX_MARGIN_BYTES = 64 * 1024
#: A chunk and the data before it.
_MAX_BUFFERED_BYTES = CHUNK_BYTES + _MAX_MARGIN_BYTES
#: Limits of the parts that are not files, which are skipped: their number and their total size.
_MAX_FIELDS, _MAX_FIELD_BYTES = 100, 1024**2


@dataclass(frozen=True)
class Upload:
    """A file in the body."""

    #: The client's name for the file; only returned to the client.
    name: str
    #: Its content, to be read once and before the next file.
    chunks: Iterator[bytes]


def read_uploads(request: Request, *, max_bytes: int, max_files: int) -> Iterator[Upload]:
    """Yield the files in the field `files`; unread data of a file is skipped before the next file.

    Raises `NoFiles`, `LimitExceeded`, `UnexpectedFile` and `MalformedUpload`. Reading an incomplete file raises
    `UploadCutShort` before its last chunk, so a file that was read to its end has arrived completely.
    """
    whole = Body(request, max_bytes=max_bytes)
    boundary = request.mimetype_params.get("boundary")
    if request.mimetype != "multipart/form-data" or not boundary or request.content_length == 0:
        raise NoFiles
    body = _Form(whole, boundary.encode("latin-1", "replace"))
    count, others = 0, _OtherFields()
    while (part := body.next_part()) is not None:
        if part.name != FIELD:
            if isinstance(part, File):
                raise UnexpectedFile
            others.skip(body.chunks())
        elif count == max_files:
            raise LimitExceeded("max_files", max_files)
        else:
            count += 1
            name = getattr(part, "filename", "")
            if len(name) > MAX_STRING_CHARACTERS or is_odd(name):
                raise MalformedUpload(
                    "The name of a file is too long, or contains a control character or a line break."
                )
            yield Upload(name, body.chunks())
        body.skip()
    if count == 0:
        raise NoFiles


class _OtherFields:
    """Skips the fields that are not files."""

    def __init__(self) -> None:
        self._count = self._byte_count = 0

    def skip(self, chunks: Iterator[bytes]) -> None:
        """Skip a field; raise `MalformedUpload` if there are too many or they are too large."""
        self._count += 1
        for chunk in chunks:
            self._byte_count += len(chunk)
            if self._byte_count > _MAX_FIELD_BYTES:
                break
        if self._count > _MAX_FIELDS or self._byte_count > _MAX_FIELD_BYTES:
            raise MalformedUpload("The form has too many or too large fields beside its files.")


class _Form:
    """The multipart body of a request."""

    def __init__(self, body: Body, boundary: bytes) -> None:
        self._body = body
        self._decoder = MultipartDecoder(boundary, _MAX_BUFFERED_BYTES)
        self._in_part = False

    def next_part(self) -> File | Field | None:
        """Return the head of the next part; None at the end of the body."""
        while self._decoder.state is not State.EPILOGUE:
            event = self._next_event()
            if isinstance(event, File | Field):
                if sum(len(name) + len(value) for name, value in event.headers) > MAX_HEADER_BYTES:
                    raise MalformedUpload("The headers of a part are too large.")
                self._in_part = True
                return event
        return None

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes of the part that `next_part` returned."""
        while self._in_part:
            event = self._next_event()
            assert isinstance(event, Data)
            if not event.more_data:
                self._in_part = False
                if self._decoder.state is State.EPILOGUE:
                    # The last file is complete only if the body is.
                    self._read_epilogue()
            if event.data:
                yield event.data

    def skip(self) -> None:
        """Skip the rest of the part."""
        for _ in self.chunks():
            pass

    def _next_event(self) -> object:
        try:
            while isinstance(event := self._decoder.next_event(), NeedData):
                self._decoder.receive_data(self._read())
        except (ValueError, AttributeError, RequestEntityTooLarge) as exc:
            raise MalformedUpload from exc
        return event

    def _read(self) -> bytes:
        """Return the next bytes of the body; raise `UploadCutShort` at its end."""
        if chunk := self._body.read():
            return chunk
        raise UploadCutShort

    def _read_epilogue(self) -> None:
        start = self._body.bytes_read
        while self._body.read():
            if self._body.bytes_read - start > _MAX_MARGIN_BYTES:
                raise MalformedUpload("The body continues after its last part.")
