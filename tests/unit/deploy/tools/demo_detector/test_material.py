"""The training images of the shipped detector: lesions are where their boxes are, on both kinds of background."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from deploy.tools.demo_detector.__main__ import app
from deploy.tools.demo_detector.anatomy import fit_anatomy
from deploy.tools.demo_detector.blending import blend
from deploy.tools.demo_detector.calibration import calibrate
from deploy.tools.demo_detector.distractors import DISTRACTORS
from deploy.tools.demo_detector.evaluation import count_boxes, detect
from deploy.tools.demo_detector.films import Film, UnusableFilms, hold_out, read_films
from deploy.tools.demo_detector.material import draw_dataset, reader
from shared.detector.card import ModelCard
from shared.detector.demo import load_demo_model
from shared.detector.runtime import Detector
from shared.phantoms import make_phantom
from shared.phantoms.exposure import Exposure


def draw_film(seed: int, side_px: int = 512) -> NDArray[np.uint8]:
    """A normal phantom in place of a real film."""
    return np.rint(255 * make_phantom(seed, side_px, side_px, classes=()).pixels).astype(np.uint8)


def write_films(folder: Path, count: int) -> Path:
    (folder / "images").mkdir(parents=True)
    images: list[dict[str, object]] = []
    for number in range(count + 1):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), draw_film(number, 256))
        images.append({"id": number, "file_name": f"{number}.png", "patient": str(number // 2), "rsna_class": "Normal"})
    images[-1] |= {"patient": "ill", "rsna_class": "Lung Opacity"}
    images.append({"id": -1, "file_name": "missing.png", "patient": "other", "rsna_class": "Not Normal"})
    annotations = [{"image_id": count, "category_id": 7, "bbox": [10, 20, 30, 40]}]
    document = folder / "films.json"
    document.write_text(json.dumps({"images": images, "annotations": annotations}))
    return document


def test_brightness_and_density_are_inverse() -> None:
    exposure = Exposure.draw(np.random.default_rng(0))
    density = np.linspace(0.05, 2.0, 50, dtype=np.float32)
    np.testing.assert_allclose(exposure.density(exposure.brightness(density)), density, atol=1e-3)


def test_the_body_is_found_where_it_was_moved_to() -> None:
    film = draw_film(7)
    first = fit_anatomy(film)
    assert first is not None
    moved_by = np.array([[0.85, 0.03, 40.0], [-0.02, 0.8, 60.0]])
    second = fit_anatomy(cv2.warpAffine(film, moved_by, (512, 512), borderMode=cv2.BORDER_REPLICATE))
    assert second is not None
    lungs = np.concatenate([first.anatomy.cavity(-1), first.anatomy.cavity(1)])
    expected = first.to_film(lungs) @ moved_by[:, :2].T + moved_by[:, 2]
    lungs = np.concatenate([second.anatomy.cavity(-1), second.anatomy.cavity(1)])
    assert np.abs(second.to_film(lungs) - expected).max() < 0.06 * 512


def test_no_body_is_found_where_there_is_none() -> None:
    assert fit_anatomy(np.random.default_rng(0).integers(0, 255, (512, 512), np.uint8)) is None


@pytest.mark.parametrize("class_id", range(14))
def test_a_blended_lesion_changes_the_film_inside_its_box(class_id: int) -> None:
    film = draw_film(3)
    fit = fit_anatomy(film)
    assert fit is not None
    blended = blend(film, fit, [class_id], np.random.default_rng(class_id))
    ((found, (left, top, right, bottom)),) = blended.lesions
    assert found == class_id
    change = np.abs(blended.pixels.astype(int) - film)
    edges = slice(max(0, int(top) - 12), int(bottom) + 12), slice(max(0, int(left) - 12), int(right) + 12)
    assert np.quantile(change[edges], 0.95) >= 8
    outside = change.copy()
    outside[edges] = 0
    assert outside.sum() < 0.1 * change.sum()


@pytest.mark.parametrize("kind", [draw for draw, _ in DISTRACTORS], ids=lambda draw: draw.__name__)
def test_a_distractor_is_visible_and_the_same_for_a_seed(kind) -> None:
    film = draw_film(3)
    drawn = [kind(film, np.random.default_rng(seed)) for seed in range(6)]
    assert sum(np.abs(image.astype(int) - film).max() > 30 for image in drawn) >= 4
    assert (kind(film, np.random.default_rng(0)) == drawn[0]).all()


def test_only_films_marked_as_normal_are_read_and_a_patient_is_on_one_side(tmp_path: Path) -> None:
    films, marked = read_films(write_films(tmp_path, 8))
    assert [film.name for film in films] == [f"{number}.png" for number in range(8)]
    assert [(film.patient, film.lesions) for film in marked] == [("ill", ((7, (10, 20, 40, 60)),))]
    learned, held = hold_out(films, 0.25, 0)
    assert len(learned) == 6
    assert {film.patient for film in learned}.isdisjoint(film.patient for film in held)
    with pytest.raises(UnusableFilms, match="is not a COCO JSON"):
        read_films(tmp_path / "images" / "0.png")


def test_both_kinds_of_background_come_with_lesions_and_without(tmp_path: Path) -> None:
    films = [Film("a", "a", draw_film(1)), Film("b", "b", draw_film(2))]
    dataset = draw_dataset(films, 40, 0, tmp_path, lambda: None)
    kinds = {(image.patient is not None, len(image.category_ids) > 0) for image in dataset.images}
    assert kinds == {(real, ill) for real in (False, True) for ill in (False, True)}
    read = reader(tmp_path)
    assert all(read(image).shape == (image.height_px, image.width_px) for image in dataset.images)
    again = draw_dataset([], 40, 0, tmp_path, lambda: None)
    assert [image.rendition_sha256 for image in again.images] == [image.rendition_sha256 for image in dataset.images]


def test_a_training_from_films_ends_in_a_model_that_says_what_it_is(tmp_path: Path) -> None:
    films = write_films(tmp_path / "films", 5)
    arguments = ["train", "--films", str(films), "--out", str(tmp_path / "out"), "--images", "16", "--epochs", "1"]
    threads = torch.get_num_threads()
    result = CliRunner().invoke(app, [*arguments, "--images-per-epoch", "8"])
    torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    assert "sensitivity" in result.output
    assert "lowered the logits" in result.output
    card = ModelCard.model_validate_json((tmp_path / "out" / "card.json").read_bytes())
    assert "4 normal" in card.trained_on
    assert card.warnings
    detector = Detector(card, (tmp_path / "out" / "weights.safetensors").read_bytes(), "cpu", "fp32")
    boxes, _ = count_boxes(detector, [("film", draw_film(9))])
    assert boxes.count == 1


def test_a_model_that_marks_normal_films_is_lowered_until_it_does_not() -> None:
    card, weights = load_demo_model()
    # To the calibration this is a normal film, so it must lower the scores of these lesions.
    film = Film("film", "patient", np.rint(255 * make_phantom(1, 512, 512, [8, 10]).pixels).astype(np.uint8))
    before = detect(Detector(card, weights, "cpu", "fp32"), film.pixels)
    calibrated, changed, lowered = calibrate(card, weights, [film])
    after = detect(Detector(calibrated, changed, "cpu", "fp32"), film.pixels)
    assert set(lowered) >= {found.category_name for found in before} != set()
    assert sum(found.score for found in after) < sum(found.score for found in before)
