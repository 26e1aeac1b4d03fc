"""A figure of a dataset: the frequency of each class, and the positions of the boxes in the images."""

import json
from io import BytesIO
from pathlib import PurePath
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shared.errors import InvalidRequest
from trainer.datasets.splits import SPLITS
from trainer.datasets.summary import summarize

_COLOURS = {"train": "#4878a8", "val": "#e49444", "test": "#6a9f58"}
#: Cells of the heat map along each side.
_CELLS = 32


def draw_figure(document: bytes, format_: Literal["png", "svg"] = "png") -> bytes:
    """Draw boxes by class and split, and a map of the centres of all boxes. Returns the bytes of the file."""
    content, counts = json.loads(document), summarize(document)
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_classes(left, counts["classes"])
    _draw_centres(figure, right, _centres(content))
    images = sum(split["images"] for split in counts["splits"].values())
    normal = sum(split["without_findings"] for split in counts["splits"].values())
    figure.suptitle(f"{content['info']['name']}: {images:,} images, {normal:,} of them without findings")
    picture = BytesIO()
    # Without a date, the same dataset gives the same file.
    figure.savefig(picture, format=format_, dpi=120, metadata={"Date": None} if format_ == "svg" else None)
    return picture.getvalue()


def format_of(file_name: str) -> Literal["png", "svg"]:
    """Return the picture format of a file name. Raises `InvalidRequest` for formats other than PNG and SVG."""
    match PurePath(file_name).suffix.lower():
        case ".png":
            return "png"
        case ".svg":
            return "svg"
    raise InvalidRequest("A figure's file must end with .png or .svg.")


def _draw_classes(axes: Axes, classes: list[dict[str, Any]]) -> None:
    ordered = sorted(classes, key=lambda class_: sum(class_["boxes"].values()))
    rows = range(len(ordered))
    done = np.zeros(len(ordered))
    for split in SPLITS:
        counts = np.array([class_["boxes"][split] for class_ in ordered], float)
        if counts.any():
            axes.barh(rows, counts, left=done, color=_COLOURS[split], label=split)
        done += counts
    for row, total in zip(rows, done, strict=True):
        axes.annotate(f"{total:,.0f}", (total, row), xytext=(3, 0), textcoords="offset points", va="center", size=8)
    axes.set_yticks(rows, [class_["name"] for class_ in ordered])
    axes.set_xlabel("boxes")
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    if done.any():
        axes.legend(frameon=False, loc="lower right")


def _draw_centres(figure: Figure, axes: Axes, centres: NDArray[np.float64]) -> None:
    counts, _, _ = np.histogram2d(centres[:, 1], centres[:, 0], bins=_CELLS, range=((0, 1), (0, 1)))
    image = axes.imshow(counts, extent=(0, 1, 1, 0), cmap="magma", interpolation="nearest")
    axes.set_title("centres of the boxes", size=10)
    axes.set_xlabel("share of the width (the patient's right is on the left)")
    axes.set_ylabel("share of the height")
    figure.colorbar(image, ax=axes, shrink=0.8, label="boxes")


def _centres(content: dict[str, Any]) -> NDArray[np.float64]:
    """Return the centres of all boxes as shares of the image's width and height, [n, 2]."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    boxes = np.array([box["bbox"] for box in content["annotations"]], float).reshape(-1, 4)
    of_images = np.array([sizes[box["image_id"]] for box in content["annotations"]], float).reshape(-1, 2)
    return np.asarray((boxes[:, :2] + boxes[:, 2:] / 2) / of_images, np.float64)
