"""What a rendition costs by transfer syntax, beside the usual way: pydicom with pylibjpeg, windowed, then resized."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO

import cv2
import numpy as np
from pydicom import dcmread
from pydicom.pixels.processing import apply_windowing

from shared.imaging.rendition import make_rendition
from shared.phantoms import TRANSFER_SYNTAXES, encode_dicom, make_phantom
from tests.bench.figure import Figure

SIDE_PX = 3000
RENDITION_PX = 1024
REPEATS = 3


def measure() -> Iterator[Figure]:
    """Time both on the same 12-bit film, one thread, the median of a few."""
    phantom = make_phantom(1, SIDE_PX, SIDE_PX)
    for syntax in TRANSFER_SYNTAXES:
        film = encode_dicom(phantom, transfer_syntax=syntax)
        ours_ms = _median_ms(partial(make_rendition, film, rendition_px=RENDITION_PX, max_image_pixels=SIDE_PX**2))
        usual_ms = _median_ms(partial(_usual, film))
        yield Figure(f"{syntax}, {SIDE_PX}×{SIDE_PX}", ours_ms, "ms")
        yield Figure(f"{syntax}, times as fast as the usual way", usual_ms / ours_ms, "times")


def _usual(film: bytes) -> bytes:
    dataset = dcmread(BytesIO(film))
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        # Left to choose, pydicom would take GDCM where that is installed.
        dataset.convert_pixel_data("pylibjpeg")
    windowed = apply_windowing(dataset.pixel_array, dataset)
    grey = (windowed * (255 / (2**dataset.BitsStored - 1))).astype(np.uint8)
    small = cv2.resize(grey, (RENDITION_PX, RENDITION_PX), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".png", small, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _median_ms(work: Callable[[], object]) -> float:
    took_ms = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        work()
        took_ms.append(1000 * (time.perf_counter() - begun))
    return statistics.median(took_ms)
