"""Boxes stay on their lesions however a film is stretched, shifted and cut."""

import numpy as np
import pytest

from trainer.augmentation import expose_at_random, place_at_random

SEEDS = range(12)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_box_follows_its_lesion(seed: int) -> None:
    film = np.zeros((400, 340), np.uint8)
    film[180:220, 120:200] = 255
    boxes = np.array([[120, 180, 200, 220]], np.float32)
    crop, (box,), visible = place_at_random(film, boxes, 320, 288, np.random.default_rng(seed))
    rows, columns = np.nonzero(crop > 127)
    assert visible.tolist() == [True]
    np.testing.assert_allclose(box, (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), atol=1)


def test_a_lesion_that_is_mostly_cut_off_is_dropped_and_the_others_kept() -> None:
    film = np.full((400, 340), 90, np.uint8)
    boxes = np.array([[0, 0, 340, 6], [150, 180, 190, 220], [0, 394, 340, 400]], np.float32)
    outcomes = set()
    for seed in range(40):
        _, placed, visible = place_at_random(film, boxes, 320, 256, np.random.default_rng(seed))
        assert visible[1]
        assert placed.min() >= 0
        assert placed.max() <= 256
        outcomes.add((bool(visible[0]), bool(visible[2])))
    assert {(True, False), (False, True)} <= outcomes


def test_exposure_changes_a_film_but_not_what_is_black() -> None:
    canvas = np.tile(np.arange(256, dtype=np.uint8), (64, 1))
    exposed = [expose_at_random(canvas, np.random.default_rng(seed)) for seed in SEEDS]
    assert all((image[:, 0] == 0).all() for image in exposed)
    assert len({image.tobytes() for image in exposed}) == len(SEEDS)
    means = [image.mean(0, dtype=float) for image in exposed]
    assert all(np.corrcoef(mean, np.arange(256))[0, 1] > 0.9 for mean in means)
