"""Augmentation keeps boxes on their lesions and black black; without changes, the result is as in serving."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.detector.fitting import fit_to_canvas
from shared.training.config import Augmentation
from trainer.augmentation import augment

SEEDS = range(12)
CANVAS_PX = 256
#: One option each, as far as it may sensibly go, and all of them together.
OPTIONS: dict[str, dict[str, Any]] = {
    "flip": {"flip_probability": 1.0},
    "rotate": {"rotate_deg": 30.0},
    "shear": {"shear_deg": 20.0},
    "translate": {"translate": 0.15},
    "scale": {"scale": (0.6, 1.3)},
    "aspect": {"aspect": (0.7, 1.4)},
    "exposure": {"gamma": (0.7, 1.4), "contrast": (0.8, 1.2), "brightness": (-0.1, 0.1), "noise": 0.02},
}
OPTIONS["all"] = {name: value for options in OPTIONS.values() for name, value in options.items()}
NO_BOXES = np.empty((0, 4), np.float32)


def _image_with_a_lesion(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return a dark image with one bright ellipse right of its middle, and the box around it."""
    image = np.full((height, width), 40, np.uint8)
    centre, axes = (int(0.6 * width), int(0.45 * height)), (int(0.15 * width), int(0.1 * height))
    cv2.ellipse(image, centre, axes, 0, 0, 360, 255, cv2.FILLED)
    (x, y), (a, b) = centre, axes
    return image, np.array([[x - a, y - b, x + a + 1, y + b + 1]], np.float32)


def _box_of_what_is_bright(canvas: NDArray[np.uint8]) -> NDArray[np.float32]:
    rows, columns = np.nonzero(cv2.medianBlur(canvas, 3) > 140)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("shape", [(800, 700), (500, 640), (150, 180)], ids=str)
def test_a_box_stays_on_its_lesion(option: str, shape: tuple[int, int]) -> None:
    image, boxes = _image_with_a_lesion(*shape)
    for seed in SEEDS:
        canvas, (box,), kept = augment(
            image, boxes, CANVAS_PX, Augmentation(**OPTIONS[option]), np.random.default_rng(seed)
        )
        assert kept.tolist() == [True]
        assert canvas.shape == (CANVAS_PX, CANVAS_PX)
        np.testing.assert_allclose(box, _box_of_what_is_bright(canvas), atol=2)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_changes_the_image_and_the_generator_alone_decides_how(option: str) -> None:
    image, boxes = _image_with_a_lesion(400, 380)
    augmentation = Augmentation(**OPTIONS[option])
    plain = fit_to_canvas(image, CANVAS_PX).canvas
    for seed in SEEDS:
        first, second = (augment(image, boxes, CANVAS_PX, augmentation, np.random.default_rng(seed)) for _ in range(2))
        assert not np.array_equal(first[0], plain)
        for left, right in zip(first, second, strict=True):
            np.testing.assert_array_equal(left, right)


@settings(max_examples=40)
@given(
    height=st.integers(20, 500),
    width=st.integers(20, 500),
    canvas_px=st.sampled_from([64, 96, 256]),
    seed=st.integers(0, 2**31),
)
def test_without_options_training_sees_what_serving_sees(height: int, width: int, canvas_px: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    boxes = np.array([[0, 0, width, height], [width / 4, height / 5, width / 2, height / 2]], np.float32)
    canvas, moved, kept = augment(image, boxes, canvas_px, Augmentation(), np.random.default_rng(seed))
    placed = fit_to_canvas(image, canvas_px)
    np.testing.assert_array_equal(canvas, placed.canvas)
    np.testing.assert_allclose(moved, boxes * np.tile((placed.scale_x, placed.scale_y), 2), rtol=1e-5, atol=1e-4)
    assert kept.all()


def test_a_mirrored_image_is_the_image_from_right_to_left() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 200), dtype=np.uint8)
    canvas, _, _ = augment(image, NO_BOXES, 150, Augmentation(flip_probability=1), np.random.default_rng(0))
    placed = fit_to_canvas(image, 150).canvas
    np.testing.assert_array_equal(canvas[:, :100], placed[:, 99::-1])
    assert not canvas[:, 100:].any()


def test_images_are_mirrored_only_when_asked_and_then_as_often_as_asked() -> None:
    image = np.tile(np.linspace(50, 200, 64, dtype=np.uint8), (64, 1))
    asked: list[tuple[Augmentation, tuple[int, int]]] = [
        (Augmentation(rotate_deg=10, noise=0.02), (0, 0)),
        (Augmentation(flip_probability=0.3), (45, 75)),
    ]
    for augmentation, (least, most) in asked:
        canvases = [augment(image, NO_BOXES, 64, augmentation, np.random.default_rng(seed))[0] for seed in range(200)]
        mirrored = sum(canvas[32, 8:28].mean() > canvas[32, 36:56].mean() for canvas in canvases)
        assert least <= mirrored <= most


def test_fine_stripes_fade_to_grey_instead_of_aliasing() -> None:
    image = np.zeros((1024, 1024), np.uint8)
    image[:, ::2] = 255
    augmentation = Augmentation(rotate_deg=10, scale=(0.8, 1.2), aspect=(0.9, 1.1), translate=0.05)
    for seed in SEEDS:
        canvas, _, _ = augment(image, NO_BOXES, CANVAS_PX, augmentation, np.random.default_rng(seed))
        assert canvas[80:-80, 80:-80].std() < 20  # A warp without averaging leaves about 75.


def test_what_is_black_stays_black() -> None:
    image = np.full((400, 200), 128, np.uint8)
    options = {"gamma": (0.7, 0.7), "contrast": (0.8, 0.8), "brightness": (0.2, 0.2), "noise": 0.1}
    canvas, _, _ = augment(image, NO_BOXES, CANVAS_PX, Augmentation(**options), np.random.default_rng(0))
    assert not canvas[:, 128:].any()
    assert canvas[:, :128].mean() > 140


def test_noise_has_no_more_than_its_deviation() -> None:
    image = np.full((CANVAS_PX, CANVAS_PX), 128, np.uint8)
    deviations = [
        augment(image, NO_BOXES, CANVAS_PX, Augmentation(noise=0.1), np.random.default_rng(seed))[0].std() / 255
        for seed in range(40)
    ]
    assert max(deviations) <= 0.102
    assert np.median(deviations) == pytest.approx(0.05, abs=0.02)


def test_a_lesion_that_is_mostly_off_the_canvas_is_dropped_and_the_others_kept() -> None:
    image = np.full((400, 400), 90, np.uint8)
    boxes = np.array([[0, 150, 20, 250], [180, 180, 220, 220], [380, 150, 400, 250]], np.float32)
    outcomes = set()
    for seed in range(40):
        _, moved, kept = augment(image, boxes, CANVAS_PX, Augmentation(translate=0.2), np.random.default_rng(seed))
        assert kept[1]
        assert len(moved) == kept.sum()
        assert moved.min() >= 0
        assert moved.max() <= CANVAS_PX
        outcomes.add((bool(kept[0]), bool(kept[2])))
    assert outcomes == {(True, True), (False, True), (True, False)}


def test_a_lesion_that_is_mostly_cut_out_is_dropped() -> None:
    image, boxes = np.full((CANVAS_PX, CANVAS_PX), 200, np.uint8), np.array([[100, 100, 140, 140]], np.float32)
    left, dropped = [], 0
    for seed in range(100):
        canvas, _, kept = augment(
            image, boxes, CANVAS_PX, Augmentation(cutouts=3, cutout_side=0.5), np.random.default_rng(seed)
        )
        share = (canvas[100:140, 100:140] > 0).mean()
        dropped += not kept[0]
        if kept[0]:
            assert share >= 0.5
        left.append(share)
    assert 0 < dropped < 50
    assert min(left) < 0.5
    assert max(left) == 1


def test_a_box_that_vanishes_on_the_canvas_is_dropped() -> None:
    """Neighbours in float32 near the image's edge are one number once the image has been shifted."""
    image, lesion = _image_with_a_lesion(1024, 1024)
    left = np.float32(8.0)
    thin = np.array([[left, 300, np.nextafter(left, np.float32(np.inf)), 700]], np.float32)
    boxes = np.concatenate((lesion, thin))
    for seed in SEEDS:
        _, seen, kept = augment(image, boxes, CANVAS_PX, Augmentation(translate=0.15), np.random.default_rng(seed))
        assert (seen[:, 2:] > seen[:, :2]).all()
        assert kept[0]
