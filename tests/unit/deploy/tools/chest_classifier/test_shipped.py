"""The classifier that comes with Carina does on real images what its card says."""

import numpy as np
import pytest

from deploy.tools.chest_classifier.__main__ import IMAGES
from deploy.tools.chest_classifier.evaluation import measure, measure_on_chests
from deploy.tools.chest_classifier.pictures import read_pictures
from shared.imaging.chest_classifier.classifier import load_classifier
from shared.imaging.rendition import make_rendition
from shared.vocabulary.flags import Flag
from tests.requirements import SHARED_DATA

pytestmark = pytest.mark.needs("shared/data")


def test_on_images_of_patients_it_has_not_seen_it_does_what_its_card_says() -> None:
    classifier = load_classifier()
    negatives = {kind: [SHARED_DATA / "dicom" / kind] for kind in ("chest", "other")}
    kinds = read_pictures({IMAGES: [SHARED_DATA / "nih-rsna/val.json"], **negatives})
    tested = measure_on_chests(classifier, IMAGES, kinds.pop(IMAGES))
    tested |= {
        kind: measure(classifier, [picture.rendition for picture in pictures]) for kind, pictures in kinds.items()
    }
    said = classifier.card.tested_on
    for kind, measured in tested.items():
        for flag, rate in measured.rates.items():
            # An image at the very threshold may fall on either side with another version of OpenCV or NumPy.
            assert abs(rate.flagged - said[kind].rates[flag].flagged) <= 1, (kind, flag)
            assert rate.of == said[kind].rates[flag].of


def test_a_image_that_is_tagged_wrongly_is_suspected_and_its_twin_is_not() -> None:
    found = {
        name: make_rendition(
            (SHARED_DATA / f"dicom/chest/{name}.dcm").read_bytes(), rendition_px=1024, max_image_pixels=10**8
        )
        for name in ("rsna_CR_fake_mono1_jpegbaseline", "rsna_CR_mono2_8bit_jpegbaseline")
    }
    assert [rendition.facts.flags for rendition in found.values()] == [[Flag.SUSPECTED_INVERSION], []]


def test_a_leg_is_no_chest_by_its_header_and_by_its_pixels() -> None:
    data = (SHARED_DATA / "dicom/other/wg04_RG3_UNC.dcm").read_bytes()
    facts = make_rendition(data, rendition_px=1024, max_image_pixels=10**8).facts
    assert facts.flags == [Flag.NOT_A_CHEST]
    assert facts.chest_scores is not None
    scores = facts.chest_scores.scores
    assert scores["other"] == max(scores.values())
    assert np.isclose(sum(scores.values()), 1, atol=1e-3)
