"""What is done with each hostile file: every way on which Carina reads one, within bounds."""

import gc
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Self

import psutil

from api.dicom.web.dicom_json import from_dataset, to_text
from shared.deidentification import deidentify
from shared.errors import PermanentError
from shared.imaging.dicom_file import read_dicom
from shared.imaging.header import PREFIX_BYTES, read_header
from shared.imaging.isolation import DecoderPool
from tests.fuzz.memory import forget_peak, peak_rss_bytes

#: Of an image; so that a decoder needs little memory for whatever is let through.
MAX_IMAGE_PIXELS = 4_000_000
#: Of processor time for what runs in the API; several times what the largest header takes.
HEADER_S = 2.0
#: Of wall time for a render, on a machine with other work.
RENDER_S = 20.0
#: That one case may add to the memory of a process that only reads headers.
HEADER_BYTES = 192 * 1024**2
#: Address space of a decoder process.
DECODER_BYTES = 1536 * 1024**2


class TookTooLong(BaseException):
    """Parsing in process did not end in time. No `Exception`, as parsers catch those."""


@dataclass(frozen=True)
class Outcome:
    """What became of one file on one way."""

    way: str
    #: An error's code, `ok`, or, of a finding, what went wrong.
    code: str
    is_finding: bool
    seconds: float


class Trial:
    """Sends files on every way; a context manager, for its decoder process. Only for the main thread."""

    def __init__(self) -> None:
        self._pool = DecoderPool(1, RENDER_S, memory_bytes=DECODER_BYTES)
        signal.signal(signal.SIGVTALRM, _expire)

    def run(self, data: bytes, number: int) -> Iterator[Outcome]:
        """Yield an outcome for each way; the rarer ones get every fourth case."""
        yield self._try("header", lambda: _read_header(data))
        yield self._try("render", lambda: self._pool.render(data, 64, MAX_IMAGE_PIXELS))
        if number % 4 == 0:
            yield self._try("metadata", lambda: _describe(data))
        if number % 4 == 2:
            yield self._try("deidentify", lambda: deidentify(data, b"key", max_bytes=4 * MAX_IMAGE_PIXELS))

    @property
    def decoder_rss_bytes(self) -> int:
        """What decoder processes hold at present."""
        return sum(child.memory_info().rss for child in psutil.Process().children())

    def _try(self, way: str, step: Callable[[], object]) -> Outcome:
        forget_peak()
        rss, begun = peak_rss_bytes(), time.perf_counter()
        code, is_finding = "ok", False
        try:
            if way == "render":
                step()
            else:
                with _within(HEADER_S):
                    step()
        except PermanentError as error:
            code = error.code
        except TookTooLong:
            code, is_finding = f"took longer than {HEADER_S:g} s", True
        except Exception as error:  # noqa: BLE001 - any other is what this looks for
            code, is_finding = f"{type(error).__name__}: {error}", True
        grown = peak_rss_bytes() - rss
        if grown > HEADER_BYTES:
            code, is_finding = f"{code}, and took {grown >> 20} MiB", True
        return Outcome(way, code, is_finding, time.perf_counter() - begun)

    def __enter__(self) -> Self:
        gc.collect()
        gc.freeze()  # else a collection of all that the process holds counts as a file's time
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        gc.unfreeze()
        self._pool.close()


def _read_header(data: bytes) -> None:
    read_header(data[:PREFIX_BYTES], len(data), max_image_pixels=MAX_IMAGE_PIXELS)


def _describe(data: bytes) -> None:
    """As an answer of DICOMweb does."""
    file = read_dicom(data[:PREFIX_BYTES], max_bytes=PREFIX_BYTES, kept=None)
    to_text(from_dataset(file.dataset))


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    # Every second again: what a callback of the collector raises is not passed on.
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _expire(_: int, __: FrameType | None) -> None:
    raise TookTooLong
