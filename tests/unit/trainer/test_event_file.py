"""A training's figures, as TensorBoard reads them."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.event_file import EventFile


def test_tensorboard_reads_what_was_added(tmp_path: Path) -> None:
    events = EventFile()
    events.add({"loss": 2.5, "learning_rate": 0.1}, 1)
    so_far = events.content()
    events.add({"loss": 1.5}, 300)
    assert events.content().startswith(so_far)
    (tmp_path / "training.tfevents").write_bytes(events.content())
    read = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(1, 2.5), (300, 1.5)]
    assert [event.value for event in read.Scalars("learning_rate")] == [pytest.approx(0.1)]
