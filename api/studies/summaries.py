"""Describes studies as entries of a list, in at most seven statements for any number of studies and images."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from api.contract.models import ModelReference
from api.contract.study_list import OtherModelsFindings, StudySummary, TopFinding, Unfitness
from api.studies.answers import refer_to
from shared.database import is_any
from shared.reviews.fold import Review
from shared.reviews.threads import fold_jobs
from shared.studies.results import NO_DUPLICATE, select_results, standing
from shared.tables import Detection, Image, Job, Model, ReviewEvent, Study
from shared.vocabulary.flags import Flag
from shared.vocabulary.states import JobState, ModelState

#: A study with more images is not a real study; anonymisation tools can give all images of an archive one UID.
MAX_IMAGES = 1000
#: The state of a study is the first of these that any of its images has.
_WORST_FIRST = (*JobState.open(), JobState.FAILED, JobState.REJECTED, JobState.CANCELLED, JobState.SUCCEEDED)


@dataclass(frozen=True)
class _Result:
    """A succeeded job."""

    job_id: UUID
    model_id: UUID
    is_authoritative: bool
    abnormality: float | None


@dataclass
class _Line:
    """The collected data of a study."""

    study: Study
    states: Counter[JobState] = field(default_factory=Counter)
    priority: int = 0
    flags: set[Flag] = field(default_factory=set)
    problems: dict[str, Unfitness] = field(default_factory=dict)
    #: The results by image; the authoritative one first, if there is one.
    results: dict[UUID, list[_Result]] = field(default_factory=dict)


def summarize(session: Session, study_ids: Sequence[UUID], min_score: float) -> list[StudySummary]:
    """Return the entries of these studies, in their order, without findings below a score."""
    lines = _gather(session, study_ids)
    _add_results(session, lines.values())
    results = [result for line in lines.values() for of_image in line.results.values() for result in of_image]
    findings = _find_top(session, [result.job_id for result in results], min_score)
    reviews = _find_reviews(session, [of_image for line in lines.values() for of_image in line.results.values()])
    used = _read_models(session, {result.model_id for result in results})
    models = {model.id: refer_to(model) for model in used}
    return [_describe(lines[study_id], findings, reviews, models) for study_id in study_ids if study_id in lines]


def _gather(session: Session, study_ids: Sequence[UUID]) -> dict[UUID, _Line]:
    of_study = sa.select(Image.id, Image.flags).where(Image.study_id == Study.id)
    images = of_study.order_by(Image.id.desc()).limit(MAX_IMAGES).correlate(Study).lateral("images")
    of_image = sa.select(Job.id, Job.state, Job.priority, Job.code, Job.reason).where(Job.image_id == images.c.id)
    of_image = of_image.where(NO_DUPLICATE).order_by(*(column.desc() for column in standing())).limit(1)
    newest = of_image.correlate(images).lateral("standing")
    rows = (
        sa.select(Study, images.c.id.label("image_id"), images.c.flags, newest)
        .select_from(Study)
        .join(images, sa.true())
        .join(newest, sa.true())
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
        line.results[row.image_id] = []
    return lines


def _add_results(session: Session, lines: Collection[_Line]) -> None:
    """Add the results of the entries' images, then remove images without results."""
    of_images = {image_id: of_image for line in lines for image_id, of_image in line.results.items()}
    columns = (Job.image_id, Job.id, Job.model_id, Job.abnormality, Model.state)
    for row in session.execute(select_results(is_any(Job.image_id, of_images)).with_only_columns(*columns)):
        of_images[row.image_id].append(_Result(row.id, row.model_id, row.state == ModelState.ACTIVE, row.abnormality))
    for line in lines:
        line.results = {image_id: of_image for image_id, of_image in line.results.items() if of_image}


def _read_models(session: Session, model_ids: Collection[UUID]) -> Sequence[Model]:
    """Read models, the most recently active ones first."""
    if not model_ids:
        return []
    known = sa.select(Model).where(Model.id.in_(model_ids))
    return session.scalars(known.order_by(Model.promoted_at.desc().nulls_last(), Model.id.desc())).all()


def _find_top(session: Session, job_ids: Sequence[UUID], min_score: float) -> dict[UUID, dict[str, float]]:
    """Return the highest score of each class, for each result with findings."""
    found: dict[UUID, dict[str, float]] = {}
    top = sa.func.max(Detection.score)
    rows = sa.select(Detection.job_id, Detection.class_name, top).group_by(Detection.job_id, Detection.class_name)
    for job_id, class_name, score in session.execute(
        rows.where(is_any(Detection.job_id, job_ids), Detection.score >= min_score)
    ):
        found.setdefault(job_id, {})[class_name] = score
    return found


def _find_reviews(session: Session, results: Sequence[Sequence[_Result]]) -> dict[UUID, Review]:
    """Return the review of each image's result by job: of the authoritative result, else of the one reviewed last.

    Results without a review are left out.
    """
    candidates = {
        result.job_id: number
        for number, of_image in enumerate(results)
        for result in (of_image[:1] if of_image[0].is_authoritative else of_image)
    }
    reviewed = sa.select(ReviewEvent.job_id).where(is_any(ReviewEvent.job_id, candidates)).group_by(ReviewEvent.job_id)
    last_wins = reviewed.order_by(sa.func.max(ReviewEvent.created_at), ReviewEvent.job_id)
    last = {candidates[job_id]: job_id for job_id in session.scalars(last_wins)}
    return fold_jobs(session, last.values())


def _describe(
    line: _Line,
    findings: Mapping[UUID, Mapping[str, float]],
    reviews: Mapping[UUID, Review],
    models: Mapping[UUID, ModelReference],
) -> StudySummary:
    results = [result for of_image in line.results.values() for result in of_image]
    authoritative = [result for result in results if result.is_authoritative]
    others = {
        model_id: of_model
        for model_id in models
        if (of_model := [one for one in results if one.model_id == model_id and not one.is_authoritative])
    }
    said = [reviews[result.job_id] for result in results if result.job_id in reviews]
    said = [review for review in said if review.readers]
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
        model=next((models[one.model_id] for one in results if one.is_authoritative), None),
        authoritative_results=len(authoritative),
        abnormality=_highest(authoritative),
        findings=_best_first(findings, authoritative),
        other_results=[
            OtherModelsFindings(
                model=models[model_id],
                results=len(of_model),
                abnormality=_highest(of_model),
                findings=_best_first(findings, of_model),
            )
            for model_id, of_model in others.items()
        ],
        problems=list(line.problems.values()),
        review=("done" if is_done else "begun") if said else None,
    )


def _highest(results: Sequence[_Result]) -> float | None:
    return max((result.abnormality for result in results if result.abnormality is not None), default=None)


def _best_first(findings: Mapping[UUID, Mapping[str, float]], results: Sequence[_Result]) -> list[TopFinding]:
    """Return the highest score of each class over these results."""
    best: dict[str, float] = {}
    for result in results:
        for name, score in findings.get(result.job_id, {}).items():
            best[name] = max(score, best.get(name, 0.0))
    ordered = sorted(best.items(), key=lambda each: (-each[1], each[0]))
    return [TopFinding(class_name=name, score=score) for name, score in ordered]
