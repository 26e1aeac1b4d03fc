"""Adds events to a review, one transaction after the other, and detects conflicts with newer events of others."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import InstrumentedAttribute, Session

from shared.access.keys import Identity
from shared.database import is_any
from shared.errors import InvalidRequest, NotFound, NotReady, RequestError
from shared.reviews.fold import Box, Review, ReviewedFinding, finding_of, fold, in_force
from shared.studies.results import authoritative_first
from shared.tables import Detection, Image, Job, Model, ReviewEvent
from shared.vocabulary.review_actions import ReviewAction
from shared.vocabulary.states import JobState

OfJob = TypeVar("OfJob", Detection, ReviewEvent)


class ReviewConflict(RequestError):
    """Somebody else has changed the same finding. Load the review again."""

    code = "review_conflict"
    status = 409


class ReviewIncomplete(RequestError):
    """Some findings are neither accepted nor rejected. Decide them first."""

    code = "review_incomplete"
    status = 409


class NothingToTakeBack(RequestError):
    """This key has no action on the result to undo or to redo."""

    code = "nothing_to_take_back"
    status = 409


@dataclass(frozen=True)
class NewEvent:
    """An action that a reader wants to add."""

    action: ReviewAction
    #: None if the action concerns the whole image.
    finding_id: str | None = None
    #: The class and the box of a drawn or changed finding; None: unchanged.
    class_id: int | None = None
    box_xyxy_px: Box | None = None
    min_score: float | None = None


@dataclass(eq=False)
class ReviewThread:
    """A job that has succeeded, with its detections and review events. Valid until the transaction ends."""

    _session: Session
    job: Job
    image: Image
    model: Model
    _detections: Sequence[Detection]
    events: list[ReviewEvent]

    def fold(self) -> Review:
        """Return the current state of the review."""
        return fold(self._detections, self.events)

    def detected(self) -> tuple[ReviewedFinding, ...]:
        """Return the findings of the model, without any review event."""
        return fold(self._detections, ()).findings

    def add(self, reader: Identity, new: NewEvent, *, after: int) -> None:
        """Add an event of a reader who has seen the events up to the number `after`.

        Raises `ReviewConflict`, `ReviewIncomplete`, `NotFound` for an unknown finding, and `InvalidRequest` for an
        invalid class or box.
        """
        newer = [event for event in self.events if event.number > after]
        about = "a new one" if new.action is ReviewAction.DRAW else new.finding_id
        if any(self._clash(self._subject(event), about) for event in newer):
            raise ReviewConflict
        review = self.fold()
        if new.action is ReviewAction.COMPLETE:
            left = len(review.undecided(new.min_score or 0.0))
            if left:
                raise ReviewIncomplete(f"{left} findings have been neither accepted nor rejected.")
        finding = self._find(review, new.finding_id)
        becomes = self._becomes(finding, new) if new.action in _WITH_A_BOX else {}
        subject = {} if finding is None else _columns_of(finding.id)
        self._add(reader, new.action, **subject, **becomes, min_score=new.min_score)

    def undo(self, reader: Identity, *, after: int) -> None:
        """Undo the last event of this reader; raise `NothingToTakeBack` and `ReviewConflict`."""
        done, _ = self._history(reader.key_id)
        self._take_back(reader, ReviewAction.UNDO, done, after)

    def redo(self, reader: Identity, *, after: int) -> None:
        """Redo the last event that this reader has undone, unless they added another one since; raises like `undo`."""
        _, undone = self._history(reader.key_id)
        self._take_back(reader, ReviewAction.REDO, undone, after)

    def may_undo(self, key_id: UUID) -> bool:
        """Whether a reader has an event to undo."""
        return bool(self._history(key_id)[0])

    def may_redo(self, key_id: UUID) -> bool:
        """Whether a reader has an event to redo."""
        return bool(self._history(key_id)[1])

    def _take_back(
        self, reader: Identity, action: ReviewAction, candidates: Sequence[tuple[ReviewEvent, ReviewEvent]], after: int
    ) -> None:
        if not candidates:
            raise NothingToTakeBack
        event, undoes = candidates[-1]
        newer_of_mine = any(other.number > after and other.api_key_id == reader.key_id for other in self.events)
        of_others = (other for other in in_force(self.events) if other.number > event.number)
        about = finding_of(event)
        overtaken = any(
            other.api_key_id != reader.key_id and about is not None and self._clash(finding_of(other), about)
            for other in of_others
        )
        if newer_of_mine or overtaken:
            raise ReviewConflict
        self._add(reader, action, undoes=undoes.number)

    def _history(
        self, key_id: UUID
    ) -> tuple[list[tuple[ReviewEvent, ReviewEvent]], list[tuple[ReviewEvent, ReviewEvent]]]:
        """Return a reader's events that can be undone, and those that can be redone.

        Each comes with the event to which the undo or redo must refer.
        """
        done: list[tuple[ReviewEvent, ReviewEvent]] = []
        undone: list[tuple[ReviewEvent, ReviewEvent]] = []
        for event in self.events:
            if event.api_key_id != key_id:
                continue
            if event.action == ReviewAction.UNDO:
                taken, _ = done.pop()
                undone.append((taken, event))
            elif event.action == ReviewAction.REDO:
                again, _ = undone.pop()
                done.append((again, again))
            else:
                done.append((event, event))
                undone.clear()
        return done, undone

    def _subject(self, event: ReviewEvent) -> str | None:
        """Return the finding that an event concerns. For an undo or redo, it is that of the retracted event."""
        while event.undoes is not None:
            event = self.events[event.undoes - 1]
        return finding_of(event)

    @staticmethod
    def _clash(one: str | None, other: str | None) -> bool:
        """Whether two events concern the same finding. None, the whole image, clashes with every finding."""
        return one is None or other is None or one == other

    @staticmethod
    def _find(review: Review, finding_id: str | None) -> ReviewedFinding | None:
        if finding_id is None:
            return None
        finding = review.finding(finding_id)
        if finding is None:
            raise NotFound(f"The result has no finding {finding_id}.")
        return finding

    def _becomes(self, finding: ReviewedFinding | None, new: NewEvent) -> dict[str, object]:
        """Return the columns of the new class and box of a finding."""
        class_id = finding.class_id if new.class_id is None and finding else new.class_id
        box = finding.box_xyxy_px if new.box_xyxy_px is None and finding else new.box_xyxy_px
        names = {category["id"]: category["name"] for category in self.model.card["categories"]}
        if class_id not in names:
            raise InvalidRequest(f"The model has no class {class_id}.")
        if box is None:
            raise InvalidRequest("A drawn finding needs a box.")
        x_min, y_min, x_max, y_max = box
        # By rounding, a detection may end outside the image. A reader who only changes its class must not be rejected.
        drawn_here = new.box_xyxy_px is not None
        if drawn_here and not (
            0 <= x_min < x_max <= self.image.width_px and 0 <= y_min < y_max <= self.image.height_px
        ):
            raise InvalidRequest("The box must have an area and lie in the image.")
        place = {"x_min_px": x_min, "y_min_px": y_min, "x_max_px": x_max, "y_max_px": y_max}
        return {"class_id": class_id, "class_name": names[class_id], **place}

    def _add(self, reader: Identity, action: ReviewAction, **columns: object) -> None:
        event = ReviewEvent(
            job_id=self.job.id,
            number=len(self.events) + 1,
            project_id=self.job.project_id,
            image_id=self.image.id,
            model_id=self.model.id,
            api_key_id=reader.key_id,
            reader=reader.name,
            action=action,
            **columns,
        )
        self._session.add(event)
        self._session.flush()
        self._session.refresh(event)
        self.events.append(event)


_WITH_A_BOX = (ReviewAction.DRAW, ReviewAction.CHANGE)


def fold_jobs(session: Session, job_ids: Collection[UUID]) -> dict[UUID, Review]:
    """Return the reviews of several jobs. Jobs without an event are omitted."""
    if not job_ids:  # most pages of the worklist have none
        return {}
    detections = _of_jobs(session, Detection, Detection.rank, job_ids)
    events = _of_jobs(session, ReviewEvent, ReviewEvent.number, job_ids)
    return {job_id: fold(detections[job_id], events[job_id]) for job_id in events}


def read_threads(session: Session, image_ids: Collection[UUID]) -> dict[UUID, ReviewThread]:
    """Return the thread of each image's first result in the order of `_results`; omits images without a result."""
    results = _results(is_any(Job.image_id, image_ids)).ext(distinct_on(Job.image_id))
    rows = session.execute(results).all()
    return {row.Image.id: thread for row, thread in zip(rows, _read(session, rows), strict=True)}


def open_thread(
    session: Session, project_id: UUID, image_id: UUID, job_id: UUID | None, *, to_add: bool
) -> ReviewThread:
    """Return the thread of the result of `job_id`, else of the image's first result in the order of `_results`.

    With `to_add`, other transactions cannot add events until this one ends. Raises `NotFound` if the image does not
    belong to the project, and `NotReady` if it has no such result.
    """
    if session.scalar(sa.select(Image.id).where(Image.id == image_id, Image.project_id == project_id)) is None:
        raise NotFound
    results = _results(Job.image_id == image_id).limit(1)
    if job_id is not None:
        results = results.where(Job.id == job_id)
    if to_add:
        results = results.with_for_update(of=Job, key_share=True)
    threads = _read(session, session.execute(results).all())
    if not threads:
        raise NotReady("The image has no such result, so there is nothing to review.")
    return threads[0]


def _results(of_images: sa.ColumnElement[bool]) -> sa.Select[Job, Image]:
    """Select the results of images. For each image: the authoritative one, then by last review, then the others."""
    said_last = sa.select(sa.func.max(ReviewEvent.created_at)).where(ReviewEvent.job_id == Job.id).scalar_subquery()
    results = sa.select(Job, Image).join(Image, Image.id == Job.image_id).join(Model, Model.id == Job.model_id)
    results = results.where(of_images, Job.state == JobState.SUCCEEDED)
    is_authoritative, *others = authoritative_first()
    return results.order_by(Job.image_id, is_authoritative, said_last.desc().nulls_last(), *others)


def _read(session: Session, rows: Sequence[sa.Row[Job, Image]]) -> list[ReviewThread]:
    """Read the threads of these results."""
    job_ids = [row.Job.id for row in rows]
    detections = _of_jobs(session, Detection, Detection.rank, job_ids)
    events = _of_jobs(session, ReviewEvent, ReviewEvent.number, job_ids)
    used = sa.select(Model).where(Model.id.in_({row.Job.model_id for row in rows}))
    models: dict[UUID | None, Model] = {model.id: model for model in session.scalars(used)}
    return [
        ReviewThread(session, job, image, models[job.model_id], detections[job.id], events[job.id])
        for job, image in rows
    ]


def _of_jobs(
    session: Session, table: type[OfJob], order: InstrumentedAttribute[int], job_ids: Collection[UUID]
) -> defaultdict[UUID, list[OfJob]]:
    """Read the rows of `table` for these jobs, grouped by job, sorted by `order`."""
    found: defaultdict[UUID, list[OfJob]] = defaultdict(list)
    for row in session.scalars(sa.select(table).where(is_any(table.job_id, job_ids)).order_by(table.job_id, order)):
        found[row.job_id].append(row)
    return found


def _columns_of(finding_id: str) -> dict[str, int]:
    kind, _, number = finding_id.partition("-")
    return {"rank" if kind == "model" else "drawn": int(number)}
