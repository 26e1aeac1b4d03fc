"""When a cron expression is due, on the clocks of a time zone.

Days on which clocks change are treated as Debian's cron does. With fixed minutes and hours a time comes once on every
day that it is meant for: one that clocks leap over comes at the leap (02:30 at 03:00), one that comes twice counts the
first time. With a star as the minutes or the hours, times follow the clock as it runs: a skipped hour has none, a
repeated hour has them twice.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from shared.bounded import MOST_CRON, MOST_ZONE
from shared.errors import RequestError

_FIELDS = 5
#: Names of the time zone database; no path out of it.
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
    """Yield the times in UTC that come after another one, for ever; raise `InvalidCron` and `InvalidTimeZone`.

    `cron` has five fields: minute, hour, day of the month, month, day of the week.
    """
    zone = _read_zone(time_zone)
    if len(cron) > MOST_CRON:
        raise InvalidCron(f"A cron expression has at most {MOST_CRON} characters.")
    if len(cron.split()) != _FIELDS:
        raise InvalidCron(f"The cron expression {cron!r} does not have five fields.")
    try:
        found = CronSim(cron, after.astimezone(zone))
    except CronSimError as exc:
        raise InvalidCron(f"The cron expression {cron!r} is not valid: {exc}.") from exc
    return _rising(cron, found, after)


def next_time(cron: str, time_zone: str, after: datetime) -> datetime:
    """Return the first time in UTC after another one; raise `InvalidCron` and `InvalidTimeZone`."""
    return next(times(cron, time_zone, after))


def _rising(cron: str, found: Iterator[datetime], after: datetime) -> Iterator[datetime]:
    # Times that clocks leap over may be found together at the leap; from within an hour that comes for the second time
    # one of its first pass is found.
    for local in found:
        if (moment := local.astimezone(UTC)) > after:
            yield (after := moment)
    raise InvalidCron(f"No time of the cron expression {cron!r} comes within 50 years.")


def _read_zone(name: str) -> ZoneInfo:
    try:
        # What `localtime` is depends on the machine.
        if len(name) <= MOST_ZONE and _ZONE.fullmatch(name) and name != "localtime":
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise InvalidTimeZone(f"There is no time zone {name[:MOST_ZONE]!r}; an IANA name is like Europe/Berlin.")
