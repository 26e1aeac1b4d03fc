"""Describes studies as lines of a list: in five statements at most, however many studies and images these are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from api.study_list_schemas import StudySummary, TopFinding, Unfitness
from shared.database import is_any
from shared.imaging.facts import Flag
from shared.intake import NO_DUPLICATE
from shared.queue.states import JobState
from shared.reviews.fold import Review
from shared.reviews.rows import fold_jobs
from shared.tables import Detection, Image, Job, ReviewEvent, Study

#: A study with more images than this is not a study, but what somebody's anonymiser made of an archive.
MOST_IMAGES = 1000
#: What a study is said to be whose images differ: the first of these that any of them is.
_WORST_FIRST = (
    JobState.QUEUED,
    JobState.PREPARING,
    JobState.READY,
    JobState.DETECTING,
    JobState.FAILED,
    JobState.REJECTED,
    JobState.CANCELLED,
    JobState.SUCCEEDED,
)


@dataclass
class _Line:
    """What has been gathered of a study."""

    study: Study
    states: Counter[JobState] = field(default_factory=Counter)
    priority: int = 0
    flags: set[Flag] = field(default_factory=set)
    problems: dict[str, Unfitness] = field(default_factory=dict)
    #: Its images that have a result, with the latest job that has succeeded.
    results: dict[UUID, UUID] = field(default_factory=dict)


def summarize(session: Session, study_ids: Sequence[UUID], min_score: float) -> list[StudySummary]:
    """Describe these studies, in their order; findings with a lower score are left out."""
    lines = _gather(session, study_ids)
    results = {job_id: line.study.id for line in lines.values() for job_id in line.results.values()}
    findings = _find_top(session, results, min_score)
    reviews = _find_reviews(session, [image_id for line in lines.values() for image_id in line.results])
    return [
        _describe(lines[study_id], findings.get(study_id, {}), reviews) for study_id in study_ids if study_id in lines
    ]


def _gather(session: Session, study_ids: Sequence[UUID]) -> dict[UUID, _Line]:
    of_study = sa.select(Image.id, Image.flags).where(Image.study_id == Study.id)
    images = of_study.order_by(Image.id.desc()).limit(MOST_IMAGES).correlate(Study).lateral("images")
    of_image = sa.select(Job.id, Job.state, Job.priority, Job.code, Job.reason).where(Job.image_id == images.c.id)
    newest = of_image.order_by(Job.id.desc()).limit(1).correlate(images)
    latest = newest.where(NO_DUPLICATE).lateral("latest")
    result = newest.where(Job.state == JobState.SUCCEEDED).lateral("result")
    rows = (
        sa.select(Study, images.c.id.label("image_id"), images.c.flags, latest, result.c.id.label("result_id"))
        .select_from(Study)
        .join(images, sa.true())
        .join(latest, sa.true())
        .outerjoin(result, sa.true())
        .where(Study.id.in_(study_ids))
    )
    lines: dict[UUID, _Line] = {}
    for row in session.execute(rows):
        line = lines.setdefault(row.Study.id, _Line(row.Study))
        line.flags.update(Flag(flag) for flag in row.flags or ())
        line.states[JobState(row.state)] += 1
        line.priority = max(line.priority, row.priority)
        if row.state in (JobState.REJECTED, JobState.FAILED):
            line.problems.setdefault(row.code, Unfitness(code=row.code, reason=row.reason))
        if row.result_id is not None:
            line.results[row.image_id] = row.result_id
    return lines


def _find_top(session: Session, results: dict[UUID, UUID], min_score: float) -> dict[UUID, dict[str, float]]:
    """The highest score of each class of each study where any was found; `results` has the studies of jobs."""
    found: dict[UUID, dict[str, float]] = {}
    top = sa.func.max(Detection.score)
    rows = sa.select(Detection.job_id, Detection.class_name, top).group_by(Detection.job_id, Detection.class_name)
    for job_id, class_name, score in session.execute(
        rows.where(is_any(Detection.job_id, results), Detection.score >= min_score)
    ):
        classes = found.setdefault(results[job_id], {})
        classes[class_name] = max(score, classes.get(class_name, 0.0))
    return found


def _find_reviews(session: Session, image_ids: Sequence[UUID]) -> dict[UUID, Review]:
    """The latest review of each image of which anything was said."""
    reviewed = sa.select(ReviewEvent.image_id, ReviewEvent.job_id).where(is_any(ReviewEvent.image_id, image_ids))
    reviewed = reviewed.group_by(ReviewEvent.image_id, ReviewEvent.job_id)
    last_wins = reviewed.order_by(sa.func.max(ReviewEvent.created_at), ReviewEvent.job_id)
    jobs = dict(session.execute(last_wins).all())
    reviews = fold_jobs(session, jobs.values())
    return {image_id: reviews[job_id] for image_id, job_id in jobs.items()}


def _describe(line: _Line, findings: dict[str, float], reviews: Mapping[UUID, Review]) -> StudySummary:
    best_first = sorted(findings.items(), key=lambda each: (-each[1], each[0]))
    said = [reviews[image_id] for image_id in line.results if image_id in reviews and reviews[image_id].readers]
    is_done = len(said) == len(line.results) and all(review.is_complete for review in said)
    return StudySummary(
        id=line.study.id,
        study_instance_uid=line.study.study_instance_uid,
        created_at=line.study.created_at,
        image_count=line.states.total(),
        state=next(state for state in _WORST_FIRST if line.states[state]),
        states={state: line.states[state] for state in _WORST_FIRST if line.states[state]},
        priority=line.priority,
        flags=sorted(line.flags),
        findings=[TopFinding(class_name=name, score=score) for name, score in best_first],
        problems=list(line.problems.values()),
        review=("done" if is_done else "begun") if said else None,
    )
