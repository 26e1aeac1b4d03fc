"""Reads the instances of a multipart/related body while it arrives; at most one chunk is in memory."""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from flask import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from api.dicom.web.media_types import DICOM, RELATED, parse_media_type
from api.http.body import Body
from shared.errors import LimitExceeded, MalformedUpload, RequestError, UnsupportedMediaType, UploadCutShort

#: Limits of the text before the first part and after the last part.
_MAX_PREAMBLE_BYTES = _MAX_EPILOGUE_BYTES = 64 * 1024
_NO_BOUNDARY = "The boundary that the Content-Type states begins no line of the body's first 64 KiB."


class NoInstances(RequestError):
    """The request contains no DICOM instance."""

    code = "no_instances"


@dataclass(frozen=True)
class Part:
    """One part of the body."""

    media_type: str
    #: Its bytes; must be read once, before the next part.
    chunks: Iterator[bytes]


def read_parts(request: Request, *, max_bytes: int, max_parts: int) -> Iterator[Part]:
    """Yield the parts of a `multipart/related; type="application/dicom"`, or a body that is a single instance.

    The unread rest of a part is skipped before the next part. Raises `UnsupportedMediaType`, `NoInstances`,
    `LimitExceeded` and `MalformedUpload`. The chunks of a part raise `UploadCutShort`, so a part whose chunks end
    without an error has arrived completely.
    """
    sent = parse_media_type(request.headers.get("Content-Type", ""))
    if request.content_length == 0:
        raise NoInstances
    if sent.name == DICOM:
        yield Part(DICOM, Body(request, max_bytes=max_bytes).chunks())
        return
    if sent.name != RELATED or sent.part not in (DICOM, None) or not sent.boundary:
        raise UnsupportedMediaType('Send a body of the type `multipart/related; type="application/dicom"`.')
    body = _Related(Body(request, max_bytes=max_bytes), sent.boundary)
    count = 0
    while (media_type := body.next_part()) is not None:
        if count == max_parts:
            raise LimitExceeded("max_files", max_parts)
        count += 1
        yield Part(media_type, body.chunks())
        body.skip()
    if count == 0:
        raise NoInstances


@dataclass(frozen=True)
class _Event:
    kind: Literal["begin", "header", "name", "value", "headers", "data", "part_end", "end"]
    data: bytes = b""


class _Related:
    """The state of a multipart body that is being read."""

    def __init__(self, body: Body, boundary: str) -> None:
        self._body = body
        self._events: deque[_Event] = deque()
        self._in_part = False
        self._delimiter = b"\n--" + boundary.encode("latin-1", "replace")
        self._first_boundary = re.compile(re.escape(self._delimiter) + rb"(?=[ \t\r\n-])")
        #: The end of the text before the first boundary (RFC 2046 section 5.1.1); None after this boundary.
        self._preamble: bytes | None = b"\n"

        def on(kind: str, data: bytes = b"", start: int = 0, end: int = 0) -> None:
            self._events.append(_Event(kind, bytes(data[start:end])))  # type: ignore[arg-type]

        try:
            self._parser = MultipartParser(
                boundary.encode("latin-1", "replace"),
                {
                    "on_part_begin": lambda: on("begin"),
                    "on_header_begin": lambda: on("header"),
                    "on_header_field": lambda data, start, end: on("name", data, start, end),
                    "on_header_value": lambda data, start, end: on("value", data, start, end),
                    "on_headers_finished": lambda: on("headers"),
                    "on_part_data": lambda data, start, end: on("data", data, start, end),
                    "on_part_end": lambda: on("part_end"),
                    "on_end": lambda: on("end"),
                },
            )
        except FormParserError as exc:
            raise MalformedUpload("The boundary is too long.") from exc

    def next_part(self) -> str | None:
        """Return the media type of the next part, or None at the end of the body."""
        if self._next_event().kind == "end":
            self._read_epilogue()
            return None
        headers: list[tuple[bytes, bytes]] = []
        while (event := self._next_event()).kind != "headers":
            if event.kind == "header":
                headers.append((b"", b""))
                continue
            name, value = headers[-1]
            headers[-1] = (name + event.data, value) if event.kind == "name" else (name, value + event.data)
        self._in_part = True
        of_part = [value for name, value in headers if name.lower() == b"content-type"]
        return parse_media_type(of_part[0].decode("latin-1")).name if of_part else DICOM

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes of the part that `next_part` returned."""
        while self._in_part:
            event = self._next_event()
            if event.kind == "data":
                yield event.data
                continue
            self._in_part = False
            if self._events[0].kind == "end":
                # The last part is complete only if the body is.
                self._read_epilogue()

    def skip(self) -> None:
        """Skip the rest of the part."""
        for _ in self.chunks():
            pass

    def _next_event(self) -> _Event:
        if not self._events:
            self._fill()
        return self._events.popleft()

    def _fill(self) -> None:
        """Read until there is an event. Raises `UploadCutShort` if the body ends before."""
        while not self._events:
            chunk = self._body.read()
            if not chunk:
                raise MalformedUpload(_NO_BOUNDARY) if self._preamble and self._body.bytes_read else UploadCutShort
            chunk = self._without_preamble(chunk)
            try:
                self._parser.write(chunk)
            except FormParserError as exc:
                raise MalformedUpload from exc

    def _without_preamble(self, chunk: bytes) -> bytes:
        """Return the chunk from the first boundary on, which starts a line."""
        if self._preamble is None:
            return chunk
        seen = self._preamble + chunk
        if found := self._first_boundary.search(seen):
            self._preamble = None
            return seen[found.start() + 1 :]
        if self._body.bytes_read > _MAX_PREAMBLE_BYTES + len(chunk):
            raise MalformedUpload(_NO_BOUNDARY)
        self._preamble = seen[-len(self._delimiter) :]
        return b""

    def _read_epilogue(self) -> None:
        start = self._body.bytes_read
        while self._body.read():
            if self._body.bytes_read - start > _MAX_EPILOGUE_BYTES:
                raise MalformedUpload("The body goes on after its last part.")
