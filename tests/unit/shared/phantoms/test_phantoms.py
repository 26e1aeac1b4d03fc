"""The phantoms: the same for a seed, true to their labels, and correct as DICOM."""

import hashlib
import io
from collections import Counter

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.pixels.processing import apply_windowing

from deploy.tools.fit_phantom_figures import fit, read_rows
from shared.errors import PermanentError
from shared.imaging.rendition import make_rendition, read_rendition
from shared.phantoms import (
    CLASS_NAMES,
    TRANSFER_SYNTAXES,
    bad_files,
    demo_studies,
    encode_dicom,
    make_phantom,
    stored_values,
)
from shared.phantoms.figures import FIGURES
from tests.requirements import SHARED_DATA

LABELS = SHARED_DATA / "vinbigdata/train.csv.gz"
SMALL = {"height_px": 256, "width_px": 214}


def test_a_seed_gives_the_same_image_and_file() -> None:
    first, again, other = make_phantom(7, **SMALL), make_phantom(7, **SMALL), make_phantom(8, **SMALL)
    assert np.array_equal(first.pixels, again.pixels)
    assert first.lesions == again.lesions
    assert not np.array_equal(first.pixels, other.pixels)
    assert encode_dicom(first, transfer_syntax="deflated") == encode_dicom(again, transfer_syntax="deflated")


@pytest.mark.parametrize(("height_px", "width_px"), [(512, 430), (300, 400), (1500, 1250)])
def test_pixels_and_boxes_fit_the_image(height_px: int, width_px: int) -> None:
    for seed in range(6):
        phantom = make_phantom(seed, height_px, width_px, range(14) if seed == 0 else None)
        assert phantom.pixels.shape == (height_px, width_px)
        assert phantom.pixels.dtype == np.float32
        assert phantom.pixels.min() >= 0
        assert phantom.pixels.max() <= 1
        for lesion in phantom.lesions:
            x_min, y_min, x_max, y_max = lesion.box_xyxy_px
            assert 0 <= x_min < x_max <= width_px
            assert 0 <= y_min < y_max <= height_px
            assert max(x_max - x_min, y_max - y_min) >= 0.025 * width_px
            assert lesion.class_name == CLASS_NAMES[lesion.class_id]


def test_a_image_is_the_same_at_another_size() -> None:
    """Grain aside, an image is its own enlargement, with its boxes."""
    for seed in (1, 3, 5):
        small, large = make_phantom(seed, 480, 400), make_phantom(seed, 960, 800)
        shrunk = cv2.resize(large.pixels, (400, 480), interpolation=cv2.INTER_AREA)
        difference = cv2.blur(small.pixels, (5, 5)) - cv2.blur(shrunk, (5, 5))
        assert np.abs(difference).mean() < 0.01
        assert [lesion.class_id for lesion in small.lesions] == [lesion.class_id for lesion in large.lesions]
        for one, two in zip(small.lesions, large.lesions, strict=True):
            assert np.allclose(np.array(one.box_xyxy_px) * 2, two.box_xyxy_px, atol=8)


@pytest.mark.parametrize("class_id", range(14))
def test_a_lesion_changes_the_image_inside_its_box(class_id: int) -> None:
    """What a lesion adds is within its box, but for the edges that its box's threshold leaves out."""
    for seed in (11, 12, 13):
        healthy, ill = make_phantom(seed, 512, 430, ()), make_phantom(seed, 512, 430, (class_id,))
        assert healthy.lesions == ()
        (lesion,) = ill.lesions
        assert lesion.class_id == class_id
        change = np.abs(cv2.blur(ill.pixels - healthy.pixels, (5, 5)))
        x_min, y_min, x_max, y_max = (round(value) for value in lesion.box_xyxy_px)
        margin = 12
        inside = np.zeros_like(change, bool)
        inside[max(0, y_min - margin) : y_max + margin, max(0, x_min - margin) : x_max + margin] = True
        assert change[inside].max() > 0.08
        assert change[~inside].sum() < 0.1 * change.sum()


def test_classes_come_as_often_as_they_should() -> None:
    images = [make_phantom(seed, **SMALL) for seed in range(120)]
    counts = [len(image.lesions) for image in images]
    assert 0.6 < np.mean([count > 0 for count in counts]) < 0.8
    assert max(counts) <= 4
    seen = Counter(lesion.class_id for image in images for lesion in image.lesions)
    assert set(seen) == set(range(14))
    common, rare = (0, 3, 11, 13), (1, 4, 5, 12)
    assert sum(seen[c] for c in common) > 1.5 * sum(seen[c] for c in rare)


def test_monochrome1_is_the_exact_inverse() -> None:
    phantom = make_phantom(3, **SMALL)
    for bits in (8, 12, 16):
        files = (encode_dicom(phantom, bits_stored=bits, photometric=p) for p in ("MONOCHROME1", "MONOCHROME2"))
        one, two = (pydicom.dcmread(io.BytesIO(file)).pixel_array.astype(int) for file in files)
        assert np.array_equal(one, 2**bits - 1 - two)


@pytest.mark.parametrize("transfer_syntax", TRANSFER_SYNTAXES)
@pytest.mark.parametrize("bits_stored", [8, 12, 16])
def test_each_transfer_syntax_decodes_to_the_stored_values(transfer_syntax: str, bits_stored: int) -> None:
    phantom = make_phantom(5, 201, 171)
    file = encode_dicom(phantom, bits_stored=bits_stored, transfer_syntax=transfer_syntax)
    dataset = pydicom.dcmread(io.BytesIO(file))
    assert np.array_equal(dataset.pixel_array, stored_values(phantom, bits_stored, "MONOCHROME2"))
    assert dataset.PatientID == "PHANTOM-5"
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert all(element.value.is_valid for element in dataset if element.VR == "UI")


def test_the_window_shows_the_whole_range() -> None:
    dataset = pydicom.dcmread(io.BytesIO(encode_dicom(make_phantom(5, **SMALL), bits_stored=12)))
    shown = apply_windowing(dataset.pixel_array, dataset)
    assert np.allclose(shown, dataset.pixel_array, atol=1)


def test_the_demo_varies_in_every_way() -> None:
    studies = list(demo_studies(8))
    assert next(demo_studies(1))[:2] == studies[0][:2]
    datasets = [pydicom.dcmread(io.BytesIO(file), stop_before_pixels=True) for _, file, _ in studies]
    assert {dataset.BitsStored for dataset in datasets} == {8, 12, 16}
    assert {dataset.PhotometricInterpretation for dataset in datasets} == {"MONOCHROME1", "MONOCHROME2"}
    assert len({dataset.file_meta.TransferSyntaxUID for dataset in datasets}) == len(TRANSFER_SYNTAXES)
    assert len({dataset.SOPInstanceUID for dataset in datasets}) == len(studies)
    assert len({hashlib.sha256(file).digest() for _, file, _ in studies}) == len(studies)
    assert max(dataset.Rows for dataset in datasets) == 3000


@pytest.mark.parametrize(("file", "code"), [pytest.param(file, code, id=name) for name, file, code in bad_files()])
def test_a_bad_file_is_turned_away_under_its_code(file: bytes, code: str) -> None:
    with pytest.raises(PermanentError) as caught:
        make_rendition(file, rendition_px=256, max_image_pixels=4_000_000)
    assert caught.value.code == code


def test_a_study_is_rendered_as_it_was_drawn() -> None:
    """Nothing of the image is lost on the way through DICOM and the decoder but the rounding to 8 bits."""
    for _, file, phantom in demo_studies(3):
        rendition = make_rendition(file, rendition_px=256, max_image_pixels=4_000_000)
        seen = read_rendition(rendition.png)
        drawn = cv2.resize(phantom.pixels, seen.shape[::-1], interpolation=cv2.INTER_AREA) * 255
        assert np.abs(drawn - seen).mean() < 0.6


@pytest.mark.needs("shared/data")
def test_the_figures_follow_from_the_table() -> None:
    expected = fit(read_rows(LABELS))
    assert len(expected) == len(FIGURES)
    for entry, figures in zip(expected, FIGURES, strict=True):
        assert {key: getattr(figures, key) for key in entry} == {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
        }
