"""The way from a rendition's pixels back to the original's, by marks planted on the original."""

from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shared.imaging.rendition import Rendition, make_rendition, read_rendition
from tests.planted_marks import WINDOW, Mark, measure
from tests.rendering import scale_xy
from tests.synthetic_dicom import MAX_PIXELS, make_dicom

LONGEST_PX = 200
#: Odd, prime and even; portrait, landscape and narrow; smaller and larger than the rendition.
SIZES = [(64, 64), (97, 131), (199, 101), (201, 200), (211, 169), (401, 399), (640, 641), (1009, 757), (331, 1601)]
#: A pixel's height and width, in mm.
SPACINGS = [(0.2, 0.2), (0.2, 0.1), (0.1, 0.2), (0.3, 0.25), (0.14, 0.2), (0.1, 0.4)]


def render(image: NDArray[np.uint16], spacing: tuple[float, float] = (0.2, 0.2)) -> Rendition:
    data = make_dicom(image, bits=12, PixelSpacing=list(spacing), **WINDOW)
    return make_rendition(data, rendition_px=LONGEST_PX, max_image_pixels=MAX_PIXELS)


def back(rendition: Rendition, place: tuple[float, ...]) -> NDArray[np.float64]:
    """Coordinates of the rendition, x, y, x, y and so on, as coordinates of the original."""
    return np.array(place) * np.tile(scale_xy(rendition), len(place) // 2)


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize(("height_px", "width_px"), SIZES)
def test_the_edges_of_a_mark_come_back(height_px: int, width_px: int, spacing: tuple[float, float]) -> None:
    """To a tenth of a pixel of the original or, where many are one, to what 8 bits tell of a pixel of the rendition."""
    random = np.random.default_rng(height_px * width_px)
    # Large enough to cover a pixel of the rendition as a whole, whatever the rendition's size.
    least = 4 * max(height_px, width_px, 64) // LONGEST_PX * 4 + 9
    high, wide = min(least, height_px // 2), min(least, width_px // 2)
    tops = [0, height_px - high, *random.integers(0, height_px - high, 2).tolist()]
    lefts = [width_px - wide, 0, *random.integers(0, width_px - wide, 2).tolist()]
    for top, left in zip(tops, lefts, strict=True):
        mark = Mark(left, top, left + wide, top + high)
        rendition = render(mark.on(height_px, width_px), spacing)
        found = back(rendition, measure(read_rendition(rendition.png)))
        finest = np.maximum(0.1, np.tile(scale_xy(rendition), 2) / 100)
        assert (np.abs(found - mark.box_xyxy_px) < np.minimum(finest, 0.5)).all()


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize(("height_px", "width_px"), SIZES)
def test_the_smallest_mark_lies_within_half_a_pixel_of_the_rendition(
    height_px: int, width_px: int, spacing: tuple[float, float]
) -> None:
    """And exactly where it should where nothing was made smaller. Nothing finer can be read off the brightest pixel."""
    random = np.random.default_rng(height_px + width_px)
    scale_x, scale_y = scale_xy(render(Mark(0, 0, 1, 1).on(height_px, width_px), spacing))
    wide, high = int(scale_x), int(scale_y)  # as much as one pixel of the rendition can hold
    places = [(0, 0), (height_px - high, width_px - wide), (height_px // 2, width_px // 2)]
    places += [(int(random.integers(height_px - high)), int(random.integers(width_px - wide))) for _ in range(3)]
    for top, left in places:
        rendition = render(Mark(left, top, left + wide, top + high).on(height_px, width_px), spacing)
        pixels = read_rendition(rendition.png)
        row, column = np.unravel_index(pixels.argmax(), pixels.shape)
        found = back(rendition, (column + 0.5, row + 0.5))
        half = np.array(scale_xy(rendition)) / 2
        off = np.abs(found - (left + wide / 2, top + high / 2))
        assert (off <= half * 1.01).all()  # two that it lies between may be equally bright to 8 bits
        assert (off[half == 0.5] == 0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("height_px", "width_px"), [(97, 131), (401, 399), (757, 1009)])
def test_a_mark_on_a_turned_jpeg_comes_back_as_the_picture_is_shown(
    height_px: int, width_px: int, orientation: int
) -> None:
    """EXIF orientation: coordinates are those of the picture that a viewer shows."""
    mark = Mark(width_px // 5, height_px // 3, width_px // 5 + 40, height_px // 3 + 32)
    stored = (mark.on(height_px, width_px) >> 4).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = BytesIO()
    Image.fromarray(stored).save(file, "JPEG", quality=98, exif=exif)
    rendition = make_rendition(file.getvalue(), rendition_px=LONGEST_PX, max_image_pixels=MAX_PIXELS)
    pixels = read_rendition(rendition.png)
    found = back(rendition, measure(np.where(pixels < 16, 0, pixels).astype(np.uint8)))
    shown = SHOWN[orientation](stored)
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    assert (rendition.original_height_px, rendition.original_width_px) == shown.shape
    assert np.abs(found - (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)).max() < 0.5


#: What a viewer does with a stored picture, by its orientation (EXIF 2.32, tag 0112).
SHOWN = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).T,
    8: np.rot90,
}
