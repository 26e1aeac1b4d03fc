"""Checks whether boxes are in pixels of their images: formats do not state it, and wrong units raise no error."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import compress

import numpy as np

from shared.detector.boxes import rescale
from trainer.datasets.annotations import Annotations, Box, ImplausibleBoxes
from trainer.datasets.dataset import can_be_seen
from trainer.datasets.document import Content, is_held, place
from trainer.datasets.notes import Notes
from trainer.datasets.renditions import Picture

#: Minimum number of boxes for a heuristic.
_FEW_BOXES, _MANY_BOXES = 4, 20
#: Boxes of real images are everywhere: if all are within this share of width and height, the units are probably wrong.
_CORNER_SHARE = 0.25
#: Boxes drawn by hand extend beyond the image by less than this share of the image's side.
_PAST_EDGE_SHARE = 0.02

_ADVICE = "Give boxes in pixels of these files, or the width and height of the images that they were drawn on."


def check_units(annotations: Annotations) -> None:
    """Raise `ImplausibleBoxes` if boxes cannot be in pixels: they are shares of the size, or thinner than a pixel."""
    boxes = [box for image in annotations.images if not image.in_shares for box in image.boxes]
    if not boxes:
        return
    corners = np.array([box.xyxy_px for box in boxes])
    if corners.min() >= 0 and corners.max() <= 1:
        raise ImplausibleBoxes(
            f"All {len(boxes):,} boxes lie between 0 and 1: shares of the image's size, not pixels. Multiply x by its "
            "width and y by its height."
        )
    thin = ((corners[:, 2:] - corners[:, :2]) < 1).any(axis=1)
    if thin.sum() > len(boxes) / 2:
        raise ImplausibleBoxes(_all_or_some(thin, boxes, "are thinner than a pixel"))


def check_fit(annotations: Annotations, pictures: Mapping[str, Picture]) -> Annotations:
    """Return the annotations with a note if the units can be wrong. Raises `ImplausibleBoxes` if they must be.

    Images whose annotated size is not the size of the file, and whose boxes are not scaled, do not count: they fail
    anyway.
    """
    boxes, outside, past, corner = [], [], [], []
    for image in annotations.images:
        picture = pictures.get(image.file_name)
        placed = None if picture is None else place(image, picture)
        for box in placed or ():
            assert picture is not None
            shares = np.array(box.xyxy_px) / ([picture.width_px, picture.height_px] * 2)
            boxes.append(box)
            outside.append(not is_held(box, picture))
            past.append(bool(shares.min() < -_PAST_EDGE_SHARE or shares.max() > 1 + _PAST_EDGE_SHARE))
            corner.append(bool(shares.max() <= _CORNER_SHARE))
    if sum(outside) > len(boxes) / 2:
        raise ImplausibleBoxes(_all_or_some(np.array(outside), boxes, "lie outside their image"))
    if len(boxes) >= _FEW_BOXES and sum(past) > len(boxes) / 2:
        raise ImplausibleBoxes(_all_or_some(np.array(past), boxes, "reach past the edge of their image"))
    notes = Notes.of(annotations)
    if len(boxes) >= _MANY_BOXES and all(corner):
        notes.add("boxes_in_one_corner", count=len(boxes))
    for image in annotations.images:
        knows_size = image.scales or image.in_shares or image.width_px is not None
        if image.boxes and image.file_name in pictures and not knows_size:
            notes.add("size_unknown", image.origin)
    return notes.onto(annotations)


def drop_vanishing(content: Content) -> Content:
    """Leave out, and note, boxes so thin that they have no area in the precision of training (float32)."""
    notes = Notes.of(content.annotations)
    images = []
    for image, picture in zip(content.annotations.images, content.pictures, strict=True):
        sizes = (picture.width_px, picture.height_px), (picture.rendition_width_px, picture.rendition_height_px)
        on_rendition = rescale([box.xyxy_px for box in image.boxes], *sizes)
        seen = can_be_seen(on_rendition.astype(np.float32)).tolist()
        for box, is_seen in zip(image.boxes, seen, strict=True):
            if not is_seen:
                notes.add("box_without_area", box.origin)
        images.append(replace(image, boxes=tuple(compress(image.boxes, seen))))
    return Content(notes.onto(replace(content.annotations, images=tuple(images))), content.pictures)


def _all_or_some(marks: "np.ndarray[tuple[int], np.dtype[np.bool_]]", boxes: list[Box], what: str) -> str:
    culprits = [box.origin for box, marked in zip(boxes, marks, strict=True) if marked and box.origin][:3]
    named = f" ({', '.join(culprits)}, …)" if culprits else ""
    return f"{int(marks.sum()):,} of {len(boxes):,} boxes {what}{named}. {_ADVICE}"
