"""A stream's bytes are counted, hashed and compared before its last chunk is handed on."""

from collections.abc import Iterator
from hashlib import sha256

import pytest

from shared.errors import CarinaError, DigestMismatch, SizeMismatch
from shared.object_store.checked_stream import CheckedStream

CHUNKS = [b"one", b"two", b"three"]
WHOLE = b"".join(CHUNKS)


def read(stream: Iterator[bytes]) -> tuple[bytes, type[CarinaError] | None]:
    """What came through, and what ended it."""
    got = b""
    try:
        for chunk in stream:
            got += chunk
    except CarinaError as error:
        return got, type(error)
    return got, None


def test_a_file_as_announced_passes_whole_with_its_figures() -> None:
    digest = sha256(WHOLE).hexdigest()
    stream = CheckedStream(CHUNKS, byte_count=len(WHOLE), sha256=digest)
    assert read(stream) == (WHOLE, None)
    assert (stream.byte_count, stream.sha256) == (len(WHOLE), digest)


@pytest.mark.parametrize(
    ("announced", "error"),
    [
        ({"byte_count": len(WHOLE) - 1}, SizeMismatch),
        ({"byte_count": len(WHOLE) + 1}, SizeMismatch),
        ({"sha256": "0" * 64}, DigestMismatch),
    ],
)
def test_no_reader_gets_all_of_another_file(announced: dict[str, int | str], error: type[CarinaError]) -> None:
    got, raised = read(CheckedStream(CHUNKS, **announced))
    assert raised is error
    assert WHOLE.startswith(got)
    assert len(got) < len(WHOLE)


def test_an_empty_file_is_compared_too() -> None:
    assert read(CheckedStream([], sha256="0" * 64)) == (b"", DigestMismatch)
    assert read(CheckedStream([], byte_count=0, sha256=sha256(b"").hexdigest())) == (b"", None)


def test_bytes_that_were_peeked_at_are_still_read_once() -> None:
    stream = CheckedStream(CHUNKS)
    assert WHOLE.startswith(stream.peek(4))
    assert len(stream.peek(4)) >= 4
    assert read(stream) == (WHOLE, None)
    assert stream.byte_count == len(WHOLE)


@pytest.mark.parametrize("peeked", [0, 4, 100])
def test_a_check_keeps_back_the_last_chunk_also_of_a_file_that_was_peeked_at(peeked: int) -> None:
    def refuse(byte_count: int) -> None:
        assert byte_count == len(WHOLE)
        raise DigestMismatch

    stream = CheckedStream(CHUNKS)
    stream.peek(peeked)
    try:
        stream.check_at_end(refuse)
    except DigestMismatch:
        assert peeked == 100  # All has been read, so it is known at once.
    else:
        assert read(stream)[1] is DigestMismatch
