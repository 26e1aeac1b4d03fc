"""Computes the state of a review from its events: the findings of one result, and whether the review is complete.

Events are never changed or deleted. An undo is an event too and refers to the event that it retracts; a redo refers to
the undo. The remaining events are applied in order, so of two contradictory events the later one wins.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from shared.tables import Detection, ReviewEvent
from shared.vocabulary.review_actions import ReviewAction, Verdict

Box = tuple[float, float, float, float]

_RETRACTING = (ReviewAction.UNDO, ReviewAction.REDO)


@dataclass(frozen=True)
class ReviewedFinding:
    """A box that a model detected or a reader drew, with the readers' verdict."""

    #: `model-RANK` for a detection, `drawn-NUMBER` for a box drawn by the event of this number.
    id: str
    class_id: int
    class_name: str
    #: In pixels of the original.
    box_xyxy_px: Box
    #: None if a reader drew the box.
    score: float | None
    verdict: Verdict = Verdict.UNDECIDED
    #: Whether a reader has changed its box or class.
    is_changed: bool = False
    #: The API keys of the readers whose events concern the finding, in order of their first event.
    readers: tuple[UUID, ...] = ()


@dataclass(frozen=True)
class Review:
    """The state of the review of one result."""

    #: The model's detections, highest score first, then the drawn boxes.
    findings: tuple[ReviewedFinding, ...]
    #: The number of the last event; 0 if there is none.
    last_event: int
    #: The review was completed for findings with at least this score; None if it was never completed.
    complete_from_score: float | None
    #: The API keys of all readers with an event that is not retracted.
    readers: tuple[UUID, ...]

    @property
    def is_complete(self) -> bool:
        """Whether a reader has completed the review, and no finding that had to be decided is undecided now."""
        return self.complete_from_score is not None and not self.undecided(self.complete_from_score)

    def undecided(self, min_score: float) -> list[ReviewedFinding]:
        """Return the undecided findings with at least this score, or without a score."""
        open_ = (finding for finding in self.findings if finding.verdict is Verdict.UNDECIDED)
        return [finding for finding in open_ if finding.score is None or finding.score >= min_score]

    def accepted(self) -> list[ReviewedFinding]:
        """Return the accepted findings."""
        return [finding for finding in self.findings if finding.verdict is Verdict.ACCEPTED]

    def finding(self, finding_id: str) -> ReviewedFinding | None:
        """Return the finding with this id, or None."""
        return next((finding for finding in self.findings if finding.id == finding_id), None)


def fold(detections: Iterable[Detection], events: Sequence[ReviewEvent]) -> Review:
    """Return the review of one job from its detections and its events, which are in order."""
    findings = {finding.id: finding for finding in map(_found, detections)}
    complete_from_score: float | None = None
    counting = in_force(events)
    for event in counting:
        if event.action == ReviewAction.NO_FINDING:
            findings = {id_: _say(finding, event, Verdict.REJECTED) for id_, finding in findings.items()}
            complete_from_score = 0.0
        elif event.action == ReviewAction.COMPLETE:
            complete_from_score = event.min_score
        else:
            _apply(findings, event)
    return Review(
        findings=tuple(findings.values()),
        last_event=events[-1].number if events else 0,
        complete_from_score=complete_from_score,
        readers=tuple(dict.fromkeys(event.api_key_id for event in counting)),
    )


def in_force(events: Sequence[ReviewEvent]) -> list[ReviewEvent]:
    """Return the events in order, without retracted ones and without undo and redo events."""
    retracted: set[int | None] = set()
    counting = []
    for event in reversed(events):  # an undo or redo comes after the event that it retracts
        if event.number in retracted:
            continue
        if event.action in _RETRACTING:
            retracted.add(event.undoes)
        else:
            counting.append(event)
    return counting[::-1]


def finding_of(event: ReviewEvent) -> str | None:
    """Return the id of the finding that an event concerns; None if it concerns the whole image."""
    if event.action == ReviewAction.DRAW:
        return f"drawn-{event.number}"
    if event.rank is not None:
        return f"model-{event.rank}"
    return None if event.drawn is None else f"drawn-{event.drawn}"


def _found(detection: Detection) -> ReviewedFinding:
    box = (detection.x_min_px, detection.y_min_px, detection.x_max_px, detection.y_max_px)
    return ReviewedFinding(f"model-{detection.rank}", detection.class_id, detection.class_name, box, detection.score)


def _apply(findings: dict[str, ReviewedFinding], event: ReviewEvent) -> None:
    """Apply an event to its finding."""
    id_ = finding_of(event)
    assert id_ is not None
    if event.action == ReviewAction.DRAW:
        drawn = ReviewedFinding(id_, *_class_and_box(event), score=None)
        findings[id_] = _say(drawn, event, Verdict.ACCEPTED)
        return
    before = findings.get(id_)
    if before is None:
        return  # the event that drew it was retracted
    if event.action == ReviewAction.REJECT:
        findings[id_] = _say(before, event, Verdict.REJECTED)
        return
    after = _say(before, event, Verdict.ACCEPTED)
    if event.action == ReviewAction.CHANGE:
        class_id, class_name, box = _class_and_box(event)
        after = replace(after, class_id=class_id, class_name=class_name, box_xyxy_px=box, is_changed=True)
    findings[id_] = after


def _say(finding: ReviewedFinding, event: ReviewEvent, verdict: Verdict) -> ReviewedFinding:
    readers = tuple(dict.fromkeys((*finding.readers, event.api_key_id)))
    return replace(finding, verdict=verdict, readers=readers)


def _class_and_box(event: ReviewEvent) -> tuple[int, str, Box]:
    """Return the class and the box of an event that draws or changes a finding; its row always has both."""
    assert event.class_id is not None
    assert event.class_name is not None
    x_min, y_min, x_max, y_max = event.x_min_px, event.y_min_px, event.x_max_px, event.y_max_px
    assert x_min is not None and y_min is not None and x_max is not None and y_max is not None  # noqa: PT018 - for mypy
    return event.class_id, event.class_name, (x_min, y_min, x_max, y_max)
