"""Sorts studies by the probability of any finding: the highest first, of equal ones the newest.

Studies without a probability come last, the newest first.
"""

import math
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from api.contract.study_list import Place, StudiesQuery, StudyCursor
from api.studies.ways import (
    MAX_COUNTED,
    Rated,
    as_stored,
    bounds_of,
    by_abnormality,
    count,
    rarest_first,
    walk,
    ways_of,
)
from shared.models import registry
from shared.tables import Image, Job
from shared.vocabulary.states import JobState


class AbnormalityOrder:
    """The studies of a search in this order.

    Studies with a probability are read from the index of probabilities, and the conditions are tested on each. If few
    studies meet a condition, those are read instead, and sorted.
    """

    def __init__(self, session: Session, project_id: UUID, query: StudiesQuery) -> None:
        self._session = session
        self._rated = Rated(project_id, registry.active_id(session))
        self._least = query.min_abnormality
        self._query = query.model_copy(update={"before": None, "after": None, "min_abnormality": None})
        self._ways = rarest_first(session, ways_of(session, project_id, self._query), self._query)
        self._few = query.is_narrowed and self._are_few(project_id)

    def _are_few(self, project_id: UUID) -> bool:
        """Return whether reading all studies of the rarest condition is faster than testing those of the index."""
        if self._query.state is not None and JobState.SUCCEEDED not in self._query.state.job_states:
            return True  # almost no study of the index meets this condition
        by_index = count(self._session, by_abnormality(self._session, project_id, self._least or 0), self._query)
        # If the condition is independent of the probability, this many tests fill a page.
        most = by_index if by_index == MAX_COUNTED else math.isqrt(by_index * self._query.limit)
        return count(self._session, self._ways[0], self._query) < most

    def below(self, cursor: StudyCursor | None, count: int) -> list[StudyCursor]:
        """Return the first studies after a place, by default from the beginning."""
        place = None if cursor is None else Place.read(cursor)
        found: list[Place] = []
        if place is None or place.abnormality is not None:
            found += self._with_one(place, count, upwards=False)
            place = None
        return self._cursors(found + self._without_one(place, count - len(found), upwards=False))

    def above(self, cursor: StudyCursor, count: int) -> list[StudyCursor]:
        """Return the last studies before a place, in reverse order."""
        place: Place | None = Place.read(cursor)
        found: list[Place] = []
        if place is not None and place.abnormality is None:
            found += self._without_one(place, count, upwards=True)
            place = None
        return self._cursors(found + self._with_one(place, count - len(found), upwards=True))

    def place(self, study_id: UUID) -> StudyCursor:
        """Return the place of a study."""
        return Place(self._session.scalar(self._highest(study_id)), study_id).cursor

    def _cursors(self, places: list[Place]) -> list[StudyCursor]:
        return [place.cursor for place in places]

    def _with_one(self, place: Place | None, count: int, *, upwards: bool) -> list[Place]:
        """Return studies with a probability, from a place, by default from the beginning or the end."""
        if count <= 0:
            return []
        abnormality, study_id, rows = self._sorted() if self._few else self._from_index()
        if self._least is not None:
            rows = rows.where(abnormality >= as_stored(self._least))
        if place is not None:
            here = sa.tuple_(as_stored(place.abnormality or 0), sa.literal(place.study_id))
            each = sa.tuple_(abnormality, study_id)
            rows = rows.where(each > here if upwards else each < here)
        columns = (abnormality, study_id)
        rows = rows.order_by(*(column.asc() if upwards else column.desc() for column in columns)).limit(count)
        return [Place(*row) for row in self._session.execute(rows)]

    def _from_index(self) -> tuple[Any, Any, sa.Select[*tuple[Any, ...]]]:
        job, other = aliased(Job), aliased(Job)
        is_higher = sa.tuple_(other.abnormality, other.id) > sa.tuple_(job.abnormality, job.id)
        higher = sa.select(other.id).where(*self._rated.of_study(other, job.study_id), is_higher).offset(0)
        tests = [way.test(job.study_id) for way in self._ways]
        rows = sa.select(job.abnormality, job.study_id)
        rows = rows.where(*self._rated.rows(job), *bounds_of(job.study_id, self._query), *tests, ~higher.exists())
        return job.abnormality, job.study_id, rows

    def _sorted(self) -> tuple[Any, Any, sa.Select[*tuple[Any, ...]]]:
        first, *others = self._ways
        tests = [way.test(first.study_id) for way in others]
        where = [*first.where, *first.also, *tests, *bounds_of(first.study_id, self._query)]
        few = sa.select(first.study_id.label("study_id")).where(*where).distinct().subquery("few")
        highest = self._highest(few.c.study_id).lateral("highest")
        rows = sa.select(highest.c.abnormality, few.c.study_id).select_from(few).join(highest, sa.true())
        return highest.c.abnormality, few.c.study_id, rows.where(highest.c.abnormality.is_not(None))

    def _without_one(self, place: Place | None, count: int, *, upwards: bool) -> list[Place]:
        """Return studies without a probability, from a place, by default from the beginning."""
        if count <= 0 or self._least is not None:
            return []
        cursor = {"after" if upwards else "before": place.study_id if place else None}
        query = self._query.model_copy(update={"limit": count} | cursor)
        rows = walk(self._ways, query, upwards=upwards, test=lambda study_id: ~self._rated.has(study_id)).limit(count)
        return [Place(None, study_id) for study_id in self._session.scalars(rows)]

    def _highest(self, study_id: Any) -> sa.Select[float | None]:
        """Select the highest probability of a study."""
        job = aliased(Job)
        highest = sa.func.max(job.abnormality).label("abnormality")
        images = sa.select(highest).join(Image, Image.id == job.image_id).where(Image.study_id == study_id)
        return images.where(job.model_id == self._rated.model_id, job.state == JobState.SUCCEEDED)
