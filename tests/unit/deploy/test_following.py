"""What is shown of a training and an evaluation while they run."""

from typing import Any

from api.contract.datasets import DatasetAnswer
from api.contract.schedules import GateDecisionAnswer
from api.contract.training import EvaluationAnswer, TaskAnswer, TrainingAnswer
from deploy.cli.following import measure
from shared.vocabulary.states import TaskState

PROGRESS = {
    "epoch": 1,
    "epochs": 3,
    "step": 5,
    "steps_in_epoch": 10,
    "steps_done": 15,
    "loss": 0.51234,
    "learning_rate": 0.0005,
    "images_per_s": 12.345,
    "eta_s": 3700,
}


def task(kind: type[TaskAnswer], state: TaskState, progress: dict[str, Any]) -> TaskAnswer:
    values: dict[str, Any] = {"state": state, "progress": progress, "code": None}
    return kind.model_construct(**values)


def test_a_training_tells_its_place_its_loss_and_the_time_left() -> None:
    shown = measure(task(TrainingAnswer, TaskState.RUNNING, PROGRESS))
    assert (shown.done, shown.total) == (15, 30)
    assert shown.words == "epoch 2/3  loss 0.512  lr 0.0005  12.3 images/s  1:01:40 left"


def test_a_training_tells_how_many_images_are_still_to_be_cached() -> None:
    for cached, told in ((1200, True), (15_000, False)):
        progress = PROGRESS | {"images_cached": cached, "images_to_cache": 15_000}
        words = measure(task(TrainingAnswer, TaskState.RUNNING, progress)).words
        assert words.endswith("  1,200 of 15,000 images cached") == told


def test_a_finished_training_has_no_epoch_after_its_last() -> None:
    at_its_end = PROGRESS | {"epoch": 3, "steps_done": 30, "eta_s": 0}
    assert measure(task(TrainingAnswer, TaskState.RUNNING, at_its_end)).words.startswith("epoch 3/3")
    assert measure(task(TrainingAnswer, TaskState.SUCCEEDED, at_its_end)).words == "succeeded"


def test_nothing_is_made_up_before_the_first_report() -> None:
    for kind in (TrainingAnswer, EvaluationAnswer, DatasetAnswer):
        shown = measure(task(kind, TaskState.RUNNING, {}))
        assert (shown.total, shown.words) == (None, "starting")
        assert measure(task(kind, TaskState.CANCELLED, {})).words == "cancelled"
        assert measure(task(kind, TaskState.QUEUED, {})).words == "waiting for a trainer"
    assert measure(task(GateDecisionAnswer, TaskState.RUNNING, {})).words == "comparing with the active model"


def test_an_evaluation_counts_images_then_names_what_it_computes() -> None:
    half = {"images": 8, "images_total": 16}
    shown = measure(task(EvaluationAnswer, TaskState.RUNNING, half))
    assert (shown.done, shown.total, shown.words) == (8, 16, "8 images")
    computing = half | {"images": 16, "computing": "metrics"}
    assert measure(task(EvaluationAnswer, TaskState.RUNNING, computing)).words == "computing metrics"


def test_an_import_counts_images_and_failures() -> None:
    shown = measure(task(DatasetAnswer, TaskState.RUNNING, {"what": "rendering", "done": 3, "total": 9, "failed": 1}))
    assert (shown.done, shown.total, shown.words) == (3, 9, "rendering 3 of 9  1 failed")
