"""The demo detector's training can be interrupted, sees each film once a round, and ends in a model that serves."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import mobilenet_v2
from typer.testing import CliRunner

from shared.detector.card import ModelCard
from shared.detector.runtime import Detector
from trainer import train_demo_detector
from trainer.phantom_set import PhantomSet
from trainer.train_demo_detector import HELD_OUT, app, draft_card, draw_batches, resume, save


@pytest.fixture
def films() -> PhantomSet:
    """Five films that a glance tells apart: each is grey all over, but for one square."""
    pictures = np.stack([np.full((200, 160), 40 * (index + 1), np.uint8) for index in range(5)])
    pictures[:, 80:120, 60:100] = 0
    squares = [np.array([[60, 80, 100, 120]], np.float32)] * 5
    return PhantomSet(range(5), pictures, [np.array([index]) for index in range(5)], squares)


def test_every_film_comes_once_a_round(films: PhantomSet) -> None:
    card = draft_card(448)
    labels = [batch.labels[0].item() for batch in draw_batches(films, card, 1, range(10), batch_size=1)]
    assert sorted(labels[:5]) == sorted(labels[5:]) == [1, 2, 3, 4, 5]
    assert labels[:5] != labels[5:]


def test_a_step_has_the_same_batch_wherever_training_begins(films: PhantomSet) -> None:
    card = draft_card(448)
    whole = list(draw_batches(films, card, 1, range(4), batch_size=2))
    rest = list(draw_batches(films, card, 1, range(2, 4), batch_size=2))
    assert all(torch.equal(one.images, other.images) for one, other in zip(whole[2:], rest, strict=True))
    assert not torch.equal(whole[0].images, whole[1].images)


def test_a_checkpoint_brings_every_part_back(tmp_path: Path) -> None:
    saved, loaded = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert resume(tmp_path / "checkpoint.pt", {"model": loaded}) == 0
    save(tmp_path / "checkpoint.pt", {"model": saved}, 150)
    assert resume(tmp_path / "checkpoint.pt", {"model": loaded}) == 150
    assert torch.equal(saved.weight, loaded.weight)


def test_an_interrupted_training_goes_on_and_ends_in_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tmp_path / "backbone.safetensors"
    save_file(mobilenet_v2(weights=None).features.state_dict(), backbone)
    arguments = ["train", "--backbone-weights", backbone, "--work", tmp_path / "work", "--output", tmp_path / "out"]
    arguments += ["--films", 2, "--held-out-films", 1, "--steps", 2, "--batch-size", 1]
    command = [str(argument) for argument in arguments]
    monkeypatch.setattr(train_demo_detector, "STEPS_PER_EPOCH", 1)
    with monkeypatch.context() as interruption:
        interruption.setattr(train_demo_detector, "save", lambda *parts: (save(*parts), 1 / 0))
        assert isinstance(CliRunner().invoke(app, command).exception, ZeroDivisionError)
    assert not (tmp_path / "out").exists()

    outcome = CliRunner().invoke(app, command, catch_exceptions=False)
    assert outcome.exit_code == 0
    assert "steps 0–1" not in outcome.output
    assert "steps 1–2" in outcome.output
    card = ModelCard.model_validate_json((tmp_path / "out" / "card.json").read_bytes())
    assert card.metrics["training_seeds"] == "0–1"
    assert card.metrics["evaluated_seeds"] == f"{HELD_OUT[0]}–{HELD_OUT[0]}"
    detector = Detector(card, (tmp_path / "out" / "weights.safetensors").read_bytes(), "cpu", "fp32")
    assert len(detector.detect([detector.place(np.full((64, 50), 90, np.uint8))])) == 1
