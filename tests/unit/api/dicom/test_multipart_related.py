"""Bodies of STOW-RS, cut into chunks and broken off wherever it may happen; and the media types around them."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from flask import Flask, Request
from werkzeug.test import EnvironBuilder

from api.dicom.web.media_types import NotAcceptable, choose, parse_accept, parse_media_type
from api.dicom.web.related import NoInstances, read_parts
from shared.errors import CarinaError, LimitExceeded, MalformedUpload, UnsupportedMediaType, UploadCutShort

#: Among them what looks like a boundary and is none.
FILES = [b"\r\n--frontie", b"", b"--frontier", b"\r\n\r\n--fron\r\n--frontie\r", bytes(range(256)) * 20]
TYPE = 'multipart/related; type="application/dicom"; boundary=frontier'


def body(*files: bytes, end: bytes = b"\r\n--frontier--\r\n") -> bytes:
    head = b"\r\n--frontier\r\nContent-Type: application/dicom\r\nX-Empty:\r\nContent-Length: 1\r\n\r\n"
    return b"".join(head + file for file in files) + end


class Slow(BytesIO):
    """Gives no more than so many bytes at a time."""

    step = 1

    def readinto(self, buffer: Any, /) -> int:
        return super().readinto(memoryview(buffer)[: self.step])


def request(data: bytes, *, length: int | None = None, step: int = 10**6, content_type: str = TYPE) -> Request:
    stream = Slow(data)
    stream.step = step
    environ = EnvironBuilder(method="POST", content_type=content_type).get_environ()
    environ |= {"wsgi.input": stream, "CONTENT_LENGTH": str(len(data) if length is None else length)}
    return Flask("test").request_class(environ)


def read(sent: Request, *, max_bytes: int = 10**6, max_parts: int = 10) -> Iterator[tuple[str, bytes]]:
    for part in read_parts(sent, max_bytes=max_bytes, max_parts=max_parts):
        yield part.media_type, b"".join(part.chunks)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 11, 64, 10**6])
def test_the_chunks_that_a_body_comes_in_make_no_difference(step: int) -> None:
    assert list(read(request(body(*FILES), step=step))) == [("application/dicom", file) for file in FILES]


PREAMBLES = [
    b"This is a message in several parts.\r\nIt is in MIME format.\r\n",
    b"\r\n\r\n",
    b"\n",
    b"--frontie\r\n --frontier\r\n--frontierless--\r\n",
    b"x" * 60_000 + b"\r\n",
]


@pytest.mark.parametrize("step", [1, 7, 10**6])
@pytest.mark.parametrize("preamble", PREAMBLES, ids=len)
def test_text_before_the_first_boundary_is_passed_over(preamble: bytes, step: int) -> None:
    data = preamble + body(*FILES).removeprefix(b"\r\n")
    assert list(read(request(data, step=step))) == [("application/dicom", file) for file in FILES]


def test_a_preamble_has_an_end() -> None:
    with pytest.raises(MalformedUpload):
        list(read(request(b"x" * 10**6 + body(b"data"), step=1000), max_bytes=10**7))


def test_what_is_not_read_of_a_part_is_skipped() -> None:
    assert len(list(read_parts(request(body(*FILES), step=5), max_bytes=10**6, max_parts=10))) == len(FILES)


def test_a_body_that_breaks_off_anywhere_never_ends_well() -> None:
    data = body(b"data", b"another", end=b"\r\n--frontier--\r\n")
    for cut in range(len(data)):
        whole = []
        with pytest.raises(UploadCutShort):
            whole.extend(file for _, file in read(request(data[:cut], length=len(data))))
        assert whole in ([], [b"data"])


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"no boundary at all", MalformedUpload),
        (b"--frontier\r\nno header\r\n\r\n", MalformedUpload),
        (b"--frontier\r\nX: " + bytes(10_000), MalformedUpload),
        (b"--frontier\r\n" + b"X: y\r\n" * 9 + b"\r\n\r\n--frontier--", MalformedUpload),
        (body(b"data") + bytes(100_000), MalformedUpload),
        (b"--frontier--", NoInstances),
        (b"", NoInstances),
        (body(*([b""] * 11)), LimitExceeded),
        (body(bytes(10**6)), LimitExceeded),
    ],
)
def test_a_body_that_is_no_good_is_refused(data: bytes, error: type[CarinaError]) -> None:
    with pytest.raises(error):
        list(read(request(data, step=1000)))


def test_other_media_types_are_refused_and_an_instance_alone_is_not() -> None:
    for content_type in ("", "multipart/related", "application/json", TYPE.replace("dicom", "dicom+xml")):
        with pytest.raises(UnsupportedMediaType):
            list(read(request(body(b"data"), content_type=content_type)))
    assert list(read(request(b"data", content_type="application/dicom"))) == [("application/dicom", b"data")]
    with pytest.raises(UploadCutShort):
        list(read(request(b"data", length=5, content_type="application/dicom")))


@pytest.mark.parametrize(
    ("text", "name", "part", "syntax"),
    [
        (
            'multipart/related; type="application/dicom"; transfer-syntax=*',
            "multipart/related",
            "application/dicom",
            "*",
        ),
        ("multipart/related;type=image/jls;transfer-syntax=1.2.3", "multipart/related", "image/jls", "1.2.3"),
        ("IMAGE/PNG ; q=2", "image/png", None, None),
        ("", "", None, None),
        ("\r\n\x00;;=;type", "", None, None),
    ],
)
def test_media_types_are_read_with_and_without_quotes(
    text: str, name: str, part: str | None, syntax: str | None
) -> None:
    media_type = parse_media_type(text)
    assert (media_type.name, media_type.part, media_type.transfer_syntax) == (name, part, syntax)


def test_what_is_wanted_most_is_chosen() -> None:
    offered = ("image/png", "image/jpeg")
    assert choose(parse_accept(None), offered) == "image/png"
    assert choose(parse_accept("image/jpeg, image/png;q=0.5"), offered) == "image/jpeg"
    assert choose(parse_accept("image/jpeg;q=0, image/*;q=0.1"), offered) == "image/png"
    assert choose(parse_accept('a/b; x="image/png, c", image/jpeg'), offered) == "image/jpeg"
    with pytest.raises(NotAcceptable):
        choose(parse_accept("image/gif, multipart/related; type=image/png"), offered)
