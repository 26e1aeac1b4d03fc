"""The grey-level chain, rule by rule as `docs/imaging.md` states them; expected levels were computed by hand."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from shared.imaging.grey_levels import percentiles
from tests.rendering import chain_of, image_of, levels_of, show, table
from tests.synthetic_dicom import make_dicom, make_image

IMAGE = make_image()
SIGNED = (IMAGE.astype(np.int32) - 2048).astype(np.int16)


def by_pydicom(data: bytes) -> NDArray[np.floating]:
    """pydicom's own chain, scaled to 0–255 by the range that its window has."""
    dataset = dcmread(BytesIO(data))
    values = apply_modality_lut(dataset.pixel_array, dataset)
    with np.errstate(over="ignore"):  # far below a steep sigmoid
        shown = apply_voi_lut(values, dataset).astype(np.float64)
    every = np.arange(2**dataset.BitsStored) - (2 ** (dataset.BitsStored - 1) if dataset.PixelRepresentation else 0)
    ends = apply_modality_lut(every[[0, -1]], dataset)
    return np.asarray(255 * (shown - ends[0]) / (ends[1] - ends[0]))


# --- windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "center", "width", "expected"),
    [
        # The first three are the examples of PS3.3 C.11.2.1.2.1.
        ("LINEAR", 0, 100, {-51: 0, -50: 0, -1: 126, 0: 129, 48: 252, 49: 255, 50: 255}),
        ("LINEAR", 2048, 4096, {0: 0, 1024: 64, 2047: 127, 2048: 128, 4095: 255}),
        ("LINEAR", 2048, 1, {0: 0, 2047: 0, 2048: 255}),
        ("LINEAR", 2048.5, 1, {2047: 0, 2048: 0, 2049: 255}),  # at the step itself it is still black
        ("LINEAR_EXACT", 0, 100, {-50: 0, -25: 64, 0: 128, 25: 191, 50: 255}),
        ("LINEAR_EXACT", 2048, 4096, {0: 0, 1024: 64, 2048: 128, 4080: 254}),
        ("LINEAR_EXACT", 2048, 0.5, {2047: 0, 2048: 128, 2049: 255}),
        ("SIGMOID", 100, 40, {0: 0, 90: 69, 100: 128, 110: 186, 140: 250, 300: 255}),
        (None, 0, 100, {-50: 0, 0: 129, 49: 255}),
        ("OF_TOMORROW", 0, 100, {-50: 0, 0: 129, 49: 255}),
    ],
)
def test_a_window_shows_what_its_formula_says(
    function: str | None, center: float, width: float, expected: dict[int, int]
) -> None:
    elements = {"VOILUTFunction": function} if function else {}
    shown = levels_of([*expected], np.int16, bits=13, WindowCenter=center, WindowWidth=width, **elements)
    assert dict(zip(expected, shown, strict=True)) == expected


@settings(max_examples=150)
@given(
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    bits=st.integers(9, 16),
    signed=st.booleans(),
    slope=st.sampled_from([1, -1, 0.5, 2.5, -0.125]),
    intercept=st.sampled_from([0, -1024, 4095.5]),
    place=st.floats(-0.2, 1.2),
    share=st.floats(0.0005, 2),
)
def test_a_window_is_what_pydicom_makes_of_it(
    function: str, bits: int, signed: bool, slope: float, intercept: float, place: float, share: float
) -> None:
    lowest = -(2 ** (bits - 1)) if signed else 0
    image = (make_image(bits=bits).astype(np.int64) + lowest).astype(np.int16 if signed else np.uint16)
    width = max(1, round(share * abs(slope) * 2**bits, 3))
    center = round((lowest + place * 2**bits) * slope + intercept, 3)
    data = make_dicom(
        image,
        bits=bits,
        VOILUTFunction=function,
        WindowCenter=[center, 1],
        WindowWidth=[width, 2],
        RescaleSlope=slope,
        RescaleIntercept=intercept,
    )
    expected = by_pydicom(data)
    if expected.max() - expected.min() > 1:  # a window beside all values is another test's
        assert np.abs(show(data) - expected).max() <= 1


def test_the_first_window_that_the_standard_allows_is_taken_and_named() -> None:
    data = image_of([0, 10, 20], WindowCenter=[5, 10.5, 0], WindowWidth=[0, 21, 1], bits=12)
    assert list(show(data)[0, :3]) == [0, 128, 255]
    assert chain_of(data) == ["window 2 of 3: centre 10.5, width 21 (LINEAR)"]


@pytest.mark.parametrize(
    ("width", "function"),
    [
        (0.5, "LINEAR"),
        (0, "LINEAR_EXACT"),
        (-100, "SIGMOID"),
        ("1e300", "SIGMOID"),
        ("NaN", "LINEAR"),
        ("1e999", "LINEAR"),
    ],
)
def test_a_window_that_the_standard_forbids_counts_as_absent(width: float | str, function: str) -> None:
    data = make_dicom(IMAGE, bits=12, WindowCenter=2000, WindowWidth="12345", VOILUTFunction=function)
    data = data.replace(b"12345 ", str(width).encode().ljust(6))
    assert np.array_equal(show(data), show(make_dicom(IMAGE, bits=12)))


def test_a_window_beside_all_values_counts_as_absent_and_is_said_to() -> None:
    data = make_dicom(IMAGE, bits=12, WindowCenter=60000, WindowWidth=10)
    assert np.array_equal(show(data), show(make_dicom(IMAGE, bits=12)))
    left_out, stretched = chain_of(data)
    assert left_out == "window 1 of 1: centre 60000, width 10 (LINEAR), shows nothing, left out"
    assert stretched.startswith("percentiles 0.5 to 99.5: ")


# --- modality --------------------------------------------------------------------------------------------------------


def test_a_window_is_of_rescaled_values() -> None:
    tags: dict[str, Any] = {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": 1000, "WindowWidth": 400, "bits": 12}
    data = image_of([900, 950, 1000, 1100], RescaleSlope=2, RescaleIntercept=-1000, **tags)
    assert list(show(data)[0, :4]) == [0, 64, 128, 255]
    assert chain_of(data)[0] == "rescale: slope 2, intercept -1000"
    assert levels_of([900, 950, 1000, 1100], RescaleSlope=-1, RescaleIntercept=2000, **tags) == [191, 159, 128, 64]


@pytest.mark.parametrize(("slope", "intercept"), [("0", "5"), ("1e999", "5"), ("1", "-1e999"), ("NaN", "5")])
def test_a_rescale_that_leaves_nothing_counts_as_absent(slope: str, intercept: str) -> None:
    data = image_of([0, 2048, 4095], bits=12, RescaleSlope="123456", RescaleIntercept="654321")
    data = data.replace(b"123456", slope.encode().ljust(6)).replace(b"654321", intercept.encode().ljust(6))
    assert chain_of(data) == ["percentiles 0.5 to 99.5: 0, 4095"]


def test_a_modality_table_goes_before_a_rescale_and_a_window_is_of_its_entries() -> None:
    tags: dict[str, Any] = {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": 25, "WindowWidth": 40, "bits": 12}
    modality = table(5, [10, 20, 30, 40], 8)
    data = image_of([0, 4, 5, 6, 8, 9], ModalityLUTSequence=modality, RescaleSlope=7, RescaleIntercept=7, **tags)
    assert list(show(data)[0, :6]) == [32, 32, 32, 96, 223, 223]
    assert chain_of(data)[0] == "modality LUT: 4 entries from 5, 8 bits"


# --- without a window ------------------------------------------------------------------------------------------------


def test_without_a_window_the_percentiles_are_black_and_white() -> None:
    data = make_dicom(IMAGE, bits=12)
    low, high = np.percentile(IMAGE, (0.5, 99.5))
    assert np.abs(show(data) - np.clip((IMAGE - low) / (high - low), 0, 1) * 255).max() <= 0.5
    assert chain_of(data) == [f"percentiles 0.5 to 99.5: {low:.10g}, {high:.10g}"]


@given(values=st.lists(st.integers(-50, 50), min_size=1, max_size=300), rank=st.floats(0, 50))
def test_percentiles_by_counting_are_those_by_sorting(values: list[int], rank: float) -> None:
    distinct, counts = np.unique(values, return_counts=True)
    mixed = np.random.default_rng(len(values)).permutation(len(distinct))
    found = percentiles(distinct[mixed].astype(np.float64), counts[mixed], (rank, 100 - rank))
    assert found == pytest.approx(np.percentile(values, (rank, 100 - rank)), abs=1e-9)


def test_where_nearly_all_is_one_value_the_lowest_is_black_and_the_highest_white() -> None:
    image = np.full((64, 64), 1000, np.uint16)
    image[0, :3] = 500, 750, 1500
    data = make_dicom(image, bits=12)
    assert list(show(data)[0, :4]) == [0, 64, 255, 128]
    assert chain_of(data) == ["lowest to highest: 500, 1500"]


def test_an_image_of_one_value_is_black() -> None:
    for tags in ({}, {"WindowCenter": 500, "WindowWidth": 100}, {"PhotometricInterpretation": "MONOCHROME1"}):
        data = image_of([1234], bits=12, **tags)
        assert not show(data).any()
        assert "one value: black" in chain_of(data)


def test_8_bits_without_a_window_are_shown_as_they_are_from_dicom_and_png() -> None:
    image = (IMAGE >> 5).astype(np.uint8)  # uses half of the range
    png = BytesIO()
    Image.fromarray(image).save(png, "PNG")
    for data in (make_dicom(image), png.getvalue()):
        assert np.array_equal(show(data), image)
        assert chain_of(data) == ["full range: centre 128, width 256 (LINEAR)"]
    assert levels_of([0, 21, 63], np.uint8, bits=6) == [0, 85, 255]
    for deeper in (image_of([0, 21, 63], bits=9), image_of([0, 21, 63], np.int8, bits=8, PixelRepresentation=1)):
        assert chain_of(deeper) == ["percentiles 0.5 to 99.5: 0, 63"]


@pytest.mark.parametrize("relationship", ["LIN", "LOG", "DOE^JANE"])
def test_an_image_for_processing_is_shown_as_it_is_stored_and_said_to_be(relationship: str) -> None:
    tags = {"PresentationIntentType": "FOR PROCESSING", "PixelIntensityRelationship": relationship}
    data = make_dicom(IMAGE, bits=12, PixelIntensityRelationshipSign=1, **tags)
    assert np.array_equal(show(data), show(make_dicom(IMAGE, bits=12)))
    known = "unknown" if relationship == "DOE^JANE" else relationship
    assert chain_of(data)[0] == f"for processing: shown unprocessed, pixel intensity {known}"


# --- inversion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("photometric", "shape", "reason"),
    [
        ("MONOCHROME2", None, None),
        ("MONOCHROME2", "IDENTITY", None),
        ("MONOCHROME1", None, "MONOCHROME1"),
        ("MONOCHROME1", "INVERSE", "MONOCHROME1"),  # as they belong together: not twice
        ("MONOCHROME1", "IDENTITY", "MONOCHROME1, against a presentation LUT shape of IDENTITY"),
        ("MONOCHROME2", "INVERSE", "presentation LUT shape INVERSE, against MONOCHROME2"),
        (None, None, None),
    ],
)
def test_what_asks_for_inversion_gets_it_once(photometric: str | None, shape: str | None, reason: str | None) -> None:
    elements: dict[str, Any] = {"PhotometricInterpretation": photometric, "WindowCenter": 10.5, "WindowWidth": 21}
    if shape:
        elements["PresentationLUTShape"] = shape
    data = image_of([0, 5, 20], bits=12, **elements)
    assert list(show(data)[0, :3]) == ([255, 191, 0] if reason else [0, 64, 255])
    assert chain_of(data)[1:] == ([f"inverted: {reason}"] if reason else [])


def test_an_inverted_twin_is_the_same_picture() -> None:
    plain = show(make_dicom(IMAGE, bits=12, WindowCenter=2000, WindowWidth=3000))
    tags: dict[str, Any] = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 4096 - 2000}
    assert np.array_equal(show(make_dicom(4095 - IMAGE, bits=12, WindowWidth=3000, **tags)), plain)
    both = make_dicom(IMAGE, bits=12, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(show(both), 255 - show(make_dicom(IMAGE, bits=12)))


# --- what is left alone ----------------------------------------------------------------------------------------------


def test_a_presentation_table_an_overlay_and_nested_images_change_nothing() -> None:
    nested = Dataset()
    nested.Rows, nested.Columns, nested.WindowCenter, nested.WindowWidth = 1, 1, 1, 1
    nested.PhotometricInterpretation, nested.PixelData = "MONOCHROME1", b"\0\0"
    nested["PixelData"].VR = "OW"
    frames = Dataset()
    frames.FrameVOILUTSequence, frames.PixelValueTransformationSequence = [nested], table(0, [9, 8, 7], 8)
    dataset = dcmread(BytesIO(make_dicom(IMAGE, bits=12)))
    for number, value in ((0x10, 96), (0x11, 80), (0x100, 1), (0x102, 0)):
        dataset.add_new((0x6000, number), "US", value)
    dataset.add_new((0x6000, 0x50), "SS", [1, 1])
    dataset.add_new((0x6000, 0x3000), "OW", b"\xff" * (96 * 80 // 8))
    dataset.IconImageSequence, dataset.SharedFunctionalGroupsSequence = [nested], [frames]
    dataset.PresentationLUTSequence = table(0, np.arange(4096)[::-1], 12)
    buffer = BytesIO()
    dataset.save_as(buffer)
    assert np.array_equal(show(buffer.getvalue()), show(make_dicom(IMAGE, bits=12)))


def test_no_text_of_the_file_gets_into_the_words() -> None:
    name = "DOE^JANE"
    elements: dict[str, Any] = {
        "WindowCenter": 2000,
        "WindowWidth": 3000,
        "WindowCenterWidthExplanation": name,
        "VOILUTFunction": name,
        "PresentationLUTShape": name,
        "RescaleSlope": 2,
        "RescaleIntercept": 0,
        "RescaleType": name,
    }
    chain = chain_of(make_dicom(IMAGE, bits=12, **elements))
    assert chain == ["rescale: slope 2, intercept 0", "window 1 of 1: centre 2000, width 3000 (LINEAR)"]
