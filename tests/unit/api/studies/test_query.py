"""What a search for studies means by times and by what is typed."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from pydantic import ValidationError

from api.contract.study_list import SearchedState, StudiesQuery
from shared.ids import first_id_at, new_id
from shared.vocabulary.states import JobState


def test_a_day_is_meant_from_its_beginning_to_its_end_in_utc() -> None:
    query = StudiesQuery.model_validate({"since": "2026-02-28", "until": "2026-02-28"})
    assert query.received_from == datetime(2026, 2, 28, tzinfo=UTC)
    assert query.received_before == datetime(2026, 3, 1, tzinfo=UTC)


def test_a_time_is_meant_as_it_is() -> None:
    query = StudiesQuery.model_validate({"since": "2026-01-01T00:00:00+02:00", "until": "2026-01-01T00:00:00Z"})
    assert query.received_from == datetime(2025, 12, 31, 22, tzinfo=UTC)
    assert query.received_before == datetime(2026, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)  # ids know milliseconds
    with pytest.raises(ValidationError):
        StudiesQuery.model_validate({"since": "2026-01-01T10:00:00"})  # where?


def test_ids_lie_between_those_of_the_times_around_them() -> None:
    before = datetime.now(UTC)
    made = new_id()
    after = datetime.now(UTC)
    assert first_id_at(before) <= made < first_id_at(after.replace(year=after.year + 1))
    assert first_id_at(datetime(1969, 1, 1, tzinfo=UTC)) == UUID(int=0)


@pytest.mark.parametrize(
    ("typed", "sought"),
    [
        (" 019E8B2D-3A9E-7E65-AEA4-A33EC9A81744 ", {"id_sought": UUID("019e8b2d-3a9e-7e65-aea4-a33ec9a81744")}),
        ("bcaaff8d", {"digest_sought": "bcaaff8d"}),
        ("f" * 64, {"digest_sought": "f" * 64}),
        ("1.2.840.77", {"uid_sought": "1.2.840.77"}),
        ("123456", {"digest_sought": "123456"}),
        # 32 digits may be either.
        ("0" * 32, {"id_sought": UUID(int=0), "digest_sought": "0" * 32}),
        (" ", {}),
    ],
)
def test_what_is_typed_is_taken_for_what_it_looks_like(typed: str, sought: dict[str, object]) -> None:
    query = StudiesQuery.model_validate({"q": typed})
    kinds = {name: getattr(query, name) for name in ("id_sought", "digest_sought", "uid_sought")}
    assert kinds == dict.fromkeys(kinds) | sought
    assert query.q == (typed.strip().lower() or None)


def test_a_search_that_asks_for_everything_is_not_narrowed() -> None:
    assert not StudiesQuery.model_validate({"limit": "10", "min_score": "0.5", "before": str(new_id())}).is_narrowed
    assert StudiesQuery.model_validate({"priority": "0"}).is_narrowed


def test_open_is_every_state_that_is_not_final() -> None:
    assert SearchedState.OPEN.job_states == [state for state in JobState if not state.is_final]
    assert {state.value for state in SearchedState} == {*JobState, "open"}
