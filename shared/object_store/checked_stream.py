"""A stream of bytes that is counted and hashed while it is read."""

import hashlib
from collections.abc import Callable, Iterable, Iterator

from shared.errors import DigestMismatch, SizeMismatch


class CheckedStream(Iterator[bytes]):
    """The chunks of a file, whose size and digest are compared with the announced ones at its end.

    The last chunk is returned only after all checks have passed, so no reader gets a wrong file completely.
    """

    def __init__(
        self,
        chunks: Iterable[bytes],
        *,
        byte_count: int | None = None,
        sha256: str | None = None,
        on_chunk: Callable[[], None] = lambda: None,
    ) -> None:
        """`byte_count` and `sha256` are the announced ones, or None. `on_chunk` is called for each chunk.

        Iterating raises `SizeMismatch` and `DigestMismatch`, and the errors of `chunks` and of the checks.
        """
        self._announced = byte_count, sha256
        self._on_chunk = on_chunk
        self._digest = hashlib.sha256()
        self._checks: list[Callable[[int], None]] = []
        self._is_whole = False
        #: The number of bytes read so far.
        self.byte_count = 0
        self._peeked = b""
        self._passing = self._pass(chunks)

    def __next__(self) -> bytes:
        if self._peeked:
            peeked, self._peeked = self._peeked, b""
            return peeked
        return next(self._passing)

    def peek(self, count: int) -> bytes:
        """Return at least `count` of the first bytes without consuming them; fewer if the file is shorter."""
        while len(self._peeked) < count and (chunk := next(self._passing, b"")):
            self._peeked += chunk
        return self._peeked

    def check_at_end(self, check: Callable[[int], None]) -> None:
        """Call `check` with the number of bytes before the last chunk is returned. It may raise an error."""
        if self._is_whole:  # `peek` has read a short file to its end
            check(self.byte_count)
        self._checks.append(check)

    @property
    def sha256(self) -> str:
        """The hex digest of the bytes read so far."""
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
