"""Formats numbers and times on pages that the server fills; `page.js` does it for scripts."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

#: Larger figures, such as a diverged loss, are shown in scientific notation.
_HUGE = 1e5
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def duration(seconds: float) -> str:
    """Format a duration, in the largest unit that is not 0."""
    length, unit = next(((length, unit) for length, unit in _UNITS if seconds >= length), _UNITS[-1])
    return f"{max(0, int(seconds // length))} {unit}"


def age(moment: datetime) -> str:
    """Format the time since a moment."""
    return duration((datetime.now(UTC) - moment).total_seconds())


def cached(progress: Mapping[str, Any]) -> str:
    """Say how many images of a training its machine has cached; nothing once all are."""
    done, total = progress.get("images_cached", 0), progress.get("images_to_cache", 0)
    return f"{count(done)} of {count(total)} images cached" if done < total else ""


def count(number: int) -> str:
    """Format a number with thousands separators."""
    return f"{number:,}"


def figure(value: float | None, digits: int = 3) -> str:
    """Format a rounded number, or a very large one in scientific notation; a dash if there is none."""
    if value is None:
        return "–"
    return f"{value:.1e}" if abs(value) >= _HUGE else f"{value:.{digits}f}"


def day_and_time(moment: datetime | None) -> str:
    """Format a time in UTC, to the minute."""
    return "–" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
