"""A training resumes as if it had never stopped, on however many ranks, and learns what it is shown."""

import hashlib
import io
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from shared.detector.families import build
from shared.detector.runtime import Detector
from shared.detector.weights import decode_weights, encode_weights
from shared.training.config import Augmentation, TrainingConfig
from tests.recording_checkpointer import RecordingCheckpointer
from tests.tiny_images import card_of, read, tiny_config, tiny_dataset
from trainer.datasets.dataset import Dataset, DatasetImage
from trainer.engine import NonFiniteLoss
from trainer.fit import NothingToTrainOn, Progress, fit
from trainer.ranks import Ranks
from trainer.sampling import plan_epoch
from trainer.task import Interrupted
from trainer.validation import measure_on

ALONE = Ranks(0, 1, torch.device("cpu"))
#: Everything that could tell a resumed run from one that went through.
EVENTFUL = tiny_config(
    accumulate=2,
    ema_decay=0.9,
    repeat_threshold=0.9,
    normal_rate=0.5,
    augmentation=Augmentation(rotate_deg=10, scale=(0.8, 1.1), noise=0.05, cutouts=2, flip_probability=0.5),
)


def run(config: TrainingConfig, dataset: Dataset, checkpointer: RecordingCheckpointer) -> bytes:
    return fit(config, dataset, card_of(config, dataset), lambda model: None, read, ALONE, checkpointer)[1]


def test_a_run_that_resumes_at_any_step_ends_with_the_same_weights_bit_for_bit() -> None:
    dataset = tiny_dataset(9)
    through = RecordingCheckpointer(saves=True)
    weights = run(EVENTFUL, dataset, through)
    assert len(through.checkpoints) >= 4
    for steps, checkpoint in enumerate(through.checkpoints, start=1):
        resumed = RecordingCheckpointer(checkpoint)
        assert run(EVENTFUL, dataset, resumed) == weights, f"after {steps} steps"
        assert [p.figures for p in resumed.progress] == [p.figures for p in through.progress[steps:]]


def test_a_run_that_was_asked_to_stop_saves_this_step_and_goes_on_the_same() -> None:
    dataset, through = tiny_dataset(5), RecordingCheckpointer()
    weights = run(tiny_config(), dataset, through)
    stopped = RecordingCheckpointer(stop_at=2)
    with pytest.raises(Interrupted):
        run(tiny_config(), dataset, stopped)
    assert len(stopped.progress) == 2
    (checkpoint,) = stopped.checkpoints
    assert run(tiny_config(), dataset, RecordingCheckpointer(checkpoint)) == weights


def test_an_epoch_whose_measurement_was_interrupted_is_measured_when_the_run_resumes() -> None:
    dataset, config = tiny_dataset(4), tiny_config(epochs=2)

    class Ended(Exception):
        """The process ends while it measures."""

    def end(_: torch.nn.Module) -> dict[str, float]:
        raise Ended

    killed, card = RecordingCheckpointer(saves=True), card_of(config, dataset)
    with pytest.raises(Ended):
        fit(config, dataset, card, lambda model: None, read, ALONE, killed, end)
    assert len(killed.checkpoints) == 2, "the epoch's last step is saved before it is measured"
    resumed = RecordingCheckpointer(killed.checkpoints[-1])
    fit(config, dataset, card, lambda model: None, read, ALONE, resumed, lambda _: {"ap40": 0.5})
    measured = [progress for progress in resumed.progress if "ap40" in progress.figures]
    assert [progress.position.steps_done for progress in measured] == [2, 4]
    assert [progress.steps_in_epoch for progress in resumed.progress] == [2] * 4


def test_a_run_that_is_asked_to_stop_while_it_measures_saves_this_epoch_and_goes_on_the_same() -> None:
    dataset, config, through = tiny_dataset(4), tiny_config(epochs=2), RecordingCheckpointer()
    weights = run(config, dataset, through)

    def stop(_: torch.nn.Module) -> dict[str, float]:
        raise Interrupted

    stopped, card = RecordingCheckpointer(), card_of(config, dataset)
    with pytest.raises(Interrupted):
        fit(config, dataset, card, lambda model: None, read, ALONE, stopped, stop)
    (checkpoint,) = stopped.checkpoints
    resumed = RecordingCheckpointer(checkpoint)
    after = fit(config, dataset, card, lambda model: None, read, ALONE, resumed, lambda _: {"ap40": 0.5})[1]
    assert after == weights
    measured = [progress.position.steps_done for progress in resumed.progress if "ap40" in progress.figures]
    assert measured == [2, 4]


def test_a_checkpoint_after_a_measurement_is_not_measured_again() -> None:
    dataset, config = tiny_dataset(4), tiny_config(epochs=2)

    class Best(RecordingCheckpointer):
        def is_due(self, progress: Progress) -> bool:
            return not progress.images

    best, resumed, card = Best(), RecordingCheckpointer(), card_of(config, dataset)
    fit(config, dataset, card, lambda model: None, read, ALONE, best, lambda _: {"ap40": 0.5})
    first, _ = best.checkpoints
    resumed.start = first
    fit(config, dataset, card, lambda model: None, read, ALONE, resumed, lambda _: {"ap40": 0.5})
    assert [progress.figures for progress in resumed.progress] == [p.figures for p in best.progress[3:]]


def test_a_measurement_ends_where_a_rank_is_asked_to_stop() -> None:
    config, dataset = tiny_config(evaluate_split="val", images_per_epoch=80), tiny_dataset(20, split="val")
    card, asked = card_of(config, dataset), 0
    model = build(card)

    def must_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    measure = partial(measure_on, config, dataset, card, read, ALONE, "fp32")
    assert set(measure()(model)) <= {"ap40"}
    with pytest.raises(Interrupted):
        measure(must_stop)(model)
    assert asked == 3, "passes of eight images"


def test_a_run_keeps_the_order_of_an_epoch_when_a_machine_leaves_it() -> None:
    """Two machines of one rank, then one: each image of the epoch is used once, whichever machine uses it."""
    dataset, config = tiny_dataset(16), tiny_config(epochs=1)
    both = plan_epoch(dataset.images, config, 0, (0, 1))
    assert both.tolist() != plan_epoch(dataset.images, config, 0).tolist()
    begun = RecordingCheckpointer(saves=True)
    run(config, dataset, begun)
    state = torch.load(io.BytesIO(begun.checkpoints[1]), weights_only=True)
    # As two ranks have stored it after a step of four images.
    state["position"] |= {"step": 1, "steps_done": 1, "together": 4, "machines": [0, 1]}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    read_ids: list[int] = []

    def counted(image: DatasetImage) -> NDArray[np.uint8]:
        read_ids.append(image.image_id)
        return read(image)

    fit(
        config,
        dataset,
        card_of(config, dataset),
        lambda model: None,
        counted,
        ALONE,
        RecordingCheckpointer(buffer.getvalue()),
    )
    assert sorted(read_ids) == sorted(both[4:].tolist())


def test_a_checkpoint_is_read_without_trusting_it() -> None:
    checkpointer = RecordingCheckpointer(saves=True)
    run(tiny_config(epochs=1), tiny_dataset(2), checkpointer)
    state = torch.load(io.BytesIO(checkpointer.checkpoints[-1]), weights_only=True)
    assert set(state) == {"position", "model", "average", "optimizer"}


def test_two_ranks_learn_what_one_with_twice_the_batch_does(tmp_path: Path) -> None:
    """Five images in passes of four: the second rank has none in the last pass of each epoch, and yet takes part."""
    config = tiny_config(batch_size=4, optimizer="sgd", learning_rate=0.01, scale_learning_rate=False)
    alone = RecordingCheckpointer()
    weights = decode_weights(run(config, tiny_dataset(5), alone))
    (tmp_path / "config.json").write_text(config.model_copy(update={"batch_size": 2}).model_dump_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-endpoint=localhost:0"]
    with (tmp_path / "log").open("w+") as output:
        ended = subprocess.run(
            [*command, "--rdzv-backend=c10d", "-m", "tests.unit.trainer.rank", str(tmp_path), "5"],
            stdout=output,
            stderr=output,
            check=False,
        )
        output.seek(0)
        assert ended.returncode == 0, output.read()
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert [p.figures["loss"] for p in alone.progress] == pytest.approx(first["losses"], rel=1e-4)
    assert first["losses"] == second["losses"]
    assert first["exchanges"] == second["exchanges"] == [], "nothing but the gradients is exchanged"
    # The second rank was asked to stop in the second step: all stop after it, and the first one saves.
    assert (first["stopped"], second["stopped"]) == ([2, [2]], [2, []])
    assert first["refusal"] == second["refusal"]
    assert "needs a GPU" in first["refusal"]
    for name, weight in decode_weights((tmp_path / "weights").read_bytes()).items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-3, atol=1e-4, msg=name)


def test_a_model_learns_its_images_and_names_classes_by_the_datasets_ids() -> None:
    dataset = tiny_dataset(3)
    config = tiny_config(epochs=40, batch_size=1, learning_rate=2e-3, ema_decay=0.9, score_threshold=0.3)
    card, weights = fit(
        config, dataset, card_of(config, dataset), lambda model: None, read, ALONE, RecordingCheckpointer()
    )
    detector = Detector(card, weights, "cpu", "fp32")
    for image in dataset.images:
        best = detector.detect([detector.fit_to_canvas(read(image))])[0].detections[0]
        assert best.category_id in image.category_ids
        centre = np.array(best.box_xyxy_px).reshape(2, 2).mean(0)
        boxes = image.boxes_on_rendition
        assert any((box[:2] < centre).all() and (centre < box[2:]).all() for box in boxes)


def test_measuring_after_each_epoch_changes_no_weight() -> None:
    dataset, plain, measured = tiny_dataset(5), RecordingCheckpointer(), RecordingCheckpointer()
    config = tiny_config(evaluate_split="val")
    card = card_of(config, dataset)

    def measure(model: torch.nn.Module) -> dict[str, float]:
        weights = encode_weights(model.state_dict(), torch.float32)
        described = card.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
        detector = Detector(described, weights, "cpu", "fp32")
        return {"found": len(detector.detect([detector.fit_to_canvas(read(dataset.images[0]))])[0].detections)}

    after = fit(config, dataset, card, lambda model: None, read, ALONE, measured, measure)[1]
    assert after == run(config, dataset, plain)
    ends = [progress.position.epoch for progress in measured.progress if "found" in progress.figures]
    assert ends == [1, 2]


def test_frozen_stages_keep_their_weights() -> None:
    frozen, free = RecordingCheckpointer(saves=True), RecordingCheckpointer(saves=True)
    run(tiny_config(epochs=1, frozen_stages=3), tiny_dataset(2), frozen)
    run(tiny_config(epochs=1), tiny_dataset(2), free)
    first, later = "backbone.body.2.conv.0.0.weight", "backbone.body.4.conv.0.0.weight"
    after, unfrozen = (torch.load(io.BytesIO(k.checkpoints[-1]), weights_only=True)["model"] for k in (frozen, free))
    assert not torch.equal(after[first], unfrozen[first])
    begun = RecordingCheckpointer(saves=True)
    run(tiny_config(epochs=1, frozen_stages=3, images_per_epoch=1, batch_size=1), tiny_dataset(1), begun)
    start = torch.load(io.BytesIO(begun.checkpoints[0]), weights_only=True)["model"]
    assert torch.equal(after[first], start[first])
    assert not torch.equal(after[later], start[later])


@pytest.mark.parametrize("learns", [False, True])
def test_batch_norm_learns_only_where_it_is_told_to(learns: bool) -> None:
    config = tiny_config(architecture="fasterrcnn_mobilenet_v2_fpn", train_batch_norm=learns, epochs=1)
    dataset = tiny_dataset(2)
    card, weights = fit(
        config, dataset, card_of(config, dataset), lambda model: None, read, ALONE, RecordingCheckpointer()
    )
    state = decode_weights(weights)
    mean, scale = (state[f"backbone.body.3.conv.0.1.{name}"] for name in ("running_mean", "weight"))
    assert (mean != 0).any() == learns, "random weights come with a mean of 0"
    assert (scale != 1).any() == learns
    Detector(card, weights, "cpu", "fp32")  # The model serves, whichever way its batch norm was made.


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step_s_images() -> None:
    config = tiny_config(learning_rate=10, optimizer="sgd", clip_norm=None, warmup_epochs=0, epochs=20)
    with pytest.raises(NonFiniteLoss, match=r"images \[\d") as caught:
        run(config, tiny_dataset(4), RecordingCheckpointer())
    assert caught.value.batches
    assert set(caught.value.image_ids) <= {0, 1, 2, 3}


def test_without_a_true_box_there_is_nothing_to_train_on() -> None:
    dataset = tiny_dataset(4)
    with pytest.raises(NothingToTrainOn):
        run(
            tiny_config(), Dataset("none", "0" * 64, 1, dataset.categories, dataset.images[3:]), RecordingCheckpointer()
        )
    with pytest.raises(NothingToTrainOn):
        run(tiny_config(), tiny_dataset(4, split="val"), RecordingCheckpointer())
    with pytest.raises(NothingToTrainOn, match="no class"):
        card_of(tiny_config(), Dataset("none", "0" * 64, 1, (), dataset.images[3:]))
