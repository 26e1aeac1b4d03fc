"""Computes the times of a cron expression in a time zone.

Clock changes are handled like in Debian's cron. If minutes and hours are fixed, each time occurs once per day: a
skipped time occurs when the clock changes (02:30 at 03:00), and a repeated time only the first time. If minutes or
hours are `*`, times follow the clock: a skipped hour has no times, and a repeated hour has them twice.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from shared.bounded import MAX_CRON_CHARACTERS, MAX_ZONE_CHARACTERS
from shared.errors import RequestError

_FIELDS = 5
#: Names in the time zone database, without paths that leave it.
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")


class InvalidCron(RequestError):
    """The cron expression is not valid."""

    code = "invalid_cron"
    status = 422
    parameter = "cron"


class InvalidTimeZone(RequestError):
    """This time zone does not exist."""

    code = "invalid_time_zone"
    status = 422
    parameter = "time_zone"


def times(cron: str, time_zone: str, after: datetime) -> Iterator[datetime]:
    """Yield all times after `after`, in UTC; raise `InvalidCron` and `InvalidTimeZone`.

    `cron` has five fields: minute, hour, day of the month, month, day of the week.
    """
    zone = _read_zone(time_zone)
    if len(cron) > MAX_CRON_CHARACTERS:
        raise InvalidCron(f"A cron expression has at most {MAX_CRON_CHARACTERS} characters.")
    if len(cron.split()) != _FIELDS:
        raise InvalidCron(f"The cron expression {cron!r} does not have five fields.")
    try:
        found = CronSim(cron, after.astimezone(zone))
    except CronSimError as exc:
        raise InvalidCron(f"The cron expression {cron!r} is not valid: {exc}.") from exc
    return _rising(cron, found, after)


def next_time(cron: str, time_zone: str, after: datetime) -> datetime:
    """Return the first time after `after`, in UTC; raise `InvalidCron` and `InvalidTimeZone`."""
    return next(times(cron, time_zone, after))


def _rising(cron: str, found: Iterator[datetime], after: datetime) -> Iterator[datetime]:
    # Skip times that do not increase: several skipped times may fall on the same clock change, and a start within a
    # repeated hour gives times of its first pass.
    for local in found:
        if (moment := local.astimezone(UTC)) > after:
            yield (after := moment)
    raise InvalidCron(f"No time of the cron expression {cron!r} comes within 50 years.")


def _read_zone(name: str) -> ZoneInfo:
    try:
        # `localtime` depends on the machine.
        if len(name) <= MAX_ZONE_CHARACTERS and _ZONE.fullmatch(name) and name != "localtime":
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise InvalidTimeZone(f"There is no time zone {name[:MAX_ZONE_CHARACTERS]!r}; an IANA name is like Europe/Berlin.")
