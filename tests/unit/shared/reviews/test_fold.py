"""What events add up to."""

from uuid import UUID

import pytest

from shared.ids import new_id
from shared.reviews.fold import Review, fold
from shared.tables import Detection, ReviewEvent
from shared.vocabulary.review_actions import ReviewAction, Verdict

ANNA, BORIS = new_id(), new_id()
FOUND = (
    Detection(rank=0, class_id=3, class_name="Cardiomegaly", score=0.9, x_min_px=1, y_min_px=2, x_max_px=3, y_max_px=4),
    Detection(rank=1, class_id=7, class_name="Lung Opacity", score=0.2, x_min_px=5, y_min_px=6, x_max_px=7, y_max_px=8),
)
BOX = {"class_id": 5, "class_name": "ILD", "x_min_px": 10.0, "y_min_px": 20.0, "x_max_px": 30.0, "y_max_px": 40.0}


def said(*events: ReviewEvent) -> Review:
    for number, event in enumerate(events, start=1):
        event.number = number
    return fold(FOUND, events)


def event(action: str, rank: int | None = None, by: UUID = ANNA, **columns: object) -> ReviewEvent:
    return ReviewEvent(action=ReviewAction(action), rank=rank, api_key_id=by, **columns)


def verdicts(review: Review) -> dict[str, str]:
    return {finding.id: finding.verdict for finding in review.findings}


def test_where_nobody_has_said_anything_the_models_findings_are_undecided() -> None:
    review = said()
    assert verdicts(review) == {"model-0": "undecided", "model-1": "undecided"}
    assert (review.last_event, review.is_complete, review.readers) == (0, False, ())


def test_the_last_word_on_a_finding_holds_and_all_who_spoke_are_its_readers() -> None:
    review = said(event("accept", 0), event("reject", 0, by=BORIS), event("accept", 1))
    assert verdicts(review) == {"model-0": "rejected", "model-1": "accepted"}
    assert review.finding("model-0").readers == (ANNA, BORIS)
    assert [finding.id for finding in review.accepted()] == ["model-1"]


def test_a_change_accepts_and_a_later_accept_keeps_it() -> None:
    review = said(event("change", 1, **BOX), event("accept", 1))
    (changed,) = review.accepted()
    assert (changed.class_id, changed.class_name, changed.box_xyxy_px) == (5, "ILD", (10, 20, 30, 40))
    assert changed.is_changed
    assert changed.score == 0.2


def test_what_is_drawn_can_be_changed_and_rejected() -> None:
    drawn = said(event("draw", **BOX))
    assert drawn.findings[-1].id == "drawn-1"
    assert (drawn.findings[-1].verdict, drawn.findings[-1].score) == (Verdict.ACCEPTED, None)
    moved = said(event("draw", **BOX), event("change", drawn=1, **(BOX | {"x_max_px": 33.0})))
    assert moved.finding("drawn-1").box_xyxy_px == (10, 20, 33, 40)
    gone = said(event("draw", **BOX), event("reject", drawn=1))
    assert gone.accepted() == []


def test_an_undo_takes_one_event_back_and_a_redo_the_undo() -> None:
    undone = [event("accept", 0), event("reject", 0), event("undo", undoes=2)]
    assert verdicts(said(*undone))["model-0"] == "accepted"
    redone = [*undone, event("redo", undoes=3)]
    assert verdicts(said(*redone))["model-0"] == "rejected"
    again = [*redone, event("undo", undoes=2)]
    assert verdicts(said(*again))["model-0"] == "accepted"
    assert said(*again).last_event == 5


def test_what_was_said_of_a_box_that_is_no_longer_drawn_does_nothing() -> None:
    review = said(event("draw", **BOX), event("accept", drawn=1, by=BORIS), event("undo", undoes=1))
    assert verdicts(review) == {"model-0": "undecided", "model-1": "undecided"}


@pytest.mark.parametrize(("min_score", "is_complete"), [(0.5, True), (0.2, False)])
def test_a_review_is_done_when_somebody_says_so_and_nothing_from_their_score_on_is_open(
    min_score: float, is_complete: bool
) -> None:
    review = said(event("accept", 0), event("complete", min_score=min_score))
    assert review.is_complete is is_complete


def test_a_review_is_no_longer_done_once_something_is_open_again() -> None:
    events = [event("accept", 0), event("accept", 1, by=BORIS), event("complete", min_score=0.0)]
    assert said(*events).is_complete
    assert not said(*events, event("undo", undoes=2, by=BORIS)).is_complete


def test_no_finding_rejects_all_and_is_done() -> None:
    review = said(event("draw", **BOX), event("accept", 0), event("no_finding"))
    assert set(verdicts(review).values()) == {"rejected"}
    assert review.is_complete
    assert not said(event("accept", 0), event("no_finding"), event("undo", undoes=2)).is_complete
