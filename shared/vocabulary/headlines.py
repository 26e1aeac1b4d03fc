"""The main figures of an evaluation, for its report, the command line and the console alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Keys of an evaluation's metrics.
MAP40, WITH_NO_FINDING = "map40", "map40_with_no_finding"


@dataclass(frozen=True)
class Headline:
    """A main figure with its interval; None if undefined."""

    key: str
    name: str
    meaning: str
    value: float | None
    low: float | None
    high: float | None


def read_headlines(metrics: Mapping[str, Any]) -> list[Headline]:
    """Return the main figures in the order in which they are shown."""
    classes = len(metrics["categories"])
    names = {
        MAP40: (name_map40(classes), "VOC 2010 at IoU > 0.4; mean over classes with boxes"),
        WITH_NO_FINDING: (
            name_map40(classes, with_no_finding=True),
            "As Kaggle scores it: “No finding” counts as one more class",
        ),
        "coco_ap": ("COCO AP", "At IoU 0.5 to 0.95; mean over classes and ten overlaps"),
        "coco_ap50": ("COCO AP50", "At IoU 0.5; mean over classes"),
        "froc_mean": ("FROC, mean sensitivity", "Lesions found, mean over 1/8 to 8 false positives an image"),
        "lesions_1": ("Sensitivity at 1 FP", "Lesions found at one false positive an image"),
        "auroc": ("Image AUROC", "Images with any finding against those without"),
    }
    return [Headline(key, name, meaning, *_estimate(metrics, key)) for key, (name, meaning) in names.items()]


def read_references(metrics: Mapping[str, Any]) -> list[Headline]:
    """Return the scores of the readers on the same images; empty if the dataset has no boxes of several readers."""
    human, classes = metrics.get("human"), len(metrics["categories"])
    if human is None:
        return []
    reader, others = "A reader against the consensus of the other readers", "Ranked by agreement, against one reader"
    names = {
        "one_reader": (f"One reader, {name_map40(classes)}", reader),
        "one_reader_with_no_finding": (f"One reader, {name_map40(classes, with_no_finding=True)}", reader),
        "others": (f"Other readers together, {name_map40(classes)}", others),
    }
    return [Headline(key, name, meaning, human[key], None, None) for key, (name, meaning) in names.items()]


def name_map40(classes: int | None = None, *, with_no_finding: bool = False) -> str:
    """Return the name of the mean average precision at IoU > 0.4, with the number of classes that it averages."""
    name = "VinBigData score" if with_no_finding else "mAP@0.4"
    if classes is None:
        return name
    count = classes + with_no_finding
    return f"{name} ({count} {'class' if count == 1 else 'classes'})"


def _estimate(metrics: Mapping[str, Any], key: str) -> Sequence[float | None]:
    if key == WITH_NO_FINDING:  # a plain number; its interval is missing in evaluations of earlier versions
        found = {"value": metrics.get(key), "low": metrics.get(f"{key}_low"), "high": metrics.get(f"{key}_high")}
    elif key == "lesions_1":
        found = next((point["lesions"] for point in metrics.get("froc", ()) if point["false_positives"] == 1), {})
    else:
        found = metrics.get(key) or {}
    return [found.get(name) for name in ("value", "low", "high")]
