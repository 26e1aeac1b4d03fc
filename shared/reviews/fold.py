"""What readers' events add up to: the findings of one result as they stand, and whether the review is done.

Events are never changed or taken away. An undo is an event, too, which names the one that counts no more; a redo names
the undo. What counts is applied in order, so of two that contradict each other the later one holds.
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
    """A box that a model found or a reader drew, and what readers say of it."""

    #: `model-RANK` of a detection, `drawn-NUMBER` of what the event of this number drew.
    id: str
    class_id: int
    class_name: str
    #: In pixels of the original image.
    box_xyxy_px: Box
    #: None of what a reader drew.
    score: float | None
    verdict: Verdict = Verdict.UNDECIDED
    #: Whether a reader has given it another box or class than it had.
    is_changed: bool = False
    #: The keys of those who have said something of it, the first one first.
    readers: tuple[UUID, ...] = ()


@dataclass(frozen=True)
class Review:
    """One result as its readers left it."""

    #: Those of the model, the highest score first, then those that were drawn.
    findings: tuple[ReviewedFinding, ...]
    #: The number of the last event; 0 where nobody has said anything.
    last_event: int
    #: Findings from this score on were to be decided; None where nobody has called the review done.
    complete_from_score: float | None
    #: The keys of everybody whose word counts.
    readers: tuple[UUID, ...]

    @property
    def is_complete(self) -> bool:
        """Whether a reader has called the review done, and nothing they were to decide is undecided since."""
        return self.complete_from_score is not None and not self.undecided(self.complete_from_score)

    def undecided(self, min_score: float) -> list[ReviewedFinding]:
        """The findings from a score on that nobody has decided."""
        open_ = (finding for finding in self.findings if finding.verdict is Verdict.UNDECIDED)
        return [finding for finding in open_ if finding.score is None or finding.score >= min_score]

    def accepted(self) -> list[ReviewedFinding]:
        """What is on the image, as far as its readers say."""
        return [finding for finding in self.findings if finding.verdict is Verdict.ACCEPTED]

    def finding(self, finding_id: str) -> ReviewedFinding | None:
        """Return one finding, if there is such a one."""
        return next((finding for finding in self.findings if finding.id == finding_id), None)


def fold(detections: Iterable[Detection], events: Sequence[ReviewEvent]) -> Review:
    """Return what the events of one job, in order, make of its detections."""
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
    """The events that count, in order: those that nobody has taken back, and no undo or redo itself."""
    retracted: set[int | None] = set()
    counting = []
    for event in reversed(events):  # what takes something back comes after it
        if event.number in retracted:
            continue
        if event.action in _RETRACTING:
            retracted.add(event.undoes)
        else:
            counting.append(event)
    return counting[::-1]


def finding_of(event: ReviewEvent) -> str | None:
    """The finding that an event is about; None where that is the whole image."""
    if event.action == ReviewAction.DRAW:
        return f"drawn-{event.number}"
    if event.rank is not None:
        return f"model-{event.rank}"
    return None if event.drawn is None else f"drawn-{event.drawn}"


def _found(detection: Detection) -> ReviewedFinding:
    box = (detection.x_min_px, detection.y_min_px, detection.x_max_px, detection.y_max_px)
    return ReviewedFinding(f"model-{detection.rank}", detection.class_id, detection.class_name, box, detection.score)


def _apply(findings: dict[str, ReviewedFinding], event: ReviewEvent) -> None:
    """Change the one finding that an event is about."""
    id_ = finding_of(event)
    assert id_ is not None
    if event.action == ReviewAction.DRAW:
        drawn = ReviewedFinding(id_, *_class_and_box(event), score=None)
        findings[id_] = _say(drawn, event, Verdict.ACCEPTED)
        return
    before = findings.get(id_)
    if before is None:
        return  # it was drawn by an event that was taken back
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
    """What a drawn or changed finding is; the rows of both have all of it."""
    assert event.class_id is not None
    assert event.class_name is not None
    x_min, y_min, x_max, y_max = event.x_min_px, event.y_min_px, event.x_max_px, event.y_max_px
    assert x_min is not None and y_min is not None and x_max is not None and y_max is not None  # noqa: PT018 - for mypy
    return event.class_id, event.class_name, (x_min, y_min, x_max, y_max)
