"""An evaluation as one self-contained HTML file, to be read, printed, mailed and stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from shared.imaging.overlay import RESEARCH_NOTE
from shared.vocabulary.headlines import read_headlines, read_references
from trainer.evaluation.figures import draw_froc, draw_precision_recall, draw_reliability
from trainer.evaluation.froc import trace_froc
from trainer.evaluation.matching import NONE, match_voc
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.paired import PairedGain
from trainer.evaluation.pictures import ReadRendition, take_pictures
from trainer.evaluation.summary import Summary
from trainer.evaluation.voc import trace_precision_recall
from trainer.evaluation.worst import worst_false_alarms, worst_misses

PICTURES = 20

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Decision:
    """The gate's decision about a candidate; shown above the numbers."""

    promoted: bool
    #: The reason with its numbers, as plain text.
    reason: str
    gain: PairedGain | None = None


def render_report(
    material: EvaluationSet,
    summary: Summary,
    read: ReadRendition,
    facts: Mapping[str, str | int],
    decision: Decision | None = None,
) -> str:
    """Return the report as HTML. The summary must be computed from the same material.

    `read` returns the rendition of an image, uint8 [h, w]; it is called at most forty times. `facts` are shown at the
    top in their order, by name: "Model", "Model digest", "Dataset", "Dataset digest", "Split", "Rendition version",
    "Code version" and "Date", so that the origin of a result is known.
    """
    material = material.above(summary.score_threshold)
    flat = material.flat
    claims = match_voc(flat)
    curves = [
        (category.name, curve)
        for number, category in enumerate(material.categories)
        if (curve := trace_precision_recall(flat, claims != NONE, number)) is not None
    ]
    froc = trace_froc(flat, claims)
    metrics = summary.model_dump()
    misses, alarms = worst_misses(flat, claims, PICTURES), worst_false_alarms(flat, claims, PICTURES)
    return _templates.get_template("report.html.j2").render(
        notice=RESEARCH_NOTE,
        facts=facts,
        decision=decision,
        summary=summary,
        headlines=[*read_headlines(metrics), *read_references(metrics)],
        names=[*(category.name for category in summary.categories), "background"],
        froc_svg=Markup(draw_froc(froc)) if froc else None,
        precision_recall_svg=Markup(draw_precision_recall(curves)) if curves else None,
        reliability_svg=Markup(draw_reliability(summary.reliability)) if summary.detections else None,
        misses=take_pictures(material, misses, read, summary.operating_threshold, missed=True),
        alarms=take_pictures(material, alarms, read, summary.operating_threshold, missed=False),
        show=show,
    )


def show(value: float | None, digits: int = 3) -> str:
    """Format a number; a dash if it is undefined."""
    return "–" if value is None else f"{value:.{digits}f}"
