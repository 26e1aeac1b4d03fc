"""The decision of the gate from the figures of a comparison: its rules, and the explanation as text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.training.config import GateConfig
from shared.vocabulary.headlines import name_map40
from trainer.evaluation.paired import CategoryGain, PairedGain


@dataclass(frozen=True)
class Decision:
    """Whether a candidate is good enough, and the reasons."""

    #: Whether the candidate satisfies all rules.
    passes: bool
    #: Whether the candidate becomes the active model: it passes, and promotion is requested.
    promote: bool
    #: JSON: the comparison, the limits, and each class.
    figures: dict[str, Any]
    #: Plain sentences; for a refused candidate, the reasons come first.
    explanation: str


@dataclass(frozen=True)
class Unknown:
    """A model's name, and the names of the classes that it does not know."""

    name: str
    classes: tuple[str, ...]


def decide(
    gain: PairedGain,
    config: GateConfig,
    *,
    candidate: str,
    active: str | None,
    unknown: Sequence[Unknown] = (),
) -> Decision:
    """Decide about a candidate. `candidate` and `active` are the names of the models in the explanation.

    It passes if the lower bound of the gain in the metric is above `least_gain` and no class with at least
    `counted_from_boxes` true boxes loses more than `most_class_drop`. If no model is active, it is compared with a
    model that finds nothing, so that the gain is the candidate's own value. The explanation names the `unknown`
    classes.
    """
    drops = gain.drops(config.most_class_drop, config.counted_from_boxes)
    enough = gain.low > config.least_gain
    passes = enough and not drops
    promote = passes and config.promote
    reasons = [] if enough else [_too_little(gain, config)]
    reasons += [_drop(category, config) for category in drops]
    return Decision(
        passes=passes,
        promote=promote,
        figures=_figures(gain, config, drops, passes=passes, active=active),
        explanation=" ".join(
            [_verdict(passes=passes, promote=promote), *reasons, _comparison(gain, candidate, active)]
            + ([_limit(gain, config)] if enough else [])
            + ([_classes(gain, config)] if not drops and active is not None else [])
            + [_lacking(model, gain) for model in unknown if model.classes]
        ),
    )


def _verdict(*, passes: bool, promote: bool) -> str:
    if promote:
        return "Promoted."
    return "Passed. Promotion was not requested." if passes else "Refused."


def _too_little(gain: PairedGain, config: GateConfig) -> str:
    return (
        f"The lower bound of the gain in {_metric(gain)} is {gain.low:+.4f}, which is not above "
        f"{config.least_gain:+.4f}."
    )


def _limit(gain: PairedGain, config: GateConfig) -> str:
    return f"The lower bound, {gain.low:+.4f}, is above the minimum gain of {config.least_gain:+.4f}."


def _drop(category: CategoryGain, config: GateConfig) -> str:
    return (
        f"{category.name} ({category.boxes} boxes) drops by {_lost(category):.4f}, from {category.active_ap:.4f} to "
        f"{category.candidate_ap:.4f}, more than the {config.most_class_drop:.4f} allowed."
    )


def _comparison(gain: PairedGain, candidate: str, active: str | None) -> str:
    interval = (
        f"{100 * gain.confidence:.4g}% interval {gain.low:+.4f} to {gain.high:+.4f} by paired bootstrap over patients, "
        f"{gain.samples} resamples"
    )
    if active is None:
        return f"No model is active; {candidate} reaches a {_metric(gain)} of {gain.candidate_map:.4f} ({interval})."
    return (
        f"{candidate} reaches a {_metric(gain)} of {gain.candidate_map:.4f} and the active {active} "
        f"{gain.active_map:.4f}: a gain of {gain.gain:+.4f} ({interval})."
    )


def _metric(gain: PairedGain) -> str:
    return name_map40(len(gain.categories), with_no_finding=gain.with_no_finding)


def _classes(gain: PairedGain, config: GateConfig) -> str:
    counted = [category for category in gain.categories if _counts(category, config)]
    if not counted:
        return f"No class has {config.counted_from_boxes} boxes, so no class could drop."
    worst = max(counted, key=_lost)
    most = f"{worst.name} loses the most, {_lost(worst):.4f}" if _lost(worst) > 0 else "none loses precision"
    return f"Of the {len(counted)} classes with at least {config.counted_from_boxes} boxes, {most}."


def _lacking(model: Unknown, gain: PairedGain) -> str:
    compared = {category.name for category in gain.categories}
    counted = ", ".join(name for name in model.classes if name in compared)
    left_out = ", ".join(name for name in model.classes if name not in compared)
    sentences = [f"{model.name} does not know {counted}: an unknown class counts as 0."] if counted else []
    sentences += [f"{model.name} does not know {left_out}: not compared."] if left_out else []
    return " ".join(sentences)


def _counts(category: CategoryGain, config: GateConfig) -> bool:
    return category.boxes >= config.counted_from_boxes and category.gain is not None


def _lost(category: CategoryGain) -> float:
    return -category.gain if category.gain is not None else 0.0


def _figures(
    gain: PairedGain, config: GateConfig, drops: tuple[CategoryGain, ...], *, passes: bool, active: str | None
) -> dict[str, Any]:
    known = active is not None
    return {
        "passes": passes,
        "metric": config.metric,
        "candidate_map40": gain.candidate_map,
        "active_map40": gain.active_map if known else None,
        "gain": gain.gain,
        "low": gain.low,
        "high": gain.high,
        "confidence": gain.confidence,
        "resamples": gain.samples,
        "least_gain": config.least_gain,
        "most_class_drop": config.most_class_drop,
        "counted_from_boxes": config.counted_from_boxes,
        "classes": [
            {
                "id": category.category_id,
                "name": category.name,
                "boxes": category.boxes,
                "candidate_ap40": category.candidate_ap,
                "active_ap40": category.active_ap if known else None,
                "gain": category.gain if known else None,
                "counts": _counts(category, config),
                "drops": category in drops,
            }
            for category in gain.categories
        ],
    }
