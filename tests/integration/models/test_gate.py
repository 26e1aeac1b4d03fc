"""The gate with real models on phantoms: it promotes the better one, refuses the worse one, and never on old terms."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from shared.database import Database
from shared.detector.card import Category
from shared.detector.demo import load_demo_model
from shared.errors import CarinaError, NotFound, TransientError
from shared.ids import new_id
from shared.models import registry
from shared.object_store import ObjectStore, result_key
from shared.phantoms import CLASS_NAMES, make_phantom
from shared.settings import Settings
from shared.tables import Evaluation, GateDecision, TrainingRun
from shared.training.config import EvaluationConfig, GateConfig, TrainingConfig
from shared.training.gates import ask_gate
from shared.training.tasks import TaskClaim, cancel_task, claim_task, finish_task, interrupt_task
from shared.vocabulary.states import TaskState
from tests.integration.rows import home
from tests.tiny_dataset import HEIGHT_PX, WIDTH_PX, store_dataset
from tests.tiny_model import make_tiny_model
from trainer import gate
from trainer.gate import ALREADY_ACTIVE, BaselineChanged, Undecidable
from trainer.process import MODULES
from trainer.task import TaskLost, Work

EVALUATION = EvaluationConfig(bootstrap_samples=50)


@dataclass(frozen=True)
class Meddled(Work):
    """A task during whose comparison something else happens."""

    meanwhile: Callable[[], object]

    def report(self, **progress: Any) -> None:
        self.meanwhile()


class Jury:
    """The demo model, which finds phantoms' lesions, one that does not, and a gate between them."""

    def __init__(self, settings: Settings, database: Database, store: ObjectStore) -> None:
        self.settings, self.database, self.store = settings, database, store
        self.dataset = store_dataset(database, store, count=32)
        categories = [Category(id=id_, name=name) for id_, name in enumerate(CLASS_NAMES)]
        with database.begin() as session:
            self.good = registry.register(session, store, *load_demo_model()).id
            self.bad = registry.register(session, store, *make_tiny_model(categories=categories)).id
        self.config = GateConfig(evaluation_dataset_id=self.dataset.id, evaluation=EVALUATION, counted_from_boxes=1)

    def ask(self, candidate: UUID, **changes: Any) -> UUID:
        with self.database.begin() as session:
            return ask_gate(
                session,
                project_id=home(session),
                candidate_model_id=candidate,
                config=self.config.model_copy(update=changes),
            ).id

    def judge(self, candidate: UUID, **changes: Any) -> GateDecision:
        """Ask, and work as a trainer does until nothing is left to do; return the detached row."""
        decision_id = self.ask(candidate, **changes)
        self.work()
        return self.row(decision_id)

    def work(self) -> None:
        while (claim := self.claim()) is not None:
            try:
                importlib.import_module(MODULES[claim.kind]).run(self.work_on(claim))
            except CarinaError as error:
                self.set_back(claim, error)

    def set_back(self, claim: TaskClaim, error: CarinaError) -> None:
        with self.database.begin() as session:
            if isinstance(error, TransientError):
                assert interrupt_task(session, claim)
            else:
                assert finish_task(session, claim, TaskState.FAILED, code=error.code, reason=error.detail)

    def claim(self) -> TaskClaim | None:
        with self.database.begin() as session:
            return claim_task(session, "trainer", lease_s=60)

    def work_on(self, claim: TaskClaim) -> Work:
        return Work(self.settings, self.database, self.store, claim)

    def row(self, decision_id: UUID) -> GateDecision:
        with self.database.begin() as session:
            row = session.get_one(GateDecision, decision_id)
            session.expunge(row)
            return row

    def promote(self, model_id: UUID) -> None:
        with self.database.begin() as session:
            registry.promote(session, model_id)

    @property
    def active(self) -> UUID | None:
        with self.database.begin() as session:
            model = registry.active(session)
            return None if model is None else model.id

    @property
    def evaluations(self) -> list[Evaluation]:
        with self.database.begin() as session:
            rows = list(session.scalars(sa.select(Evaluation).order_by(Evaluation.id)))
            session.expunge_all()
            return rows


@pytest.fixture
def jury(settings: Settings, database: Database, store: ObjectStore, tmp_path: Path) -> Jury:
    changed = {"device": "cpu", "torch_threads": 1, "trainer_cache_folder": str(tmp_path), "precision": "fp32"}
    return Jury(settings.model_copy(update=changed), database, store)


def test_the_better_model_becomes_active_and_the_worse_one_does_not(jury: Jury) -> None:
    refused = jury.judge(jury.bad)
    assert (refused.state, refused.promoted, jury.active) == ("succeeded", False, None), refused.reason
    assert refused.explanation is not None
    assert refused.explanation.startswith("Refused. The lower bound of the gain")
    assert "No model is active" in refused.explanation

    first = jury.judge(jury.good)
    assert (first.promoted, first.baseline_model_id, jury.active) == (True, None, jury.good), first.explanation
    ours = next(row for row in jury.evaluations if row.id == first.candidate_evaluation_id)
    assert (ours.model_id, ours.metrics is not None) == (jury.good, True)
    assert first.figures is not None
    assert first.figures["candidate_map40"] == pytest.approx(ours.metrics["map40"]["value"], abs=1e-12)
    assert first.figures["gain"] == first.figures["candidate_map40"]
    report = jury.store.get(result_key(str(ours.report_sha256), "html"), sha256=str(ours.report_sha256)).decode()
    assert "Decision: promoted" in report
    assert str(first.explanation) in report.replace("&gt;", ">").replace("&#39;", "'")

    worse = jury.judge(jury.bad)
    assert (worse.promoted, worse.baseline_model_id, jury.active) == (False, jury.good, jury.good)
    assert worse.figures is not None
    assert worse.figures["gain"] == pytest.approx(-first.figures["gain"] + refused.figures["gain"])
    assert any(row["drops"] for row in worse.figures["classes"])
    assert {row.state for row in jury.evaluations} == {"succeeded"}
    assert len(jury.evaluations) == 2, "each model was evaluated once"

    jury.promote(jury.bad)
    passed = jury.judge(jury.good, promote=False)
    assert (passed.promoted, passed.figures["passes"], jury.active) == (False, True, jury.bad)
    demanding = jury.judge(jury.good, least_gain=1.0)
    assert (demanding.promoted, demanding.figures["passes"], jury.active) == (False, False, jury.bad)
    better = jury.judge(jury.good)
    assert (better.promoted, better.baseline_model_id, jury.active) == (True, jury.bad, jury.good)
    assert better.figures["low"] > 0

    again = jury.judge(jury.good)
    assert (again.promoted, again.explanation) == (False, ALREADY_ACTIVE)

    meddle(jury)


def meddle(jury: Jury) -> None:
    """Change the world while the gate compares; the evaluations are those of the test above."""
    jury.promote(jury.bad)
    decision_id = jury.ask(jury.good)
    claim = jury.claim()
    assert claim is not None
    with jury.database.begin() as session:
        other = registry.register(session, jury.store, *make_tiny_model(seed=5)).id
    meddled = Meddled(jury.settings, jury.database, jury.store, claim, lambda: jury.promote(other))
    with pytest.raises(BaselineChanged):
        gate.run(meddled)
    assert (jury.row(decision_id).promoted, jury.active) == (None, other)

    jury.promote(jury.bad)

    def cancel() -> None:
        with jury.database.begin() as session:
            cancel_task(session, GateDecision, decision_id)

    with pytest.raises(TaskLost):
        gate.run(Meddled(jury.settings, jury.database, jury.store, claim, cancel))
    assert (jury.row(decision_id).state, jury.active) == ("cancelled", jury.bad), "the promotion went with the task"


def test_a_model_is_not_judged_on_what_it_learnt_from(jury: Jury) -> None:
    """Nor on the same images under another dataset's name."""
    same_images = store_dataset(jury.database, jury.store, name="others", count=8)
    config = TrainingConfig()
    with jury.database.begin() as session:
        learnt = TrainingRun(
            project_id=home(session),
            name="run",
            dataset_id=same_images.id,
            config=config.model_dump(mode="json"),
            config_digest=config.digest,
            state=TaskState.SUCCEEDED,
            model_id=jury.good,
        )
        session.add(learnt)
    decision = jury.judge(jury.good, evaluation=EVALUATION.model_copy(update={"split": "train"}))
    assert (decision.state, decision.code, jury.active) == ("failed", "evaluation_failed", None)
    assert "evaluation_meets_training" in str(decision.reason)


def test_a_class_that_only_one_model_knows_counts_as_0_for_the_other_and_one_of_neither_is_left_out(jury: Jury) -> None:
    with jury.database.begin() as session:
        known = [Category(id=id_, name=name.upper()) for id_, name in enumerate(CLASS_NAMES[:4])]
        small = registry.register(session, jury.store, *make_tiny_model(categories=known)).id
    alone = jury.judge(small)
    assert alone.figures is not None, alone.reason
    compared = {row["name"] for row in alone.figures["classes"] if row["boxes"]}
    assert compared
    assert compared <= {*CLASS_NAMES[:4]}
    assert "not compared" in str(alone.explanation)
    (evaluation,) = jury.evaluations
    assert evaluation.metrics is not None
    assert alone.figures["candidate_map40"] == pytest.approx(evaluation.metrics["map40"]["value"], abs=1e-12)

    jury.promote(jury.good)
    beside = jury.judge(small)
    assert beside.figures is not None, beside.reason
    lost = [row for row in beside.figures["classes"] if row["boxes"] and row["name"] not in CLASS_NAMES[:4]]
    assert {row["candidate_ap40"] for row in lost} == {0.0}
    assert any(row["drops"] for row in lost)
    named = ", ".join(row["name"] for row in lost)
    assert f" does not know {named}: an unknown class counts as 0." in str(beside.explanation)


def test_a_set_without_a_true_box_decides_nothing(jury: Jury) -> None:
    empty = next(number for number in range(200) if not make_phantom(number, HEIGHT_PX, WIDTH_PX, None).lesions)
    blank = store_dataset(jury.database, jury.store, name="blank", count=1, first=empty)
    evaluation = EVALUATION.model_copy(update={"split": "train"})
    decision = jury.judge(jury.good, evaluation_dataset_id=blank.id, evaluation=evaluation)
    assert (decision.state, decision.code, jury.active) == ("failed", Undecidable.code, None)


def test_a_gate_asks_for_what_exists(jury: Jury) -> None:
    with pytest.raises(NotFound):
        jury.ask(new_id())
    with pytest.raises(NotFound):
        jury.ask(jury.good, evaluation_dataset_id=new_id())
