"""From stored values to the picture: sizes, and what making it smaller does to it."""

import imagecodecs
import numpy as np
import pytest
from pydicom.uid import JPEGBaseline8Bit

from shared.errors import PermanentError
from shared.imaging.rendition import Rendition, make_rendition, read_rendition
from shared.version import RENDITION_VERSION
from tests.rendering import scale_xy, show
from tests.synthetic_dicom import MAX_PIXELS, make_dicom, make_image


@pytest.mark.parametrize(("height_px", "width_px"), [(96, 80), (211, 169), (1001, 333), (333, 1001), (640, 641)])
def test_a_rendition_is_never_enlarged_and_its_boxes_come_back(height_px: int, width_px: int) -> None:
    image = np.zeros((height_px, width_px), np.uint16)
    box = np.array([0.25 * width_px, 0.5 * height_px, 0.75 * width_px, 0.9 * height_px]).astype(int)
    image[box[1] : box[3], box[0] : box[2]] = 4095
    data = make_dicom(image, bits=12, WindowCenter=2048, WindowWidth=4096)
    rendition = make_rendition(data, rendition_px=256, max_image_pixels=MAX_PIXELS)
    pixels = read_rendition(rendition.png)
    assert pixels.shape == (rendition.height_px, rendition.width_px)
    assert max(pixels.shape) == min(256, max(height_px, width_px))
    bright = pixels / 255
    # The edges, to a fraction of a pixel: how far the bright part reaches along a line through its middle.
    row, column = bright[int(0.7 * pixels.shape[0])], bright[:, pixels.shape[1] // 2]
    left = float(np.flatnonzero(row)[0] + 1 - row[np.flatnonzero(row)[0]])
    top = float(np.flatnonzero(column)[0] + 1 - column[np.flatnonzero(column)[0]])
    found = np.array([left, top, left + row.sum(), top + column.sum()])
    assert np.abs(found * np.tile(scale_xy(rendition), 2) - box).max() < 0.05


def test_a_size_scales_back_exactly() -> None:
    rendition = Rendition(b"", 1024, 964, 1955, 1841)
    assert scale_xy(rendition) == (1841 / 964, 1955 / 1024)
    assert rendition.version == RENDITION_VERSION


def test_shrinking_before_the_window_is_within_one_level_of_the_other_order() -> None:
    image = make_image(512, 448)
    data = make_dicom(image, bits=12, WindowCenter=2000, WindowWidth=4500)
    small, full = show(data, 128), show(data, 512).astype(float)
    averaged = full.reshape(128, 4, 112, 4).mean(axis=(1, 3))
    assert np.abs(small - averaged).max() <= 1


@pytest.mark.parametrize("data", [b"", b"no png"])
def test_a_rendition_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(PermanentError):
        read_rendition(data)


def test_an_8_bit_image_in_jpeg_is_shown_as_it_is() -> None:
    image = (make_image() >> 5).astype(np.uint8)  # uses half of the range
    jpeg = make_dicom(image, syntax=JPEGBaseline8Bit, frame=imagecodecs.jpeg_encode(image, level=95))
    assert np.abs(show(jpeg).astype(int) - image).max() < 12
