"""Files are pulled out of a multipart body as it arrives, and never out of half of one."""

import hashlib
import itertools
from collections import deque
from io import BytesIO

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from api.http.multipart import read_uploads
from shared.errors import CarinaError, LimitExceeded, MalformedUpload, NoFiles, UnexpectedFile, UploadCutShort

BOUNDARY = "frontier"


def body_of(*parts: tuple[str, str | None, bytes]) -> bytes:
    """A multipart body of (field, file name, content)."""
    body = b""
    for field, name, content in parts:
        file = f'; filename="{name}"' if name is not None else ""
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"{file}\r\n\r\n'.encode()
        body += content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def request_with(body: bytes, *, length: int | None = None, content_type: str | None = None) -> Request:
    """A request that announces `length` bytes and sends `body`."""
    content_type = content_type or f"multipart/form-data; boundary={BOUNDARY}"
    environ = EnvironBuilder(method="POST", input_stream=BytesIO(body), content_type=content_type).get_environ()
    environ["CONTENT_LENGTH"] = str(len(body) if length is None else length)
    environ["wsgi.input_terminated"] = True  # as gunicorn says
    return Request(environ)


def chunked_request_with(body: bytes) -> Request:
    """A request that does not say how long it is."""
    request = request_with(body)
    del request.environ["CONTENT_LENGTH"]
    return request


def read(request: Request, *, max_bytes: int = 10**9, max_files: int = 100) -> list[tuple[str, bytes]]:
    uploads = read_uploads(request, max_bytes=max_bytes, max_files=max_files)
    return [(upload.name, b"".join(upload.chunks)) for upload in uploads]


def test_files_come_out_as_they_went_in() -> None:
    # Bytes that look like the boundary, and one file of more than a chunk.
    tricky = b"\r\n--front\r\n--frontie\r\n\r\n--" + b"\n" * 50 + b"\r"
    large = hashlib.sha512(b"x").digest() * 20_000
    parts = [("files", "a.dcm", tricky), ("files", "ü.png", large), ("files", "empty", b"")]
    body = body_of(*parts)
    expected = [(name, content) for _, name, content in parts]
    assert read(request_with(body)) == expected
    assert read(chunked_request_with(body)) == expected


def test_other_fields_are_skipped_and_other_files_refused() -> None:
    note, file = ("note", None, b"hello" * 100_000), ("files", "a", b"1")
    assert read(request_with(body_of(note, file, note))) == [("a", b"1")]
    with pytest.raises(UnexpectedFile):
        read(request_with(body_of(file, ("image", "b", b"2"))))


def test_a_file_that_nobody_reads_is_skipped() -> None:
    uploads = read_uploads(
        request_with(body_of(("files", "a", b"1" * 10**6), ("files", "b", b"2"))), max_bytes=10**9, max_files=9
    )
    assert [upload.name for upload in uploads] == ["a", "b"]


@pytest.mark.parametrize("make", [request_with, chunked_request_with], ids=["length", "chunked"])
def test_cut_anywhere_no_cut_file_ever_ends(make) -> None:
    """A file's chunks come to their end only if all of it, and for the last file all of the body, is there."""
    body = body_of(("files", "a", b"A" * 300), ("files", "b", b"B" * 300))
    ends_of_a = body.index(b"--frontier", 20) + len(b"--frontier\r")
    last = len(body) if make is request_with else len(body) - 2  # a chunked body's end cannot be missed before it
    for cut in range(last):
        request = request_with(body[:cut], length=len(body)) if make is request_with else make(body[:cut])
        finished: list[str] = []
        with pytest.raises(UploadCutShort):
            finish(request, finished)
        assert finished == (["a"] if cut >= ends_of_a else []), cut


def finish(request: Request, finished: list[str]) -> None:
    """Read every file to its end, and note its name there."""
    for upload in read_uploads(request, max_bytes=10**9, max_files=9):
        deque(upload.chunks, maxlen=0)
        finished.append(upload.name)


def test_too_many_bytes_are_refused_by_their_limit_announced_or_not() -> None:
    body = body_of(("files", "a", b"1" * 2_000_000))
    for request in (request_with(body), chunked_request_with(body)):
        with pytest.raises(LimitExceeded) as caught:
            read(request, max_bytes=1_000_000)
        assert caught.value.limit == "max_upload_bytes"
    assert read(request_with(body), max_bytes=len(body))
    assert read(chunked_request_with(body), max_bytes=len(body))


def test_too_many_files_are_refused_by_their_limit() -> None:
    files = [("files", str(number), b"1") for number in range(4)]
    assert len(read(request_with(body_of(*files)), max_files=4)) == 4
    with pytest.raises(LimitExceeded) as caught:
        read(request_with(body_of(*files)), max_files=3)
    assert caught.value.limit == "max_files"


@pytest.mark.parametrize(
    ("body", "content_type", "error"),
    [
        (b"", None, NoFiles),
        (f"--{BOUNDARY}--\r\n".encode(), None, NoFiles),
        (body_of(("note", None, b"x")), None, NoFiles),
        (b"{}", "application/json", NoFiles),
        (body_of(("files", "a", b"1")), "multipart/form-data", NoFiles),
        (body_of(*[("note", None, b"")] * 101, ("files", "a", b"1")), None, MalformedUpload),
        (body_of(("note", None, b"1" * 1_100_000), ("files", "a", b"1")), None, MalformedUpload),
        (body_of(*[("note", None, b"1" * 20_000)] * 60, ("files", "a", b"1")), None, MalformedUpload),
        (body_of(("files", "a" * 20_000, b"1")), None, MalformedUpload),
        (b"x" * 500_000, None, MalformedUpload),
        (f"--{BOUNDARY}\r\nX: {'y' * 500_000}".encode(), None, MalformedUpload),
        (f"--{BOUNDARY}\r\nX: y\r\n\r\n1\r\n--{BOUNDARY}--\r\n".encode(), None, MalformedUpload),
        (b"--frontier\r\nContent-Disposition: form-data; name=\xff\r\n\r\n1", None, MalformedUpload),
        (body_of(("files", "a", b"1")) + b"x" * 500_000, None, MalformedUpload),
    ],
    ids=itertools.count(),
)
def test_a_form_without_files_or_form_is_refused(
    body: bytes, content_type: str | None, error: type[CarinaError]
) -> None:
    with pytest.raises(error):
        read(request_with(body, content_type=content_type))
