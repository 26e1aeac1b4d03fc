"""When a schedule is due, above all where clocks change."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.training.cron import InvalidCron, InvalidTimeZone, next_time, times

#: Zone, the day of its change in 2026, and when a 02:30 of that day comes, in UTC.
CHANGES = [
    ("Europe/Berlin", "2026-03-29", "2026-03-29 01:00"),  # 02:30 does not exist; at the leap, which is 03:00 there
    ("Europe/Berlin", "2026-10-25", "2026-10-25 00:30"),  # the first of two
    ("America/New_York", "2026-03-08", "2026-03-08 07:00"),
    ("America/New_York", "2026-11-01", "2026-11-01 07:30"),  # 01:30 comes twice there, 02:30 does not
    ("Australia/Lord_Howe", "2026-04-05", "2026-04-04 16:00"),  # by half an hour
]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def between(cron: str, zone: str, first: datetime, last: datetime) -> list[datetime]:
    return list(takewhile(lambda moment: moment <= last, times(cron, zone, first)))


def midnight(day: str, zone: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


@pytest.mark.parametrize(("zone", "day", "due"), CHANGES)
def test_a_daily_time_comes_once_on_every_day_around_a_change(zone: str, day: str, due: str) -> None:
    start = midnight(day, zone) - timedelta(days=2)
    found = between("30 2 * * *", zone, start, start + timedelta(days=5))
    days = [moment.astimezone(ZoneInfo(zone)).date().isoformat() for moment in found]
    assert len(days) == len(set(days)) == 5
    assert utc(due) in found
    others = [moment for moment in found if moment != utc(due)]
    assert {moment.astimezone(ZoneInfo(zone)).strftime("%H:%M") for moment in others} == {"02:30"}


@pytest.mark.parametrize(("zone", "day", "due"), CHANGES)
def test_asking_again_at_any_minute_of_a_change_gives_the_same_times(zone: str, day: str, due: str) -> None:
    """A beat asks from wherever its clock stands; none of its answers may lie in the past or come twice."""
    start = midnight(day, zone)
    end = start + timedelta(days=2)
    at_once = between("30 2 * * *", zone, start, end)
    for minute in range(0, 6 * 60, 5):
        now = start + timedelta(minutes=minute)
        assert next_time("30 2 * * *", zone, now) == next(moment for moment in at_once if moment > now)


def test_a_star_follows_the_clock_as_it_runs() -> None:
    def on(day: str, cron: str) -> int:
        start = midnight(day, "Europe/Berlin") - timedelta(seconds=1)
        end = midnight((datetime.fromisoformat(day) + timedelta(days=1)).date().isoformat(), "Europe/Berlin")
        return len(between(cron, "Europe/Berlin", start, end - timedelta(seconds=1)))

    assert [on(day, "0 * * * *") for day in ("2026-03-28", "2026-03-29", "2026-10-25")] == [24, 23, 25]
    assert [on(day, "*/30 2 * * *") for day in ("2026-03-28", "2026-03-29", "2026-10-25")] == [2, 0, 4]


def test_times_that_one_leap_swallows_come_as_one() -> None:
    first, second = islice(times("0,30 2 * * *", "Europe/Berlin", utc("2026-03-28 12:00")), 2)
    assert (first, second) == (utc("2026-03-29 01:00"), utc("2026-03-30 00:00"))


@settings(max_examples=150)
@given(
    cron=st.builds(
        "{} {} * * {}".format, st.sampled_from(["0", "30", "*/7", "1,59"]), st.integers(0, 23), st.just("*")
    ),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
    after=st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
)
def test_times_rise_and_lie_ahead(cron: str, zone: str, after: datetime) -> None:
    found = [after, *islice(times(cron, zone, after), 30)]
    assert all(one < other for one, other in pairwise(found))


def test_a_sunday_night_is_one_in_its_own_zone() -> None:
    monday_in_tokyo = next_time("0 3 * * 1", "Asia/Tokyo", utc("2026-11-22 12:00"))
    assert monday_in_tokyo == utc("2026-11-22 18:00")


@pytest.mark.parametrize(
    "cron",
    ["", "* * * *", "0 3 * * * *", "@weekly", "61 * * * *", "0 24 * * *", "0 0 30 2 *", "a b c d e", "*/0 * * * *"],
)
def test_a_cron_expression_that_means_nothing_is_refused(cron: str) -> None:
    with pytest.raises(InvalidCron) as refused:
        next_time(cron, "UTC", utc("2026-01-01"))
    assert (refused.value.code, refused.value.status) == ("invalid_cron", 422)


@pytest.mark.parametrize(
    "zone", ["", "Berlin", "Europe", "europe/berlin", "../UTC", "/etc/passwd", "localtime", "a\0b"]
)
def test_a_time_zone_that_is_none_is_refused(zone: str) -> None:
    with pytest.raises(InvalidTimeZone) as refused:
        next_time("0 3 * * *", zone, utc("2026-01-01"))
    assert (refused.value.code, refused.value.status) == ("invalid_time_zone", 422)
