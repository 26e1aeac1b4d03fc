"""The size and the shape of pixels, each rule with a header of its own."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from shared.imaging.dicom_file import KEPT, read_dicom
from shared.imaging.facts import PixelSpacing, SpacingSource
from shared.imaging.geometry import Geometry, read_geometry, rendition_size
from shared.imaging.rendition import make_rendition, read_rendition
from tests.requirements import SHARED_DATA
from tests.synthetic_dicom import MAX_PIXELS, make_dicom

BLANK = np.zeros((64, 64), np.uint8)

CALIBRATED, DETECTOR = SpacingSource.CALIBRATED, SpacingSource.DETECTOR
FILM, UNSPECIFIED = SpacingSource.FILM, SpacingSource.UNSPECIFIED


def read(**elements: object) -> Geometry:
    file = read_dicom(make_dicom(BLANK, **elements), max_bytes=10**6)
    return read_geometry(file)


def spaced(row_mm: float, column_mm: float, source: SpacingSource) -> PixelSpacing:
    return PixelSpacing(row_mm=row_mm, column_mm=column_mm, source=source)


def as_written(keyword: str, *values: str) -> Geometry:
    """What is read where an element holds exactly these characters, which pydicom would not write."""
    width = max(len("\\".join(values)), 1)
    placeholder = "7" * width + " " * (width % 2)
    data = make_dicom(BLANK, ImageComments=placeholder)
    tag = {"PixelSpacing": b"\x28\x00\x30\x00DS", "PixelAspectRatio": b"\x28\x00\x34\x00IS"}[keyword]
    # The element takes the place of one that comes before the pixels and is as long.
    text = "\\".join(values).encode().ljust(len(placeholder))
    comments = b"\x20\x00\x00\x40LT"
    assert data.count(comments) == 1
    swapped = data.replace(comments, tag).replace(placeholder.encode(), text)
    return read_geometry(read_dicom(swapped, max_bytes=10**6))


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, None),
        ({"PixelSpacing": [0.2, 0.1]}, spaced(0.2, 0.1, UNSPECIFIED)),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, spaced(0.2, 0.1, DETECTOR)),
        ({"NominalScannedPixelSpacing": [0.2, 0.1]}, spaced(0.2, 0.1, FILM)),
        # Uncorrected, it is the same as the receptor's own; else it is corrected, whether or not a type says so.
        ({"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.2, 0.2]}, spaced(0.2, 0.2, DETECTOR)),
        ({"PixelSpacing": [0.2, 0.2], "NominalScannedPixelSpacing": [0.2, 0.2]}, spaced(0.2, 0.2, FILM)),
        ({"PixelSpacing": [0.19, 0.19], "ImagerPixelSpacing": [0.2, 0.2]}, spaced(0.19, 0.19, CALIBRATED)),
        ({"PixelSpacing": [0.19, 0.19], "NominalScannedPixelSpacing": [0.2, 0.2]}, spaced(0.19, 0.19, CALIBRATED)),
        ({"PixelSpacing": [0.143, 0.143], "ImagerPixelSpacing": [0.1434, 0.1434]}, spaced(0.143, 0.143, DETECTOR)),
        ({"PixelSpacing": [0.19, 0.2], "ImagerPixelSpacing": [0.2, 0.2]}, spaced(0.19, 0.2, CALIBRATED)),
        # Nothing is larger in the patient than on the detector.
        ({"PixelSpacing": [0.4, 0.4], "ImagerPixelSpacing": [0.2, 0.2]}, spaced(0.4, 0.4, UNSPECIFIED)),
        # The detector goes before the image, where a file has both.
        (
            {"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.2, 0.2], "NominalScannedPixelSpacing": [0.3, 0.3]},
            spaced(0.2, 0.2, DETECTOR),
        ),
        ({"ImagerPixelSpacing": [0.2, 0.2], "NominalScannedPixelSpacing": [0.3, 0.3]}, spaced(0.2, 0.2, DETECTOR)),
    ],
)
def test_where_a_spacing_was_measured_follows_from_what_it_agrees_with(
    elements: dict[str, object], expected: PixelSpacing | None
) -> None:
    assert read(**elements).spacing == expected


@pytest.mark.parametrize("type_", ["GEOMETRY", "FIDUCIAL"])
def test_a_calibration_is_believed(type_: str) -> None:
    said = read(PixelSpacing=[0.2, 0.2], PixelSpacingCalibrationType=type_, ImagerPixelSpacing=[0.2, 0.2])
    assert said.spacing == spaced(0.2, 0.2, CALIBRATED)


def test_a_calibration_of_no_kind_that_there_is_says_nothing() -> None:
    assert read(PixelSpacing=[0.2, 0.2], PixelSpacingCalibrationType="GUESS").spacing == spaced(0.2, 0.2, UNSPECIFIED)


def test_an_estimated_magnification_changes_nothing() -> None:
    said = read(ImagerPixelSpacing=[0.2, 0.2], EstimatedRadiographicMagnificationFactor=1.1)
    assert said.spacing == spaced(0.2, 0.2, DETECTOR)
    assert "EstimatedRadiographicMagnificationFactor" not in KEPT


@pytest.mark.parametrize(
    "values",
    [
        ("0", "0"),
        ("0.000", "0.000"),  # as one of the images in the test collections has it
        ("-0.2", "-0.2"),
        ("nan", "nan"),
        ("inf", "0.2"),
        ("5.01", "5.01"),
        ("0.009", "0.009"),
        ("143", "143"),  # micrometres
        ("0.2",),
        ("0.2", ""),
        ("0.2", "0.2", "0.2"),
        ("0,2", "0,2"),
        ("fine",),
        ("0.1", "0.5"),
        ("",),
    ],
)
def test_a_spacing_that_cannot_be_is_none(values: tuple[str, ...]) -> None:
    assert as_written("PixelSpacing", *values) == Geometry()


def test_a_spacing_that_can_be_is_read_as_it_is_written() -> None:
    assert as_written("PixelSpacing", "0.2", "0.1") == Geometry(spaced(0.2, 0.1, UNSPECIFIED), 2.0)
    assert as_written("PixelSpacing", " 2e-1 ", " 0.1").spacing == spaced(0.2, 0.1, UNSPECIFIED)


def test_what_cannot_be_makes_room_for_what_can() -> None:
    assert read(PixelSpacing=[0, 0], ImagerPixelSpacing=[0.2, 0.2]).spacing == spaced(0.2, 0.2, DETECTOR)
    assert read(ImagerPixelSpacing=[9, 9], NominalScannedPixelSpacing=[0.2, 0.2]).spacing == spaced(0.2, 0.2, FILM)
    assert read(PixelSpacing=[0.2, 0.2], ImagerPixelSpacing=[0, 0]).spacing == spaced(0.2, 0.2, UNSPECIFIED)


@pytest.mark.parametrize("keyword", ["PixelSpacing", "PixelSpacingCalibrationType", "PixelAspectRatio"])
def test_an_element_of_a_kind_that_it_cannot_be_is_none(keyword: str) -> None:
    file = read_dicom(make_dicom(BLANK), max_bytes=10**6)
    file.dataset.add_new(keyword, "SQ", [Dataset()])
    assert read_geometry(file) == Geometry()


@pytest.mark.parametrize(
    ("elements", "aspect"),
    [
        ({}, 1.0),
        ({"PixelSpacing": [0.3, 0.25]}, 1.2),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, 0.5),
        ({"PixelAspectRatio": [6, 5]}, 1.2),
        ({"PixelAspectRatio": [1, 4]}, 0.25),
        ({"PixelAspectRatio": [1, 1]}, 1.0),
        # A size goes before a shape.
        ({"PixelSpacing": [0.2, 0.2], "PixelAspectRatio": [2, 1]}, 1.0),
        ({"PixelSpacing": [0, 0], "PixelAspectRatio": [2, 1]}, 2.0),
        # As headers round it.
        ({"ImagerPixelSpacing": ["1.2", "1.2011999999999"]}, 1.0),
        ({"PixelAspectRatio": [1000, 1001]}, 1.0),
        # Shapes that no detector has.
        ({"PixelAspectRatio": [41, 10]}, 1.0),
        ({"PixelAspectRatio": [10, 41]}, 1.0),
        ({"PixelAspectRatio": [0, 1]}, 1.0),
        ({"PixelAspectRatio": [-1, -1]}, 1.0),
        ({"PixelAspectRatio": [2]}, 1.0),
    ],
)
def test_a_pixels_shape(elements: dict[str, Any], aspect: float) -> None:
    assert read(**elements).aspect == pytest.approx(aspect)


@pytest.mark.parametrize(
    ("size", "longest_px", "aspect", "expected"),
    [
        ((3001, 2999), 1024, 1.0, (1024, 1023)),
        ((300, 200), 1024, 1.0, (300, 200)),
        ((300, 200), 1024, 2.0, (300, 100)),  # oblong, upright: as many rows, half as many columns
        ((300, 200), 1024, 0.5, (150, 200)),
        ((300, 200), 150, 2.0, (150, 50)),
        ((1000, 4000), 1000, 4.0, (1000, 1000)),
        ((64, 10001), 100, 1.0, (1, 100)),
        ((64, 10001), 100, 0.25, (1, 100)),
    ],
)
def test_a_rendition_has_square_pixels_and_is_never_enlarged(
    size: tuple[int, int], longest_px: int, aspect: float, expected: tuple[int, int]
) -> None:
    assert rendition_size(*size, longest_px, aspect) == expected


def test_a_rendition_keeps_the_proportions_to_half_a_pixel() -> None:
    random = np.random.default_rng(5)
    for _ in range(500):
        height_px, width_px, longest_px = (int(side) for side in random.integers(64, 5000, 3))
        aspect = float(np.exp(random.uniform(-1.38, 1.38)))
        height, width = rendition_size(height_px, width_px, longest_px, aspect)
        assert height <= min(height_px, longest_px)
        assert width <= min(width_px, longest_px)
        # What one of its pixels shows is as high as it is wide, but for what rounding takes of either side.
        shown = (height_px / height) / (width_px / aspect / width)
        assert abs(np.log(shown)) <= 1.1 * (0.5 / height + 0.5 / width) or 1 in (height, width)


@pytest.mark.parametrize("spacing", [(0.2, 0.1), (0.1, 0.2), (0.14, 0.2), (0.2, 0.2)])
@pytest.mark.parametrize("longest_px", [128, 1024])
def test_what_is_round_in_the_patient_is_round_in_the_rendition(spacing: tuple[float, float], longest_px: int) -> None:
    """A disc of 30 mm, as a detector with oblong pixels would show it."""
    down, across = (np.arange(401) - 200.0) * spacing[0], (np.arange(455) - 227.0) * spacing[1]
    disc = np.where(np.hypot(*np.meshgrid(across, down)) < 15, 4000, 40).astype(np.uint16)
    data = make_dicom(disc, bits=12, WindowCenter=2048, WindowWidth=4096, PixelSpacing=list(spacing))
    rendition = make_rendition(data, rendition_px=longest_px, max_image_pixels=MAX_PIXELS)
    pixels = read_rendition(rendition.png)
    assert rendition.facts.spacing == spaced(*spacing, UNSPECIFIED)
    bright = pixels > 128
    height, width = bright.any(axis=1).sum(), bright.any(axis=0).sum()
    assert height == pytest.approx(width, abs=2)
    assert bright.sum() / (height * width) == pytest.approx(np.pi / 4, abs=0.04)


@pytest.mark.needs("shared/data")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chest/rsna_CR_mono2_8bit_jpegbaseline", spaced(0.168, 0.168, UNSPECIFIED)),
        ("chest/wg04_RG1_JLSN_chest_PA_mono1_15bit", None),  # which says 0.000
        ("other/highdicom_DX_dog_thorax_mono1", spaced(1.2, 1.201199999999, DETECTOR)),
        ("other/wg04_RG3_UNC", None),
    ],
)
def test_real_images(name: str, expected: PixelSpacing | None) -> None:
    file = read_dicom((SHARED_DATA / f"dicom/{name}.dcm").read_bytes(), max_bytes=10**7)
    assert read_geometry(file) == Geometry(expected)


def test_a_picture_has_no_spacing() -> None:
    """Densities of PNG and JPEG are hints for printers."""
    for kind in ("PNG", "JPEG"):
        file = BytesIO()
        Image.fromarray(np.full((80, 90), 7, np.uint8)).save(file, kind, dpi=(300, 150))
        rendition = make_rendition(file.getvalue(), rendition_px=1024, max_image_pixels=MAX_PIXELS)
        assert rendition.facts.spacing is None
        assert (rendition.height_px, rendition.width_px) == (80, 90)
