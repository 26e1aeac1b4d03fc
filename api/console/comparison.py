"""Compares two models as a whole and class by class, on the images that both were evaluated on."""

from dataclasses import dataclass
from typing import Any

from api.console.model_lineage import Measured
from shared.vocabulary.headlines import read_headlines


@dataclass(frozen=True)
class Value:
    """A figure with its interval; None if undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """One figure of both models."""

    name: str
    first: Value
    second: Value
    #: Number of true boxes of a class.
    boxes: int | None = None

    @property
    def difference(self) -> float | None:
        """Return the second value minus the first one."""
        if self.first.value is None or self.second.value is None:
            return None
        return self.second.value - self.first.value

    @property
    def intervals_meet(self) -> bool | None:
        """Return whether the intervals overlap; None if one of them is missing."""
        ends = (self.first.low, self.first.high, self.second.low, self.second.high)
        if any(end is None for end in ends):
            return None
        first_low, first_high, second_low, second_high = (float(end) for end in ends if end is not None)
        return first_low <= second_high and second_low <= first_high


def common_sets(first: list[Measured], second: list[Measured]) -> dict[str, tuple[Measured, Measured]]:
    """Return the newest evaluations of both models for each set that both were evaluated on, by the set's key."""
    newest = [{each.set_key: each for each in reversed(each_of) if each.metrics} for each_of in (first, second)]
    return {key: (newest[0][key], newest[1][key]) for key in newest[0] if key in newest[1]}


def compare(first: Measured, second: Measured) -> tuple[list[Line], list[Line]]:
    """Return the overall figures and the classes of two evaluations on one set; classes by falling number of boxes."""
    headlines = [
        Line(one.name, Value(one.value, one.low, one.high), Value(other.value, other.low, other.high))
        for one, other in zip(read_headlines(first.metrics), read_headlines(second.metrics), strict=True)
    ]
    of_second = {row["id"]: row for row in second.metrics["categories"]}
    classes = [
        Line(row["name"], _class(row), _class(of_second.get(row["id"], {})), row["boxes"])
        for row in first.metrics["categories"]
        if row["boxes"]
    ]
    return headlines, sorted(classes, key=lambda line: -(line.boxes or 0))


def _class(row: dict[str, Any]) -> Value:
    return Value(row.get("ap40"), row.get("ap40_low"), row.get("ap40_high"))
