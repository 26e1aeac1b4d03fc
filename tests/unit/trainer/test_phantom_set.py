"""Training sees the pixels that serving sees."""

from pathlib import Path

import numpy as np
import pytest

from shared.detector.placing import place
from shared.imaging.rendition import make_rendition, read_rendition
from shared.phantoms import CLASS_NAMES, encode_dicom, make_phantom
from trainer.phantom_set import balanced, load, natural, to_rendition


@pytest.mark.parametrize("seed", [1_000_000, 1_000_007])
def test_a_training_film_equals_the_rendition_of_its_dicom_file(seed: int) -> None:
    phantom = make_phantom(seed)
    dicom = encode_dicom(phantom, transfer_syntax="jpeg-ls", photometric="MONOCHROME1")
    served = read_rendition(make_rendition(dicom, rendition_px=1024, max_image_pixels=2**24).png)
    trained = to_rendition(phantom.pixels)
    assert served.shape == trained.shape
    difference = np.abs(place(served, 448).canvas.astype(int) - place(trained, 448).canvas)
    assert difference.max() <= 2


def test_classes_are_chosen_evenly_and_some_films_are_normal() -> None:
    chosen = [balanced(seed) for seed in range(3000)]
    counts = np.bincount([class_id for classes in chosen for class_id in classes], minlength=len(CLASS_NAMES))
    assert counts.min() > 0.85 * counts.mean()
    assert 0.08 < np.mean([classes == () for classes in chosen]) < 0.16
    assert all(len(set(classes)) == len(classes) for classes in chosen)


def test_films_are_drawn_once_and_then_read(tmp_path: Path) -> None:
    drawn = load(tmp_path, range(4, 6), natural, processes=1)
    written = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    read = load(tmp_path, range(4, 6), natural, processes=1)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == written
    phantom = make_phantom(5)
    for films in (drawn, read):
        assert len(films) == 2
        assert np.array_equal(films.films[1], to_rendition(phantom.pixels))
        assert films.classes[1].tolist() == [lesion.class_id for lesion in phantom.lesions]
        expected = np.array([lesion.box_xyxy_px for lesion in phantom.lesions], np.float32)
        assert np.array_equal(films.boxes_xyxy_px[1], expected)
