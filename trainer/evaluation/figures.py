"""The curves of the report as SVG. They take their colours from the page, so that they suit light and dark themes."""

import re
from collections.abc import Sequence
from io import StringIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from trainer.evaluation.flat import Reals
from trainer.evaluation.froc import RATES, Froc
from trainer.evaluation.summary import ReliabilityBin
from trainer.evaluation.voc import PrecisionRecall

#: Placeholders for the page's colours while matplotlib draws. Line styles also distinguish the curves.
_INK, _FAINT = "#010101", "#020202"
_LINES = tuple(f"#03030{number}" for number in range(6))
_STYLES = ("solid", (0, (5, 2)), (0, (1, 1.5)))
_FROM_PAGE = {_INK: "currentColor", _FAINT: "var(--line)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(_LINES)
}
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
}
_WIDTH_IN = 4.6
_MAX_NAME_CHARACTERS = 22


def draw_precision_recall(curves: Sequence[tuple[str, PrecisionRecall]]) -> str:
    """Draw the curve of each named class, with precision made monotonic as for its area."""
    with mpl.rc_context(_SETTINGS):
        rows = -(-len(curves) // 2)
        figure, axes = _frame("precision-recall", 3.6 + 0.22 * rows)
        for number, (name, curve) in enumerate(curves):
            recall, precision = _thin(curve)
            axes.plot(recall, precision, label=_shorten(name), **_style(number))
        axes.set(xlabel="Recall", ylabel="Precision", xlim=(0, 1), ylim=(0, 1.02))
        _place_legend(figure, axes)
        return _to_svg(figure, "precision-recall")


def draw_froc(froc: Froc) -> str:
    """Draw both curves from 1/16 to 16 false positives per image."""
    with mpl.rc_context(_SETTINGS):
        figure, axes = _frame("froc", 3.8)
        rates = tuple(np.geomspace(1 / 16, 16, 257).tolist())
        axes.plot(rates, froc.lesions_at(rates), label="lesions found", **_style(0))
        axes.plot(rates, froc.images_at(rates), label="images with a lesion found", **_style(7))
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(RATES))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda rate, _: f"1/{1 / rate:.0f}" if rate < 1 else f"{rate:.0f}")
        )
        axes.set(xlabel="False positives an image", ylabel="Sensitivity", xlim=(1 / 16, 16), ylim=(0, 1.02))
        _place_legend(figure, axes)
        return _to_svg(figure, "froc")


def draw_reliability(bins: Sequence[ReliabilityBin]) -> str:
    """Draw precision against score. The area of a dot grows with the logarithm of its number of detections."""
    with mpl.rc_context(_SETTINGS):
        figure, axes = _frame("reliability", 3.8)
        filled = [row for row in bins if row.mean_score is not None and row.precision is not None]
        scores, precisions = [row.mean_score for row in filled], [row.precision for row in filled]
        axes.plot([0, 1], [0, 1], label="calibrated", color=_INK, linestyle=(0, (1, 2)), linewidth=1)
        axes.plot(scores, precisions, label="this model", **_style(0))  # type: ignore[arg-type]
        areas = [14 * (1 + np.log10(row.detections)) for row in filled]
        axes.scatter(scores, precisions, s=areas, color=_LINES[0], zorder=3, clip_on=False)  # type: ignore[arg-type]
        axes.set(xlabel="Score", ylabel="Share that is right", xlim=(0, 1), ylim=(0, 1.02))
        _place_legend(figure, axes)
        return _to_svg(figure, "reliability")


def _frame(name: str, height_in: float) -> tuple[Figure, Axes]:
    mpl.rcParams["svg.hashsalt"] = name  # makes ids unique within a page and reproducible
    figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    return figure, axes


def _style(number: int) -> dict[str, Any]:
    style = _STYLES[number // len(_LINES) % len(_STYLES)]
    return {"color": _LINES[number % len(_LINES)], "linestyle": style, "linewidth": 1.7}


def _shorten(name: str) -> str:
    """Shorten a name to fit the legend. Leading underscores are removed, because matplotlib hides names with them."""
    short = name if len(name) <= _MAX_NAME_CHARACTERS else name[: _MAX_NAME_CHARACTERS - 1] + "…"
    return short.lstrip("_").replace("$", r"\$")


def _place_legend(figure: Figure, axes: Axes) -> None:
    if axes.lines:
        figure.legend(loc="outside lower left", ncols=2, frameon=False, handlelength=2.6)


def _thin(curve: PrecisionRecall, points: int = 201) -> tuple[Reals, Reals]:
    """Sample a curve at evenly spaced recalls up to its highest one, so that 20,000 detections give a small SVG."""
    if not len(curve.recall) or not curve.recall[-1]:
        return np.zeros(1), np.zeros(1)
    recall = np.linspace(0, curve.recall[-1], points)
    envelope = np.maximum.accumulate(curve.precision[::-1])[::-1]
    place = np.searchsorted(curve.recall, recall, side="left")
    return recall, envelope[np.minimum(place, len(envelope) - 1)]


def _to_svg(figure: Figure, name: str) -> str:
    """Return an `svg` element without size, unused ids and fixed colours."""
    text = StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
    )
    svg = re.sub(r' id="[a-z0-9.]+_\d+"', "", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for colour, of_page in _FROM_PAGE.items():
        svg = svg.replace(colour, of_page)
    return svg.replace("<svg ", f'<svg role="img" aria-labelledby="{name}-caption" ', 1)
