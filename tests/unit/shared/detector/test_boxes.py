"""One function takes boxes from a rendition to its original and back, for serving, evaluation and training alike."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from shared.detector.boxes import rescale
from shared.detector.fitting import FittedImage
from shared.detector.runtime import Detection, ImageDetections
from shared.imaging.rendition import make_rendition, read_rendition
from tests.synthetic_dicom import MAX_PIXELS
from trainer.datasets.dataset import DatasetImage
from trainer.evaluate import boxes_of


@pytest.mark.parametrize("rendition_px", [(1024, 860), (860, 1024), (64, 1024)])
def test_a_box_comes_back_whatever_the_aspect(rendition_px: tuple[int, int]) -> None:
    original_px = (2021, 2500)
    (there,) = rescale((0, 0, *rendition_px), rendition_px, original_px)
    assert there.tolist() == [0, 0, *original_px]
    boxes = np.array([[3.5, 10, 20.25, 60], [0, 0, 1, 1]])
    np.testing.assert_allclose(rescale(rescale(boxes, rendition_px, original_px), original_px, rendition_px), boxes)
    assert rescale([], rendition_px, original_px).shape == (0, 4)


def test_serving_and_evaluation_report_the_same_box() -> None:
    from workers.detect import _in_original_pixels

    image = DatasetImage(
        1, "0" * 64, "0" * 64, 2500, 2021, 1024, 828, None, "val", np.zeros(0, np.int64), np.zeros((0, 4))
    )
    found = ImageDetections((Detection(7, "Mass", 0.5, (10.3, 20.7, 300.9, 511.1)),))
    placed = FittedImage(np.zeros((1, 1), np.uint8), 1, 1, image.rendition_height_px, image.rendition_width_px)
    (served,) = _in_original_pixels(image, placed, found).boxes
    assert list(served.box_xyxy_px) == boxes_of(image, found).boxes_xyxy[0].tolist()


def test_a_box_on_a_picture_that_exif_turns_is_where_the_turned_picture_shows_it() -> None:
    stored = np.zeros((300, 500), np.uint8)  # shown upright, it is 500 high and 300 wide
    stored[100:140, 50:250] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "JPEG", exif=exif, quality=95)
    rendition = make_rendition(file.getvalue(), rendition_px=256, max_image_pixels=MAX_PIXELS)
    left, top, width, height = cv2.boundingRect((read_rendition(rendition.png) > 127).astype(np.uint8))
    box = (left, top, left + width, top + height)
    (found,) = rescale(
        box, (rendition.width_px, rendition.height_px), (rendition.original_width_px, rendition.original_height_px)
    )
    np.testing.assert_allclose(found, (160, 50, 200, 250), atol=2)
