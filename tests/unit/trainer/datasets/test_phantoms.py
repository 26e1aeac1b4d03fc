"""Synthetic images are what serving would make of them, and come in the shares that were asked for."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import psutil

from shared.detector.fitting import fit_to_canvas
from shared.imaging.rendition import make_rendition, read_rendition
from shared.phantoms import CLASS_NAMES, encode_dicom, make_phantom
from shared.training.dataset_source import PhantomsSource
from tests.requirements import REPOSITORY
from tests.waiting import wait_for, wait_until_gone
from trainer.datasets.phantoms import FIRST_SEED, choose_evenly, draw_images


def test_a_training_image_equals_the_rendition_of_its_dicom_file(tmp_path: Path) -> None:
    drawn = draw_images(PhantomsSource(films=4, balanced=False), tmp_path, lambda: None)
    assert len(drawn.images) == 4
    phantom = make_phantom(FIRST_SEED)
    trained = cv2.imread(str(tmp_path / f"phantom-{FIRST_SEED}.png"), cv2.IMREAD_GRAYSCALE)
    dicom = encode_dicom(phantom, transfer_syntax="jpeg-ls", photometric="MONOCHROME1")
    served = read_rendition(make_rendition(dicom, rendition_px=1024, max_image_pixels=2**24).png)
    assert served.shape == trained.shape
    difference = np.abs(fit_to_canvas(served, 448).canvas.astype(int) - fit_to_canvas(trained, 448).canvas)
    assert difference.max() <= 2


def test_processes_that_draw_end_with_the_one_that_was_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from shared.training.dataset_source import PhantomsSource;"
        "from trainer.datasets.phantoms import draw_images;"
        "draw_images(PhantomsSource(films=1000), Path(sys.argv[1]), lambda: None)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY) as process:
        wait_for(lambda: any(tmp_path.iterdir()) or process.poll() is not None)
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert family
    wait_until_gone(family)


def test_classes_are_chosen_evenly_and_some_images_are_normal() -> None:
    chosen = [choose_evenly(seed) for seed in range(3000)]
    counts = np.bincount([class_id for classes in chosen for class_id in classes], minlength=len(CLASS_NAMES))
    assert counts.min() > 0.85 * counts.mean()
    assert 0.08 < np.mean([classes == () for classes in chosen]) < 0.16
    assert all(len(set(classes)) == len(classes) for classes in chosen)


def test_negatives_show_the_same_lesions_black_for_white(tmp_path: Path) -> None:
    (tmp_path / "as_they_are").mkdir()
    (tmp_path / "negative").mkdir()
    usual = draw_images(PhantomsSource(films=4), tmp_path / "as_they_are", lambda: None)
    negative = draw_images(PhantomsSource(films=4, negative_share=1), tmp_path / "negative", lambda: None)
    boxes = [{image.file_name: image.boxes for image in drawn.images} for drawn in (usual, negative)]
    assert boxes[0] == boxes[1]
    for name in boxes[0]:
        pixels = [cv2.imread(str(tmp_path / folder / name), 0) for folder in ("as_they_are", "negative")]
        assert np.array_equal(pixels[0], 255 - pixels[1])
