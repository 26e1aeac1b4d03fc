"""Which images are flagged, by what they show."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from shared.errors import ChestClassifierUnusable
from shared.imaging.chest_classifier.classifier import (
    CARD_FILE,
    SHIPPED,
    WEIGHTS_FILE,
    ChestClassifier,
    load_classifier,
)
from shared.imaging.rendition import make_rendition
from shared.imaging.suitability import judge
from shared.phantoms import demo_studies, encode_dicom, make_phantom
from shared.vocabulary.flags import Flag
from tests.synthetic_dicom import MAX_PIXELS, make_dicom

#: A seed that nothing was trained on.
CHEST = np.rint(255 * make_phantom(17, 640, 540).pixels).astype(np.uint8)


def flags(picture: NDArray[np.uint8], *tagged: Flag) -> list[Flag]:
    height_px, width_px = picture.shape
    return judge(tagged, np.ascontiguousarray(picture), height_px, width_px, load_classifier())[0]


def test_a_chest_as_it_should_be_is_not_flagged() -> None:
    assert flags(CHEST) == []


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_chest_that_lies_in_another_way_is_rotated(quarters: int) -> None:
    assert flags(np.rot90(CHEST, quarters)) == [Flag.ROTATED]


def test_a_negative_is_a_suspected_inversion() -> None:
    assert flags(255 - CHEST) == [Flag.SUSPECTED_INVERSION]


def test_a_mirrored_chest_is_not_flagged() -> None:
    assert flags(CHEST[:, ::-1]) == []


def test_what_is_no_chest_is_none() -> None:
    page = np.full((800, 700), 230, np.uint8)
    for top in range(40, 800, 30):
        cv2.putText(page, "Dear colleague, the image is in the other envelope", (10, top), 0, 0.7, 20, 1)
    assert Flag.NOT_A_CHEST in flags(page)


@pytest.mark.parametrize("grey", [0, 90, 255])
def test_one_grey_is_an_empty_exposure_and_is_not_classified(grey: int) -> None:
    found, scores = judge([], np.full((800, 800), grey, np.uint8), 800, 800, load_classifier())
    assert (found, scores) == ([Flag.EMPTY_EXPOSURE], None)


def test_grain_stretched_to_full_contrast_is_an_empty_exposure() -> None:
    grain = np.random.default_rng(0).normal(2000, 12, (1200, 1000)).astype(np.uint16)
    rendition = make_rendition(make_dicom(grain, bits=12), rendition_px=1024, max_image_pixels=MAX_PIXELS)
    assert Flag.EMPTY_EXPOSURE in rendition.facts.flags


def test_a_chest_with_burnt_lungs_is_clipped_and_one_beside_black_air_is_not() -> None:
    burnt = np.where(CHEST < 130, 0, CHEST).astype(np.uint8)
    assert Flag.CLIPPED_EXPOSURE in flags(burnt)
    bleached = np.where(CHEST > 110, 255, CHEST).astype(np.uint8)
    assert Flag.CLIPPED_EXPOSURE in flags(bleached)
    assert flags(cv2.copyMakeBorder(CHEST, 60, 60, 80, 80, cv2.BORDER_CONSTANT, value=0)) == []


def test_the_originals_shortest_side_makes_a_low_resolution() -> None:
    for side_px, expected in ((511, [Flag.LOW_RESOLUTION]), (512, [])):
        assert judge([], CHEST, 2000, side_px, load_classifier())[0] == expected


def test_a_header_that_says_lateral_is_believed_over_how_the_image_looks() -> None:
    assert flags(255 - CHEST, Flag.LATERAL_VIEW) == [Flag.LATERAL_VIEW]
    assert flags(np.rot90(CHEST), Flag.NOT_A_CHEST) == [Flag.NOT_A_CHEST]


def test_flags_of_tags_and_of_pixels_come_with_the_rendition() -> None:
    file = make_dicom(CHEST.astype(np.uint16) << 4, bits=12, ViewPosition="LL", BodyPartExamined="CHEST")
    facts = make_rendition(file, rendition_px=512, max_image_pixels=MAX_PIXELS).facts
    assert facts.flags == [Flag.LATERAL_VIEW]
    assert facts.chest_scores is not None
    assert facts.chest_scores.classifier == load_classifier().card.weights_sha256[:12]
    assert sum(facts.chest_scores.scores.values()) == pytest.approx(1, abs=1e-3)


def test_a_wrong_photometric_interpretation_is_suspected() -> None:
    right = encode_dicom(make_phantom(23, 640, 540), photometric="MONOCHROME1")
    wrong = right.replace(b"MONOCHROME1 ", b"MONOCHROME2 ").replace(b"INVERSE ", b"IDENTITY")
    for file, expected in ((right, []), (wrong, [Flag.SUSPECTED_INVERSION])):
        assert make_rendition(file, rendition_px=512, max_image_pixels=MAX_PIXELS).facts.flags == expected


def test_the_demos_studies_are_not_flagged() -> None:
    for name, file, _ in demo_studies(3):
        facts = make_rendition(file, rendition_px=512, max_image_pixels=MAX_PIXELS).facts
        assert (name, facts.flags) == (name, [])


def test_the_shipped_classifier_is_small_and_is_what_its_card_names() -> None:
    assert (SHIPPED / WEIGHTS_FILE).stat().st_size < 300_000
    card = ChestClassifier.load(SHIPPED).card
    assert card.fitted_on
    assert card.chosen_on
    assert card.tested_on


def test_weights_that_the_card_does_not_name_are_refused(tmp_path: Path) -> None:
    weights = bytearray((SHIPPED / WEIGHTS_FILE).read_bytes())
    (tmp_path / CARD_FILE).write_bytes((SHIPPED / CARD_FILE).read_bytes())
    with pytest.raises(ChestClassifierUnusable):
        load_classifier(str(tmp_path))
    weights[-1] ^= 1
    (tmp_path / WEIGHTS_FILE).write_bytes(weights)
    with pytest.raises(ChestClassifierUnusable, match="not those that its card names"):
        ChestClassifier.load(tmp_path)


def test_a_card_that_is_none_is_refused(tmp_path: Path) -> None:
    card = json.loads((SHIPPED / CARD_FILE).read_text())
    (tmp_path / WEIGHTS_FILE).write_bytes((SHIPPED / WEIGHTS_FILE).read_bytes())
    for change in (
        {"thresholds": {"rotated_chest": 0.2, "inverted_chest": 0.9, "other": 0.9}},
        {"classes": ["a", "b"]},
    ):
        (tmp_path / CARD_FILE).write_text(json.dumps(card | change))
        with pytest.raises(ChestClassifierUnusable):
            ChestClassifier.load(tmp_path)
    (tmp_path / CARD_FILE).write_text(json.dumps(card | {"side_px": 96}))
    with pytest.raises(ChestClassifierUnusable, match="another network"):
        ChestClassifier.load(tmp_path)
