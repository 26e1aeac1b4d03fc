"""The conditions of searches for studies, and how they are combined, fast for any number of studies.

Each condition is a *way* to studies: an index that yields the matching studies in the order of their ids, and a test of
a single study. The way with the fewest studies is read until the page is full; the other conditions are tested on it.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from api.contract.study_list import StudiesQuery
from shared.ids import first_id_at
from shared.models import registry
from shared.queue.top_scores import tenth_of
from shared.studies.results import counts_in_search, is_standing
from shared.suggestions import UnknownName
from shared.tables import Image, Job, Study, Submission, TopScore
from shared.tables.jobs import abnormality_tenth
from shared.tables.studies import is_flagged
from shared.vocabulary.flags import Flag
from shared.vocabulary.states import JobState

#: Maximum number of studies to count for a way.
MAX_COUNTED = 20_000
_PRIORITIES = range(10)

StudyId = InstrumentedAttribute[UUID]


@dataclass(frozen=True)
class Way:
    """A condition, as an index and a test."""

    #: The rows to read, from an index whose last column is the study's id.
    study_id: StudyId
    where: Sequence[sa.ColumnElement[bool]]
    #: Returns whether a study meets the condition.
    test: Callable[[StudyId], sa.ColumnElement[bool]]
    #: Several values of the index's first columns, if the condition has them; the rows of each value are ordered.
    runs: sa.TableValuedAlias | None = None
    #: Further conditions on a row that the index does not cover.
    also: Sequence[sa.ColumnElement[bool]] = ()

    def newest(self) -> sa.ScalarSelect[UUID]:
        """Select the newest study of this way."""
        rows = sa.select(self.study_id.label("study_id")).where(*self.where).order_by(self.study_id.desc()).limit(1)
        if self.runs is None:
            return rows.scalar_subquery()
        run = rows.correlate(self.runs).lateral("newest")
        newest = sa.select(run.c.study_id).select_from(self.runs).join(run, sa.true())
        return newest.order_by(run.c.study_id.desc()).limit(1).scalar_subquery()


def rarest_first(session: Session, ways: Sequence[Way], query: StudiesQuery) -> Sequence[Way]:
    """Sort the ways by the number of their studies, the fewest first."""
    return sorted(ways, key=lambda way: count(session, way, query)) if len(ways) > 1 else ways


def walk(
    ways: Sequence[Way],
    query: StudiesQuery,
    *,
    upwards: bool = False,
    test: Callable[[StudyId], sa.ColumnElement[bool]] = lambda _: sa.true(),
) -> sa.Select[UUID]:
    """Select the ids of the studies of the first way that match the other ways and a further test, in order."""
    first, *others = ways
    # Without this limit, the newest studies of the first way would be read unnecessarily.
    tests = [test for way in others for test in (first.study_id <= way.newest(), way.test(first.study_id))]
    rows = sa.select(first.study_id.label("study_id")).where(
        *first.where, *first.also, *tests, *bounds_of(first.study_id, query), test(first.study_id)
    )
    rows = rows.distinct().order_by(first.study_id.asc() if upwards else first.study_id.desc())
    if first.runs is None:
        return rows
    run = rows.limit(query.limit + 1).correlate(first.runs).lateral("run")
    merged = sa.select(run.c.study_id).select_from(first.runs).join(run, sa.true()).distinct()
    return merged.order_by(run.c.study_id.asc() if upwards else run.c.study_id.desc())


def count(session: Session, way: Way, query: StudiesQuery) -> int:
    """Count the rows of a way, up to `MAX_COUNTED`."""
    rows = sa.select(sa.literal(1)).where(*way.where, *bounds_of(way.study_id, query))
    if way.runs is not None:
        run = rows.limit(MAX_COUNTED).correlate(way.runs).lateral("run")
        rows = sa.select(sa.literal(1)).select_from(way.runs).join(run, sa.true())
    return session.scalar(sa.select(sa.func.count()).select_from(rows.limit(MAX_COUNTED).subquery())) or 0


def bounds_of(study_id: StudyId, query: StudiesQuery) -> list[sa.ColumnElement[bool]]:
    """Return the limits of the page's cursor and of the times of receipt; ids start with their time."""
    bounds = []
    if query.before is not None:
        bounds.append(study_id < query.before)
    if query.after is not None:
        bounds.append(study_id > query.after)
    if query.received_from is not None:
        bounds.append(study_id >= first_id_at(query.received_from))
    if query.received_before is not None:
        bounds.append(study_id < first_id_at(query.received_before))
    return bounds


def ways_of(session: Session, project_id: UUID, query: StudiesQuery) -> list[Way]:
    """Return the conditions of a query, the most selective ones first if many studies match each."""
    ways = []
    if query.q is not None:
        ways.append(_by_text(session, project_id, query))
    if query.flag is not None:
        ways.append(_by_flag(project_id, query.flag))
    if query.finding is not None:
        _require_class(session, query.finding)
        ways.append(_by_finding(project_id, query.finding, query.min_score))
    if query.min_abnormality is not None:
        ways.append(by_abnormality(session, project_id, query.min_abnormality))
    if query.state is not None or query.priority is not None:
        states = query.state.job_states if query.state is not None else list(JobState)
        by_job = _by_job(project_id, states, _PRIORITIES if query.priority is None else [query.priority])
        # Almost all studies with findings have a result, so this condition comes last.
        ways.insert(len(ways) if JobState.SUCCEEDED in states else 0, by_job)
    return ways or [Way(Study.id, [Study.project_id == project_id], lambda _: sa.true())]


def _require_class(session: Session, name: str) -> None:
    known = registry.class_names(session)
    if known and name not in known:
        raise UnknownName("class", name, known, parameter="finding")


def _by_job(project_id: UUID, states: Sequence[str], priorities: Sequence[int]) -> Way:
    """Studies by the job that determines the state of any image."""
    pairs = [(str(state), priority) for state in states for priority in priorities]
    runs = (
        sa.func.unnest(
            sa.literal([state for state, _ in pairs], ARRAY(sa.Text())),
            sa.literal([priority for _, priority in pairs], ARRAY(sa.SmallInteger())),
        )
        .table_valued("state", "priority", name="runs")
        .render_derived()
    )
    job, other = aliased(Job), aliased(Job)
    where = [job.project_id == project_id, job.state == runs.c.state, job.priority == runs.c.priority]

    def test(study_id: StudyId) -> sa.ColumnElement[bool]:
        image = aliased(Image)
        of_study = sa.select(other.id).join(image, image.id == other.image_id).where(image.study_id == study_id)
        of_study = of_study.where(other.state.in_(states), other.priority.in_(priorities), is_standing(other))
        return _exists(of_study)

    return Way(job.study_id, where, test, runs, [is_standing(job)])


def _by_finding(project_id: UUID, class_name: str, min_score: float) -> Way:
    """Studies by a class in the authoritative result of any image; for an image without one, in any result."""
    tenths = sa.literal(list(range(tenth_of(min_score), 11)), ARRAY(sa.SmallInteger()))
    runs = sa.func.unnest(tenths).table_valued("tenth", name="runs").render_derived()
    of_class = [TopScore.class_name == class_name, TopScore.score >= min_score]
    where = [TopScore.project_id == project_id, TopScore.tenth == runs.c.tenth, *of_class]

    def test(study_id: StudyId) -> sa.ColumnElement[bool]:
        return _exists(sa.select(TopScore.job_id).where(TopScore.study_id == study_id, *of_class, counts_in_search()))

    return Way(TopScore.study_id, where, test, runs, [counts_in_search()])


def by_abnormality(session: Session, project_id: UUID, least: float) -> Way:
    """Studies by the probability of any finding in the authoritative result of any image."""
    rated = Rated(project_id, registry.active_id(session))
    job = aliased(Job)
    tenths = sa.func.generate_series(sa.cast(abnormality_tenth(as_stored(least)), sa.Integer), 10)
    runs = tenths.table_valued("tenth", name="runs").render_derived()
    where = [*rated.rows(job), abnormality_tenth(job.abnormality) == runs.c.tenth, job.abnormality >= as_stored(least)]
    return Way(job.study_id, where, lambda study_id: rated.has(study_id, least), runs)


@dataclass(frozen=True)
class Rated:
    """The results of a project with a probability of any finding that count: those of the active model."""

    project_id: UUID
    #: The active model, if there is one.
    model_id: UUID | None

    def rows(self, job: type[Job]) -> list[sa.ColumnElement[bool]]:
        """Return the conditions of the indexes of these results."""
        return [job.project_id == self.project_id, job.model_id == self.model_id, job.abnormality.is_not(None)]

    def of_study(self, job: type[Job], study_id: Any) -> list[sa.ColumnElement[bool]]:
        """Return the conditions of a study's results, found through its images."""
        images = sa.select(Image.id).where(Image.study_id == study_id).correlate_except(Image)
        return [
            job.image_id.in_(images),
            job.model_id == self.model_id,
            job.state == JobState.SUCCEEDED,
            job.abnormality.is_not(None),
        ]

    def has(self, study_id: StudyId, least: float = 0) -> sa.ColumnElement[bool]:
        """Return whether a study has such a result, with at least this probability."""
        job = aliased(Job)
        return _exists(sa.select(job.id).where(*self.of_study(job, study_id), job.abnormality >= as_stored(least)))


def as_stored(abnormality: float) -> sa.ColumnElement[float]:
    """Return a probability in the precision of its column, so that a number compares equal to itself.

    PostgreSQL refuses to round a tiny number to 0.
    """
    (stored,) = struct.unpack("f", struct.pack("f", abnormality))
    return sa.cast(stored, sa.REAL)


def _by_flag(project_id: UUID, flag: Flag) -> Way:
    """Studies by a flag of any image."""
    image, other = aliased(Image), aliased(Image)

    where = [image.project_id == project_id, is_flagged(image), image.flags.contains([flag])]

    def test(study_id: StudyId) -> sa.ColumnElement[bool]:
        return _exists(sa.select(other.id).where(other.study_id == study_id, other.flags.contains([flag])))

    return Way(image.study_id, where, test)


def _exists(rows: sa.Select[UUID]) -> sa.ColumnElement[bool]:
    """Return whether such rows exist, tested for each study separately.

    Without the OFFSET, the planner may use a join instead, and read all rows that meet this condition.
    """
    return rows.offset(0).exists()


def _by_text(session: Session, project_id: UUID, query: StudiesQuery) -> Way:
    """Studies by an exact id or UID, or the beginning of a digest."""
    image = sa.select(Image.study_id).where(Image.project_id == project_id)
    study = sa.select(Study.id).where(Study.project_id == project_id)
    sought = []
    if query.id_sought is not None:
        job = sa.select(Job.study_id).where(Job.project_id == project_id, Job.id == query.id_sought)
        sought += [study.where(Study.id == query.id_sought), image.where(Image.id == query.id_sought), job]
        mine = sa.exists().where(Submission.id == query.id_sought, Submission.project_id == project_id)
        if session.scalar(sa.select(mine)):
            return _by_submission(query.id_sought)
    if query.digest_sought is not None:
        # Digests with this beginning sort between it and it followed by `g`, which no digest contains.
        sought.append(image.where(Image.sha256.between(query.digest_sought, query.digest_sought + "g")))
    if query.uid_sought is not None:
        sought.append(study.where(Study.study_instance_uid == query.uid_sought))
    study_ids = session.scalars(sa.union(*sought)).all()
    return Way(Study.id, [Study.id.in_(study_ids)], lambda study_id: study_id.in_(study_ids))


def _by_submission(submission_id: UUID) -> Way:
    """Studies by the submission that requested a job for any image."""
    job, other = aliased(Job), aliased(Job)

    def test(study_id: StudyId) -> sa.ColumnElement[bool]:
        return _exists(sa.select(other.id).where(other.submission_id == submission_id, other.study_id == study_id))

    return Way(job.study_id, [job.submission_id == submission_id], test)
