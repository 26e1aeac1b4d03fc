"""What is shown of a training and an evaluation while they run."""

from deploy.cli.following import how_far_is_evaluation, how_far_is_training
from shared.tables import Evaluation, TrainingRun
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


def test_a_training_tells_its_place_its_loss_and_the_time_left() -> None:
    shown = how_far_is_training(TrainingRun(state=TaskState.RUNNING, progress=PROGRESS))
    assert (shown.done, shown.total) == (15, 30)
    assert shown.words == "epoch 2/3  loss 0.512  lr 0.0005  12.3 images/s  1:01:40 left"


def test_a_finished_training_has_no_epoch_after_its_last() -> None:
    at_its_end = PROGRESS | {"epoch": 3, "steps_done": 30, "eta_s": 0}
    assert how_far_is_training(TrainingRun(state=TaskState.RUNNING, progress=at_its_end)).words.startswith("epoch 3/3")
    assert how_far_is_training(TrainingRun(state=TaskState.SUCCEEDED, progress=at_its_end)).words == "succeeded"


def test_nothing_is_made_up_before_the_first_report() -> None:
    for row, show in ((TrainingRun, how_far_is_training), (Evaluation, how_far_is_evaluation)):
        shown = show(row(state=TaskState.RUNNING, progress={}))
        assert (shown.total, shown.words) == (None, "starting")
        assert show(row(state=TaskState.CANCELLED, progress={})).words == "cancelled"


def test_an_evaluation_counts_images_then_names_what_it_computes() -> None:
    half = {"images": 8, "images_total": 16}
    shown = how_far_is_evaluation(Evaluation(state=TaskState.RUNNING, progress=half))
    assert (shown.done, shown.total, shown.words) == (8, 16, "8 images")
    computing = half | {"images": 16, "computing": "metrics"}
    assert how_far_is_evaluation(Evaluation(state=TaskState.RUNNING, progress=computing)).words == "computing metrics"
