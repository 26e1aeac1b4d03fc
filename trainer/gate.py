"""The gate as a task: compare a candidate with the active model, and promote it if it is better.

Both are compared on the classes that at least one of them knows, so that the means are over the same classes. A class
that only one model knows counts as 0 for the other, which finds none of its boxes. The explanation names these classes.
In an evaluation, which has no second model, a class that the model does not know is excluded from the means.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from shared.detector.card import Category, ModelCard
from shared.errors import PermanentError, TransientError
from shared.models import registry
from shared.object_store import result_key
from shared.tables import Evaluation, GateDecision, Model
from shared.training.config import GateConfig
from shared.vocabulary.headlines import WITH_NO_FINDING
from trainer.datasets.dataset import Dataset
from trainer.decision import Decision, Unknown, decide
from trainer.evaluate import EvaluationPending, evaluate_model, missing_classes, to_material
from trainer.evaluation.boxes import Boxes
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.paired import PairedGain, paired_gain
from trainer.evaluation.report import Decision as ReportedDecision
from trainer.evaluation.storage import decode_boxes
from trainer.evaluation.summary import Summary
from trainer.lineage import read_dataset
from trainer.rendition_reader import RenditionReader
from trainer.reporting import store_report
from trainer.task import Work

log = structlog.get_logger()

ALREADY_ACTIVE = "The candidate is the active model already, so that there is nothing to decide."


class BaselineChanged(TransientError):
    """Another model became active during the comparison. The gate compares again."""

    code = "baseline_changed"
    counts = False


class Undecidable(PermanentError):
    """The evaluation split allows no comparison."""

    code = "gate_undecidable"


@dataclass(frozen=True)
class _Contest:
    """The models of a comparison and its configuration; `active` is None if no model is active."""

    config: GateConfig
    candidate: ModelCard
    candidate_id: UUID
    active: ModelCard | None
    active_id: UUID | None


def run(work: Work) -> None:
    """Decide about a candidate after both evaluations have finished. Raises `EvaluationPending` until then."""
    contest = _read(work)
    if contest.active_id == contest.candidate_id:
        with work.database.begin() as session:
            work.succeed(session, baseline_model_id=contest.active_id, promoted=False, explanation=ALREADY_ACTIVE)
        return
    candidate_evaluation, active_evaluation = _evaluate(work, contest)
    with work.database.begin() as session:
        dataset = read_dataset(session, work.store, contest.config.evaluation_dataset_id)
        metrics = session.get_one(Evaluation, candidate_evaluation).metrics
        found = _read_boxes(work, session, candidate_evaluation)
        found_before = {} if active_evaluation is None else _read_boxes(work, session, active_evaluation)
    work.report(comparing="candidate and active model")
    compared = dataset.of(contest.config.evaluation.split)
    unknown = _find_unknown(contest, compared)
    material = to_material(dataset, compared.images, found, _known_by_any(unknown, dataset))
    gain = _compare(material.with_found(found_before), material, contest.config)
    decision = decide(
        gain,
        contest.config,
        candidate=contest.candidate.name,
        active=None if contest.active is None else contest.active.name,
        unknown=unknown,
    )
    summary = Summary.model_validate(metrics)
    report_sha256 = _report(work, contest, dataset, material, summary, decision, gain)
    with work.database.begin() as session:
        _require_still_active(session, contest.active_id)
        if decision.promote:
            registry.promote(session, contest.candidate_id)
        session.get_one(Evaluation, candidate_evaluation).report_sha256 = report_sha256
        work.succeed(
            session,
            baseline_model_id=contest.active_id,
            candidate_evaluation_id=candidate_evaluation,
            baseline_evaluation_id=active_evaluation,
            promoted=decision.promote,
            figures=decision.figures,
            explanation=decision.explanation,
        )
    log.info("gate_decided", candidate=str(contest.candidate_id), promoted=decision.promote, passes=decision.passes)


def _read(work: Work) -> _Contest:
    with work.database.begin() as session:
        row = session.get_one(GateDecision, work.claim.task_id)
        candidate = session.get_one(Model, row.candidate_model_id)
        active = registry.active(session)
        return _Contest(
            config=GateConfig.model_validate(row.config),
            candidate=ModelCard.model_validate(candidate.card),
            candidate_id=candidate.id,
            active=None if active is None else ModelCard.model_validate(active.card),
            active_id=None if active is None else active.id,
        )


def _evaluate(work: Work, contest: _Contest) -> tuple[UUID, UUID | None]:
    """Return the evaluations of candidate and active model. Both are requested before waiting for either."""
    pending: EvaluationPending | None = None
    evaluations: dict[UUID, UUID] = {}
    for model_id in filter(None, (contest.candidate_id, contest.active_id)):
        try:
            evaluations[model_id] = evaluate_model(
                work, model_id, contest.config.evaluation_dataset_id, contest.config.evaluation
            )
        except EvaluationPending as error:
            pending = error
    if pending is not None:
        raise pending
    return evaluations[contest.candidate_id], None if contest.active_id is None else evaluations[contest.active_id]


def _read_boxes(work: Work, session: Session, evaluation_id: UUID) -> dict[int, Boxes]:
    sha256 = session.get_one(Evaluation, evaluation_id).detections_sha256
    assert sha256 is not None, "a succeeded evaluation has its detections"
    return decode_boxes(work.store.get(result_key(sha256, "json"), sha256=sha256))


def _find_unknown(contest: _Contest, dataset: Dataset) -> list[Unknown]:
    """Return for each model the classes with a true box in the dataset that it does not know."""
    cards = [card for card in (contest.candidate, contest.active) if card is not None]
    missing = [missing_classes(card.categories, dataset) for card in cards]
    return [
        Unknown(card.name, tuple(each.name for each in classes if each.boxes))
        for card, classes in zip(cards, missing, strict=True)
    ]


def _known_by_any(unknown: Sequence[Unknown], dataset: Dataset) -> tuple[Category, ...]:
    """Return the dataset's classes without those that have a true box and that no model knows."""
    left_out = set.intersection(*(set(each.classes) for each in unknown))
    return tuple(category for category in dataset.categories if category.name not in left_out)


def _compare(active: EvaluationSet, candidate: EvaluationSet, config: GateConfig) -> PairedGain:
    try:
        return paired_gain(
            active,
            candidate,
            samples=config.evaluation.bootstrap_samples,
            seed=config.evaluation.seed,
            confidence=config.confidence,
            with_no_finding=config.metric == WITH_NO_FINDING,
        )
    except ValueError as error:
        raise Undecidable(f"The gate cannot decide on this evaluation set: {error}.") from error


def _report(
    work: Work,
    contest: _Contest,
    dataset: Dataset,
    material: EvaluationSet,
    summary: Summary,
    decision: Decision,
    gain: PairedGain,
) -> str:
    """Write the candidate's report again, with the decision. Returns its SHA-256."""
    return store_report(
        work.store,
        RenditionReader.from_settings(work.settings, work.store),
        card=contest.candidate,
        dataset=dataset,
        split=contest.config.evaluation.split,
        # As in the evaluation: the numbers are those of the classes that the candidate knows.
        material=replace(
            material, categories=tuple(Category(id=scores.id, name=scores.name) for scores in summary.categories)
        ),
        summary=summary,
        decision=ReportedDecision(
            promoted=decision.promote,
            reason=decision.explanation,
            gain=None if contest.active is None else gain,
        ),
    )


def _require_still_active(session: Session, model_id: UUID | None) -> None:
    """Lock the active model until the transaction ends. Raises `BaselineChanged` if it is another one."""
    registry.hold(session)
    active = registry.active(session)
    if (None if active is None else active.id) != model_id:
        raise BaselineChanged
