"""From stored values to the picture: grey levels and sizes."""

from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    JPEGBaseline8Bit,
)

from shared.errors import PermanentError
from shared.imaging.rendition import RENDITION_VERSION, Rendition, make_rendition, read_rendition
from tests.synthetic_dicom import MAX_PIXELS, make_dicom, make_film

FILM = make_film()
SIGNED = (FILM.astype(np.int32) - 2048).astype(np.int16)


def show(data: bytes, rendition_px: int = 1024) -> NDArray[np.uint8]:
    return read_rendition(make_rendition(data, rendition_px=rendition_px, max_image_pixels=MAX_PIXELS).png)


def code_of(data: bytes) -> str:
    with pytest.raises(PermanentError) as caught:
        show(data)
    return caught.value.code


def lut(first: int, entries: NDArray[np.uint16], bits: int) -> list[Dataset]:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item["LUTDescriptor"].VR = "US" if first >= 0 else "SS"
    item.LUTData = entries.tobytes()
    item["LUTData"].VR = "OW"
    return [item]


def by_pydicom(data: bytes) -> NDArray[np.floating]:
    """pydicom's own chain, scaled to 0–255 by the range that its window has."""
    dataset = dcmread(BytesIO(data))
    values = apply_modality_lut(dataset.pixel_array, dataset)
    shown = apply_voi_lut(values, dataset).astype(np.float64)
    every = np.arange(2**dataset.BitsStored) - (2 ** (dataset.BitsStored - 1) if dataset.PixelRepresentation else 0)
    ends = apply_modality_lut(every[[0, -1]], dataset)
    return np.asarray(255 * (shown - ends[0]) / (ends[1] - ends[0]))


# --- grey levels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("window", [(2000, 900), (100, 4000), (3000.5, 60.5), (2048, 65536)])
@pytest.mark.parametrize("rescale", [(1, 0), (2.5, -1024), (-1, 4095)])
@pytest.mark.parametrize("film", [FILM, SIGNED], ids=["unsigned", "signed"])
def test_a_window_is_what_pydicom_makes_of_it(
    function: str, window: tuple[float, float], rescale: tuple[float, float], film: NDArray[np.integer]
) -> None:
    data = make_dicom(
        film,
        bits=12,
        VOILUTFunction=function,
        WindowCenter=[window[0], 1],
        WindowWidth=[window[1], 2],
        RescaleSlope=rescale[0],
        RescaleIntercept=rescale[1],
    )
    expected = by_pydicom(data)
    if expected.max() - expected.min() > 1:  # a window beside all values is the next test's
        assert np.abs(show(data) - expected).max() <= 1


def test_a_window_beside_all_values_counts_as_absent() -> None:
    without = make_dicom(FILM, bits=12)
    assert np.array_equal(show(make_dicom(FILM, bits=12, WindowCenter=60000, WindowWidth=10)), show(without))


@pytest.mark.parametrize(
    ("width", "function"),
    [(0.5, "LINEAR"), (0, "LINEAR_EXACT"), (-100, "SIGMOID"), ("NaN", "LINEAR"), ("1e999", "LINEAR")],
)
def test_a_window_that_the_standard_forbids_counts_as_absent(width: float | str, function: str) -> None:
    data = make_dicom(FILM, bits=12, WindowCenter=2000, WindowWidth="12345", VOILUTFunction=function)
    data = data.replace(b"12345 ", str(width).encode().ljust(6))
    assert np.array_equal(show(data), show(make_dicom(FILM, bits=12)))


def test_a_window_of_width_1_is_a_step() -> None:
    assert np.array_equal(show(make_dicom(FILM, bits=12, WindowCenter=2000, WindowWidth=1)), 255 * (FILM >= 2000))


def test_tables_are_applied() -> None:
    ramp = (np.arange(4096) ** 2 >> 12).astype(np.uint16)
    data = make_dicom(FILM, bits=12, VOILUTSequence=lut(0, ramp, 12))
    assert np.abs(show(data) - ramp[FILM] / 4095 * 255).max() <= 0.5
    short = ramp[1000:3000]
    data = make_dicom(SIGNED, bits=12, VOILUTSequence=lut(-1000, short, 12))
    assert np.abs(show(data) - short[np.clip(SIGNED + 1000, 0, 1999)] / 4095 * 255).max() <= 0.5
    modality = make_dicom(FILM, bits=12, ModalityLUTSequence=lut(0, ramp, 12), WindowCenter=2000, WindowWidth=4000)
    assert np.abs(show(modality) - np.clip((ramp[FILM] - 1999.5) / 3999 + 0.5, 0, 1) * 255).max() <= 0.5


@pytest.mark.parametrize("descriptor", [[4096, 0, 0], [4097, 0, 12], [0, 0, 16]])
def test_a_table_that_contradicts_itself_is_malformed(descriptor: list[int]) -> None:
    sequence = lut(0, np.arange(4096, dtype=np.uint16), 12)
    sequence[0].LUTDescriptor = descriptor
    assert code_of(make_dicom(FILM, bits=12, VOILUTSequence=sequence)) == "malformed_dicom"


def test_without_a_window_the_percentiles_are_black_and_white() -> None:
    shown = show(make_dicom(FILM, bits=12))
    low, high = np.percentile(FILM, (0.5, 99.5))
    assert np.abs(shown - np.clip((FILM - low) / (high - low), 0, 1) * 255).max() <= 0.5


def test_padding_does_not_count_for_the_percentiles() -> None:
    padded = FILM.copy()
    padded[:, :30] = 4000
    with_tag = show(make_dicom(padded, bits=12, PixelPaddingValue=3990, PixelPaddingRangeLimit=4095))
    inside = padded[(padded < 3990)]
    low, high = np.percentile(inside, (0.5, 99.5))
    assert np.abs(with_tag - np.clip((padded - low) / (high - low), 0, 1) * 255).max() <= 0.5


def test_8_bits_without_a_window_are_shown_as_they_are_from_dicom_png_and_jpeg() -> None:
    film = (FILM >> 5).astype(np.uint8)  # uses half of the range
    png = BytesIO()
    Image.fromarray(film).save(png, "PNG")
    assert np.array_equal(show(make_dicom(film)), film)
    assert np.array_equal(show(png.getvalue()), film)
    jpeg = make_dicom(film, syntax=JPEGBaseline8Bit, frame=imagecodecs.jpeg_encode(film, level=95))
    assert np.abs(show(jpeg).astype(int) - film).max() < 12


def test_an_image_of_one_value_is_black() -> None:
    assert not show(make_dicom(np.full((96, 80), 1234, np.uint16), bits=12)).any()


def test_an_inverted_twin_is_the_same_picture() -> None:
    plain = show(make_dicom(FILM, bits=12, WindowCenter=2000, WindowWidth=3000))
    for keyword, value in (("PhotometricInterpretation", "MONOCHROME1"), ("PresentationLUTShape", "INVERSE")):
        tag: dict[str, Any] = {keyword: value}
        twin = make_dicom(4095 - FILM, bits=12, WindowCenter=4096 - 2000, WindowWidth=3000, **tag)
        assert np.array_equal(show(twin), plain)
    both = make_dicom(FILM, bits=12, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    assert np.array_equal(show(both), 255 - show(make_dicom(FILM, bits=12)))


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height_px", "width_px"), [(96, 80), (211, 169), (1001, 333), (333, 1001), (640, 641)])
def test_a_rendition_is_never_enlarged_and_its_boxes_come_back(height_px: int, width_px: int) -> None:
    film = np.zeros((height_px, width_px), np.uint16)
    box = np.array([0.25 * width_px, 0.5 * height_px, 0.75 * width_px, 0.9 * height_px]).astype(int)
    film[box[1] : box[3], box[0] : box[2]] = 4095
    data = make_dicom(film, bits=12, WindowCenter=2048, WindowWidth=4096)
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
    assert np.abs(found * np.tile(rendition.scale_xy, 2) - box).max() < 0.05


def test_a_size_scales_back_exactly() -> None:
    rendition = Rendition(b"", 1024, 964, 1955, 1841)
    assert rendition.scale_xy == (1841 / 964, 1955 / 1024)
    assert rendition.version == RENDITION_VERSION


def test_shrinking_before_the_window_is_within_one_level_of_the_other_order() -> None:
    film = make_film(512, 448)
    data = make_dicom(film, bits=12, WindowCenter=2000, WindowWidth=4500)
    small, full = show(data, 128), show(data, 512).astype(float)
    averaged = full.reshape(128, 4, 112, 4).mean(axis=(1, 3))
    assert np.abs(small - averaged).max() <= 1


@pytest.mark.parametrize("data", [b"", b"no png"])
def test_a_rendition_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(PermanentError):
        read_rendition(data)
