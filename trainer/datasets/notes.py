"""Notes on entries that an import left out, changed or could not check: their number by code, and the first three."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trainer.datasets.annotations import Annotations, MalformedAnnotations

#: Maximum number of entries that a note names; the others are only counted.
NAMED = 3

#: By code. A noted row or box is only left out itself; the rest of the file is imported.
MESSAGES = {
    "row_unreadable": "Rows that cannot be read were left out",
    "row_repeated": "Rows or annotations that repeat an earlier one were left out",
    "class_contradicts": "Rows whose class_id belongs to another class_name were left out",
    "normal_contradicts": "Rows were left out that contradict a box of the same reader: they call the image normal",
    "size_contradicts": "Rows were left out whose image size differs from that of the other rows of the image",
    "corners_swapped": "Boxes whose maximum is below their minimum were left out",
    "box_of_no_finding": "Boxes in rows of `No finding` were ignored",
    "annotation_unreadable": "Annotations that cannot be read were left out",
    "image_unreadable": "Images that cannot be read were left out, with their annotations",
    "box_without_area": "Boxes without an area, or thinner than a hundredth of a pixel, were left out",
    "crowd_region": "Regions marked as `iscrowd` were left out",
    "boxes_scaled": "Images whose boxes were scaled from the annotated size to the size of the file",
    "box_cut_at_the_edge": "Boxes that extend beyond their image were cut at its edge",
    "box_outside_the_image": "Boxes completely outside their image were left out",
    "class_unknown": "Boxes of a class that is not in the list of classes were left out",
    "difficult_object": "Objects marked as `difficult` were left out",
    "image_without_label_file": "Images without a label file were imported as normal images, as YOLO uses them",
    "image_unread": "Images without a reading of the chosen readers were left out",
    "finding_of_too_few_readers": "Findings that too few readers marked were left out",
    "review_incomplete": "Images whose review is not complete were left out",
    "size_unknown": "Images without a size in the annotations: their boxes may be in pixels of another size",
    "area_contradicts": "Annotations whose `area` differs from that of their `bbox`: the boxes may use other units",
    "boxes_in_one_corner": "All boxes are in the top left corner of their images: the units may be wrong",
    "readers_unknown": "Boxes without a reader were imported unchanged: a consensus needs the column rad_id",
    "split_unknown": "Images whose split is not train, val or test: the split is ignored",
}
#: Codes of entries that were imported unchanged, but can be wrong.
WARNINGS = frozenset(
    {
        "size_unknown",
        "area_contradicts",
        "boxes_in_one_corner",
        "readers_unknown",
        "split_unknown",
        "image_without_label_file",
    }
)


class Notes:
    """Collects the notes of an import."""

    def __init__(self, noted: Mapping[str, int] = {}, culprits: Mapping[str, tuple[str, ...]] = {}) -> None:
        self._counts = Counter(noted)
        self._culprits = dict(culprits)

    @classmethod
    def of(cls, annotations: Annotations) -> "Notes":
        """Continue with the notes of annotations."""
        return cls(annotations.noted, annotations.culprits)

    def add(self, code: str, culprit: str = "", count: int = 1) -> None:
        """Count one entry, or several without naming them."""
        self._counts[code] += count
        named = self._culprits.get(code, ())
        if culprit and len(named) < NAMED:
            self._culprits[code] = (*named, culprit)

    def onto(self, annotations: Annotations) -> Annotations:
        """Return the annotations with these notes instead of their own."""
        counts = {code: count for code, count in self._counts.items() if count}
        return replace(annotations, noted=counts, culprits=self._culprits)


class Reasons:
    """The reasons why annotations were left out, so that a source with mostly unusable ones is rejected."""

    def __init__(self) -> None:
        self._count = 0
        self.first = ""

    def add(self, why: str, *, counts: bool = True) -> None:
        """Count an annotation that was left out, and keep the first reason."""
        self._count += counts
        self.first = self.first or why

    def refuse(self, annotations: int) -> None:
        """Raise `MalformedAnnotations` if more than half of the annotations were left out."""
        if self._count > annotations / 2:
            raise MalformedAnnotations(
                f"{self.first} {self._count:,} of {annotations:,} annotations cannot be used; correct them."
            )


def describe(annotations: Annotations) -> dict[str, Any]:
    """Return `noted`, the counts of entries left out or changed, and `notes`, a sentence for each code and warning."""
    notes = []
    for code, count in sorted(annotations.noted.items()):
        named = annotations.culprits.get(code, ())
        notes.append({"code": code, "count": count, "first": list(named), "message": _sentence(code, count, named)})
    return {
        "noted": {code: count for code, count in annotations.noted.items() if code not in WARNINGS},
        "notes": notes,
    }


def _sentence(code: str, count: int, named: tuple[str, ...]) -> str:
    more = f" and {count - len(named):,} more" if count > len(named) else ""
    where = f" ({', '.join(named)}{more})" if named else ""
    return f"{MESSAGES.get(code, code)}: {count:,}{where}."
