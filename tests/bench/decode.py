"""What a rendition costs by transfer syntax, beside the usual way: pydicom with pylibjpeg, windowed, then resized.

Each of our runs is paired with one of the usual way right after it, and a ratio is the median of the pairs': other
load on the machine slows both.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO

import cv2
import numpy as np
from pydicom import dcmread
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from shared.imaging.isolation import DecoderPool
from shared.imaging.rendition import make_rendition
from shared.phantoms import encode_dicom, make_phantom
from shared.phantoms.dicom import BitsStored
from shared.phantoms.encoding import TransferSyntax
from tests.bench.figure import Figure

SIDE_PX = 3000
RENDITION_PX = 1024
DEPTHS: tuple[BitsStored, ...] = (12, 16)
PAIRS = 5

#: By transfer syntax: how many times as fast as the usual way, and on how many threads.
TARGETS: dict[TransferSyntax, tuple[float, int]] = {
    "explicit": (4.0, 1),
    "jpeg-lossless": (4.0, 1),
    "jpeg-ls": (3.0, 1),
    "htj2k": (2.0, 1),
    "jpeg-2000": (1.5, 2),
}
#: How many times as many images two decoder processes render as one.
TWO_PROCESSES = 1.6


def measure() -> Iterator[Figure]:
    """Time both ways on the same images, from a file's bytes to a PNG's; then one and two decoder processes."""
    cv2.setNumThreads(1)  # as in a decoder process
    phantom = make_phantom(1, SIDE_PX, SIDE_PX)
    images = {}
    for bits in DEPTHS:
        for syntax, (target, threads) in TARGETS.items():
            image = images[bits, syntax] = encode_dicom(phantom, bits_stored=bits, transfer_syntax=syntax)
            name = f"{syntax}, {bits} bits" + (f", {threads} threads" if threads > 1 else "")
            ours_ms, usual_ms = _time_pairs(partial(_ours, image, threads=threads), partial(_usual, image))
            yield Figure(f"{name}: compressed to", 100 * len(image) / (2 * SIDE_PX**2), "%")
            yield Figure(f"{name}: usual way", statistics.median(usual_ms), "ms")
            yield Figure(f"{name}: ours", statistics.median(ours_ms), "ms")
            ratios = [usual / ours for ours, usual in zip(ours_ms, usual_ms, strict=True)]
            yield Figure(f"{name}: times as fast", statistics.median(ratios), "times", target=target)
    yield from _measure_processes([images[DEPTHS[0], syntax] for syntax in TARGETS])


def _ours(image: bytes, threads: int = 1) -> bytes:
    return make_rendition(image, rendition_px=RENDITION_PX, max_image_pixels=SIDE_PX**2, threads=threads).png


def _usual(image: bytes) -> bytes:
    dataset = dcmread(BytesIO(image))
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        # Left to choose, pydicom would take GDCM where that is installed.
        dataset.convert_pixel_data("pylibjpeg")
    shown = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    shown = shown - shown.min()
    grey = (shown / shown.max() * 255).astype(np.uint8)
    small = cv2.resize(grey, (RENDITION_PX, RENDITION_PX), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".png", small, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _time_pairs(ours: Callable[[], bytes], usual: Callable[[], bytes]) -> tuple[list[float], list[float]]:
    ours(), usual()  # both have their libraries loaded
    took_ms = [(_time_ms(ours), _time_ms(usual)) for _ in range(PAIRS)]
    return [pair[0] for pair in took_ms], [pair[1] for pair in took_ms]


def _time_ms(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begun)


def _measure_processes(images: Sequence[bytes]) -> Iterator[Figure]:
    """One image of each transfer syntax by one client, then by each of two at once."""
    with DecoderPool(2, timeout_s=60) as pool, ThreadPoolExecutor(2) as clients:

        def render_all(_client: int = 0) -> None:
            for image in images:
                pool.render(image, RENDITION_PX, SIDE_PX**2)

        def render_twice() -> None:
            list(clients.map(render_all, range(2)))

        render_twice()  # both processes have started
        took_ms = [(_time_ms(render_all), _time_ms(render_twice)) for _ in range(PAIRS)]
        yield Figure("one process: an image", statistics.median(one for one, _ in took_ms) / len(images), "ms")
        ratio = statistics.median(2 * one / two for one, two in took_ms)
        target = TWO_PROCESSES if len(os.sched_getaffinity(0)) > 1 else None
        yield Figure("two processes: times as many images", ratio, "times", target=target)
