"""Bytes on their way, counted and hashed once, whoever needs the figures."""

import hashlib
from collections.abc import Callable, Iterable, Iterator

from shared.errors import DigestMismatch, SizeMismatch


class CheckedStream(Iterator[bytes]):
    """A file's chunks, compared at their end with what was announced.

    The last chunk is handed on only after all checks have passed, so no reader gets all of a wrong file.
    """

    def __init__(
        self,
        chunks: Iterable[bytes],
        *,
        byte_count: int | None = None,
        sha256: str | None = None,
        on_chunk: Callable[[], None] = lambda: None,
    ) -> None:
        """`byte_count` and `sha256` are as announced, where they are.

        Iterating raises `SizeMismatch` and `DigestMismatch`, and what `chunks` and the checks raise.
        """
        self._announced = byte_count, sha256
        self._on_chunk = on_chunk
        self._digest = hashlib.sha256()
        self._checks: list[Callable[[int], None]] = []
        self._is_whole = False
        #: How many bytes have been read.
        self.byte_count = 0
        self._peeked = b""
        self._passing = self._pass(chunks)

    def __next__(self) -> bytes:
        if self._peeked:
            peeked, self._peeked = self._peeked, b""
            return peeked
        return next(self._passing)

    def peek(self, count: int) -> bytes:
        """Return at least so many of the first bytes, fewer of a shorter file; they are still to be read."""
        while len(self._peeked) < count and (chunk := next(self._passing, b"")):
            self._peeked += chunk
        return self._peeked

    def check_at_end(self, check: Callable[[int], None]) -> None:
        """Have `check` called with the number of bytes before the last chunk is handed on; it may raise."""
        if self._is_whole:  # a short file that was peeked at
            check(self.byte_count)
        self._checks.append(check)

    @property
    def sha256(self) -> str:
        """The hex digest of the bytes that have been read."""
        return self._digest.hexdigest()

    def _pass(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        announced_bytes, announced_sha256 = self._announced
        held = b""
        for chunk in chunks:
            self._on_chunk()
            self._digest.update(chunk)
            self.byte_count += len(chunk)
            if announced_bytes is not None and self.byte_count > announced_bytes:
                raise SizeMismatch
            if held:
                yield held
            held = chunk
        if announced_bytes not in (None, self.byte_count):
            raise SizeMismatch
        if announced_sha256 not in (None, self.sha256):
            raise DigestMismatch
        for check in self._checks:
            check(self.byte_count)
        self._is_whole = True
        if held:
            yield held
