"""Searches for studies, in pages of either order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from api.contract.study_list import Place, StudiesQuery, StudyCursor, StudyOrder
from api.studies.abnormality_order import AbnormalityOrder
from api.studies.ways import rarest_first, walk, ways_of

#: A page needs a few rows of an index, in order: parallel workers would read many more, and a generic plan does not
#: know how rare the searched values are.
_PLAN_FOR_A_PAGE = sa.text(
    "SELECT set_config('max_parallel_workers_per_gather', '0', true), set_config('random_page_cost', '1.1', true),"
    " set_config('plan_cache_mode', 'force_custom_plan', true)"
)


@dataclass(frozen=True)
class Found:
    """A page of a search in its order, and the cursors of the neighbouring pages."""

    study_ids: Sequence[UUID]
    #: `before` and `after` of the following and of the previous page.
    older: StudyCursor | None
    newer: StudyCursor | None


@dataclass(frozen=True)
class Neighbours:
    """The neighbours of a study in the results of a search."""

    newer: UUID | None
    older: UUID | None


class _Order(Protocol):
    """The studies of a search in an order."""

    def below(self, cursor: StudyCursor | None, count: int) -> list[StudyCursor]:
        """Return the first studies after a place, by default from the beginning, as cursors."""

    def above(self, cursor: StudyCursor, count: int) -> list[StudyCursor]:
        """Return the last studies before a place, in reverse order, as cursors."""

    def place(self, study_id: UUID) -> StudyCursor:
        """Return the place of a study."""


class _NewestFirst:
    """By the time of receipt, which the id of a study contains."""

    def __init__(self, session: Session, project_id: UUID, query: StudiesQuery) -> None:
        self._session, self._query = session, query
        self._ways = rarest_first(session, ways_of(session, project_id, query), query)

    def below(self, cursor: StudyCursor | None, count: int) -> list[StudyCursor]:
        return self._read({"before": cursor, "after": None}, count, upwards=False)

    def above(self, cursor: StudyCursor, count: int) -> list[StudyCursor]:
        return self._read({"before": None, "after": cursor}, count, upwards=True)

    def place(self, study_id: UUID) -> StudyCursor:
        return study_id

    def _read(self, cursors: dict[str, StudyCursor | None], count: int, *, upwards: bool) -> list[StudyCursor]:
        query = self._query.model_copy(update=cursors | {"limit": count})
        return list(self._session.scalars(walk(self._ways, query, upwards=upwards).limit(count)))


def find(session: Session, project_id: UUID, query: StudiesQuery) -> Found:
    """Return a page of a project's studies that match a query."""
    order = _order(session, project_id, query)
    if query.after is not None:
        page = order.above(query.after, query.limit + 1)
        if len(page) > query.limit:
            page = page[query.limit - 1 :: -1]
            return Found(_ids(page), older=page[-1], newer=page[0])
    # Of `after`, the first page is filled.
    found = order.below(query.before, query.limit + 1)
    page = found[: query.limit]
    older = page[-1] if len(found) > query.limit else None
    newer = None if query.before is None else page[0] if page else query.before
    return Found(_ids(page), older, newer)


def find_neighbours(session: Session, project_id: UUID, query: StudiesQuery, study_id: UUID) -> Neighbours:
    """Return the neighbours of a study in the results of a search, even if the study no longer matches."""
    order = _order(session, project_id, query.model_copy(update={"before": None, "after": None}))
    place = order.place(study_id)
    newer, older = _ids(order.above(place, 1)), _ids(order.below(place, 1))
    return Neighbours(newer=newer[0] if newer else None, older=older[0] if older else None)


def _order(session: Session, project_id: UUID, query: StudiesQuery) -> _Order:
    session.execute(_PLAN_FOR_A_PAGE)
    kind = AbnormalityOrder if query.order is StudyOrder.ABNORMALITY else _NewestFirst
    return kind(session, project_id, query)


def _ids(cursors: Sequence[StudyCursor]) -> list[UUID]:
    return [cursor if isinstance(cursor, UUID) else Place.read(cursor).study_id for cursor in cursors]
