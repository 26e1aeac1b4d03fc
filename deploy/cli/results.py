"""What came of an evaluation or a gate, as tables for a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from api.contract.schedules import GateDecisionAnswer
from deploy.cli.console import out, tell
from deploy.cli.tables import Table
from shared.tables import GateDecision

Metrics = Mapping[str, Any]


def print_metrics(metrics: Metrics) -> None:
    """Print an evaluation's numbers: the headlines with their intervals, FROC, and each class."""
    percent = round(100 * metrics["confidence"])
    table = Table("metric", "value", f"{percent}% interval", title=f"On {metrics['images']} images")
    for name, key in (
        ("mAP at IoU > 0.4", "map40"),
        ("COCO AP at IoU 0.5 to 0.95", "coco_ap"),
        ("COCO AP at IoU 0.5", "coco_ap50"),
        ("FROC, mean sensitivity", "froc_mean"),
        ("image AUROC", "auroc"),
    ):
        table.add_row(name, *_estimate(metrics[key]))
    out.print(table)
    froc = Table("false positives an image", *(f"{point['false_positives']:g}" for point in metrics["froc"]))
    froc.add_row("lesions found", *(_number(point["lesions"]["value"]) for point in metrics["froc"]))
    froc.add_row("images with lesions found", *(_number(point["images"]["value"]) for point in metrics["froc"]))
    out.print(froc)
    classes = Table("class", "images", "boxes", "AP at IoU > 0.4", "COCO AP", "AUROC")
    for row in metrics["categories"]:
        counts = (str(row["images"]), str(row["boxes"]))
        classes.add_row(escape(row["name"]), *counts, *(_number(row[key]) for key in ("ap40", "ap", "auroc")))
    out.print(classes)
    _print_normals(metrics)
    # Evaluations of earlier versions know of neither.
    for missing in metrics.get("missing", ()):
        closest = f"; its most similar class is {missing['closest']!r}" if missing["closest"] else ""
        said = f"The model has no class {missing['name']!r} ({missing['boxes']:,} boxes){closest}. It is in no mean."
        out.print(said, soft_wrap=True, markup=False)


def _print_normals(metrics: Metrics) -> None:
    points = metrics.get("normal_films") or []
    if not points:
        return
    films = metrics["images"] - metrics["images_with_findings"]
    normals = Table("score from", *(f"{point['threshold']:g}" for point in points), title=f"On {films} normal films")
    normals.add_row("false positives a film", *(_number(point["false_positives"]) for point in points))
    normals.add_row("films with one", *(_number(point["films_marked"]) for point in points))
    out.print(normals)


def print_decision(decision: GateDecision) -> None:
    """Print what a gate decided, and why."""
    described = GateDecisionAnswer.model_validate(decision).model_dump(mode="json")
    tell(described, f"gate {decision.id}: {decision.explanation or ''}")


def _estimate(estimate: Mapping[str, float | None]) -> tuple[str, str]:
    low, high = estimate["low"], estimate["high"]
    interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
    return _number(estimate["value"]), interval


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
