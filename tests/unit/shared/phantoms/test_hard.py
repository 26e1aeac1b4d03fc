"""Hard phantoms and their simulated readers: as hard for a reader as a real table says, and the easy ones unchanged."""

import hashlib

import numpy as np
import pytest

from shared.detector.card import Category
from shared.phantoms import CLASS_NAMES, make_phantom
from shared.phantoms.figures import FIGURES
from shared.phantoms.hard import expected_lesions, make_hard_phantom
from shared.phantoms.phantom import Lesion, Phantom
from shared.phantoms.readers import (
    PRIVATE,
    READER_FIGURES,
    READERS,
    detection_probability,
    draw_contrast,
    private_box,
    read_phantom,
)
from shared.training.dataset_source import Consensus
from tests.requirements import SHARED_DATA
from trainer.datasets.annotations import AnnotatedImage, Annotations, Box
from trainer.datasets.consensus import agree
from trainer.datasets.human import score_readers
from trainer.datasets.reader_model import fit_readers

SIZE_PX = (1000, 860)  # height, width
CATEGORIES = tuple(Category(id=id_, name=name) for id_, name in enumerate(CLASS_NAMES))


def abnormal(count: int) -> list[Phantom]:
    """Phantoms as frequent and large as in the table, without pixels: their lesions may be anywhere."""
    phantoms = []
    for seed in range(count):
        rng = np.random.default_rng((seed, 7))
        lesions = [
            Lesion(
                class_id, CLASS_NAMES[class_id], private_box(class_id, SIZE_PX[::-1], rng), draw_contrast(class_id, rng)
            )
            for class_id, number in enumerate(rng.poisson(expected_lesions(balanced=False)))
            for _ in range(number)
        ]
        if lesions:
            phantoms.append(Phantom(seed, np.zeros(SIZE_PX, np.uint8), tuple(lesions)))
    return phantoms


def read_all(phantoms: list[Phantom]) -> Annotations:
    images = []
    for phantom in phantoms:
        drawn = read_phantom(phantom, expected_lesions(balanced=False), np.random.default_rng(phantom.seed))
        boxes = tuple(Box(class_id, box, (reader,)) for reader, own in drawn.items() for class_id, box in own)
        images.append(AnnotatedImage(f"{phantom.seed:06d}", boxes, READERS))
    return Annotations(CATEGORIES, tuple(images), {})


def test_readers_find_each_other_as_often_as_those_of_the_table() -> None:
    """The scores of VinBigData's readers are 0.225 and 0.319 over its 14 classes."""
    annotations = read_all(abnormal(3000))
    scores = score_readers(annotations, ["val"] * len(annotations.images), 0.5)["val"]
    assert np.mean(list(scores["one_reader"].values())) == pytest.approx(0.225, abs=0.03)
    assert np.mean(list(scores["others"].values())) == pytest.approx(0.319, abs=0.03)
    model = fit_readers(agree(annotations, Consensus(iou=0.3)))
    assert model is not None
    for figures in READER_FIGURES:
        fitted = model.classes[figures.class_id].mean_detection
        assert fitted == pytest.approx(figures.detection, abs=0.12), CLASS_NAMES[figures.class_id]


def test_readers_agree_that_a_phantom_is_normal_and_draw_on_the_others() -> None:
    for phantom in [make_hard_phantom(seed, 128, 108) for seed in range(12)]:
        drawn = read_phantom(phantom, expected_lesions(balanced=True), np.random.default_rng(1))
        assert set(drawn) == set(READERS)
        assert all(bool(own) == bool(phantom.lesions) for own in drawn.values())
        for own in drawn.values():
            for _, (left, top, right, bottom) in own:
                assert 0 <= left < right <= 108
                assert 0 <= top < bottom <= 128


def test_fainter_lesions_are_found_less_often() -> None:
    chances = [detection_probability(contrast) for contrast in (0.05, 0.2, 0.8)]
    assert chances == sorted(chances)
    assert chances[1] == 0.5
    middles = [figures.middle_contrast for figures in READER_FIGURES]
    detections = [figures.detection for figures in READER_FIGURES]
    assert np.argsort(middles).tolist() == np.argsort(detections).tolist()
    assert (PRIVATE >= 0).all()


def test_a_seed_gives_the_same_phantom_and_size_changes_nothing_but_the_pixels() -> None:
    one, again, larger = make_hard_phantom(3, 200, 168), make_hard_phantom(3, 200, 168), make_hard_phantom(3, 400, 336)
    assert np.array_equal(one.pixels, again.pixels)
    assert one.lesions == again.lesions
    assert [lesion.class_id for lesion in one.lesions] == [lesion.class_id for lesion in larger.lesions]
    for small, large in zip(one.lesions, larger.lesions, strict=True):
        np.testing.assert_allclose(2 * np.array(small.box_xyxy_px), large.box_xyxy_px, atol=6)


def test_lesions_are_faint_and_several_of_a_class_and_classes_overlap() -> None:
    phantoms = [make_hard_phantom(seed, 128, 108, balanced=True) for seed in range(60)]
    lesions = [lesion for phantom in phantoms for lesion in phantom.lesions]
    assert np.median([lesion.contrast for lesion in lesions]) < 0.4
    assert any(len({each.class_id for each in phantom.lesions}) < len(phantom.lesions) for phantom in phantoms)
    assert 0.1 < np.mean([not phantom.lesions for phantom in phantoms]) < 0.5
    assert {lesion.class_id for lesion in lesions} == set(range(len(FIGURES)))


def test_easy_phantoms_stay_as_they_are() -> None:
    """Lesions and geometry of seeds that datasets and the demo have used; pixels depend on the machine's rounding."""
    digest = hashlib.sha256()
    for seed in (0, 1, 5, 2_000_000):
        for lesion in make_phantom(seed, 512, 430, range(14) if seed == 1 else None).lesions:
            digest.update(repr((lesion.class_id, lesion.box_xyxy_px)).encode())
            assert lesion.contrast == 1
    assert digest.hexdigest() == "9df2f2a43b30671c9d7e7dca6da57010a410ca5210dd41b45b03cda37ec1eb3e"


@pytest.mark.needs("shared/data")
def test_the_figures_of_the_readers_are_those_of_the_table() -> None:
    from deploy.tools.fit_reader_figures import fit
    from trainer.datasets.vinbigdata import read_table

    figures = fit(read_table((SHARED_DATA / "vinbigdata/train.csv.gz").read_bytes()))
    assert [each["detection"] for each in figures] == [each.detection for each in READER_FIGURES]
    assert [each["seen_by"] for each in figures] == [list(each.seen_by) for each in READER_FIGURES]
