"""The fitted model of the readers: it finds what boxes were drawn by, and agrees with the real table."""

from dataclasses import replace

import numpy as np
import pytest

from shared.detector.card import Category
from shared.training.dataset_source import Consensus
from tests.requirements import SHARED_DATA
from trainer.datasets.annotations import AnnotatedImage, Annotations, Box
from trainer.datasets.class_names import NAME_OF_ID
from trainer.datasets.consensus import agree
from trainer.datasets.reader_model import fit_readers, rate
from trainer.datasets.vinbigdata import read_table

READERS = ("R1", "R2", "R3")
CATEGORIES = (Category(id=1, name="Nodule"), Category(id=2, name="Mass"))
#: The detection probability of each reader, and the false boxes per image of each.
DETECTION, FALSE_RATE = (0.9, 0.7, 0.5), 0.3


def simulate(images: int, category_id: int = 1, detection: tuple[float, ...] = DETECTION) -> Annotations:
    """Two true findings on each image, and private false boxes."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(images):
        groups = [tuple(r for r, p in zip(READERS, detection, strict=True) if rng.random() < p) for _ in range(2)]
        groups += [(reader,) for reader in READERS for _ in range(rng.poisson(FALSE_RATE))]
        boxes = tuple(
            Box(category_id, (20.0 * k, 0, 20.0 * k + 10, 10), group) for k, group in enumerate(groups) if group
        )
        made.append(AnnotatedImage(f"{number:05d}", boxes, READERS))
    return Annotations(CATEGORIES, tuple(made), {})


def test_it_finds_how_often_each_reader_finds_and_invents() -> None:
    model = fit_readers(simulate(4000))
    assert model is not None
    assert set(model.classes) == {1}
    fitted = model.classes[1]
    np.testing.assert_allclose(fitted.detection, DETECTION, atol=0.03)
    np.testing.assert_allclose(fitted.false_rate, FALSE_RATE, atol=0.05)
    # Of two findings an image, all but 2 · 0.1 · 0.3 · 0.5 are drawn by somebody.
    assert fitted.true_share == pytest.approx(1.97 / (1.97 + 3 * FALSE_RATE), abs=0.03)


def test_probabilities_are_shares_of_true_boxes() -> None:
    """Of the boxes that R1 alone drew, 2 · 0.9 · 0.3 · 0.5 an image are true, and 0.3 false."""
    rated, _ = rate(simulate(4000), Consensus())
    of = {
        group: {box.probability for image in rated.images for box in image.boxes if box.readers == group}
        for group in (("R1",), ("R3",), ("R1", "R2"))
    }
    assert all(len(values) == 1 for values in of.values())
    assert of["R1",].pop() == pytest.approx(0.27 / (0.27 + FALSE_RATE), abs=0.04)
    assert of["R3",].pop() == pytest.approx(0.03 / (0.03 + FALSE_RATE), abs=0.03)
    assert of["R1", "R2"] == {1.0}


def test_the_order_of_images_changes_nothing() -> None:
    annotations = simulate(300)
    turned = replace(annotations, images=annotations.images[::-1])
    assert rate(annotations, Consensus())[0].images == rate(turned, Consensus())[0].images[::-1]


def test_there_is_no_model_without_three_readers_or_without_a_consensus() -> None:
    annotations = simulate(20)
    two = replace(annotations, images=tuple(replace(image, readers=READERS[:2]) for image in annotations.images))
    assert rate(two, Consensus()) == (two, None)
    assert rate(annotations, Consensus(method="none")) == (annotations, None)


def test_images_of_fewer_readers_are_rated_by_the_model_of_the_others() -> None:
    annotations = simulate(2000)
    alone = AnnotatedImage("z", (Box(1, (0, 0, 9, 9), ("R1",)), Box(2, (0, 0, 9, 9), ("R1",))), ("R1",))
    rated, _ = rate(replace(annotations, images=(*annotations.images, alone)), Consensus())
    known, unknown = rated.images[-1].boxes
    assert known.probability == pytest.approx(1.8 / (1.8 + FALSE_RATE), abs=0.05)
    assert unknown.probability is None, "no reader of three has drawn this class"


@pytest.mark.needs("shared/data")
def test_the_readers_of_vinbigdata() -> None:
    """Measured independently, from the findings that two and three readers share; it ignores that readers differ."""
    measured = {
        "Aortic enlargement": 0.89, "Cardiomegaly": 0.88, "Pneumothorax": 0.88, "Pleural effusion": 0.79,
        "Pulmonary fibrosis": 0.73, "ILD": 0.70, "Nodule/Mass": 0.64, "Infiltration": 0.62, "Pleural thickening": 0.60,
        "Other lesion": 0.56, "Atelectasis": 0.51, "Lung Opacity": 0.47, "Calcification": 0.45, "Consolidation": 0.44,
    }  # fmt: skip
    annotations = read_table((SHARED_DATA / "vinbigdata/train.csv.gz").read_bytes())
    model = fit_readers(agree(annotations, Consensus(iou=0.3)))
    assert model is not None
    fitted = {NAME_OF_ID[id_]: readers.mean_detection for id_, readers in model.classes.items()}
    differences = {name: round(fitted[name] - value, 3) for name, value in measured.items()}
    assert max(map(abs, differences.values())) < 0.09, differences
    assert sorted(map(abs, differences.values()))[10] < 0.03, "most are the same"
