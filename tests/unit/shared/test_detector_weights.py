"""Weights travel unharmed, usual checkpoints load, and what does not fit is refused in one sentence."""

import argparse
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as save_safetensors
from torchvision.models import detection

from shared.detector.architectures import build
from shared.detector.card import Architecture, Category
from shared.detector.weights import decode_weights, encode_weights, import_checkpoint, load_model
from shared.errors import InvalidModelFile

CATEGORIES = [Category(id=3 * index + 1, name=f"class {index}") for index in range(4)]
State = dict[str, Any]


def torchvision_state(architecture: str, classes: int = len(CATEGORIES) + 1) -> State:
    torch.manual_seed(0)
    factory = getattr(detection, architecture)
    state: State = factory(weights=None, weights_backbone=None, num_classes=classes).state_dict()
    return state


@pytest.fixture(scope="module")
def state() -> State:
    return torchvision_state("fasterrcnn_mobilenet_v3_large_320_fpn")


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("architecture", ["fasterrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_torchvisions_checkpoints_are_recognised_and_keep_every_weight(architecture: Architecture) -> None:
    state = torchvision_state(architecture)
    card, weights = import_checkpoint(saved(state), CATEGORIES)
    assert card.architecture == architecture
    assert [category.id for category in card.categories] == [1, 4, 7, 10]
    ours = load_model(card, weights).state_dict()
    assert ours.keys() == {key for key in state if not key.endswith("num_batches_tracked")}
    assert all(torch.equal(ours[key], state[key]) for key in ours)


WRAPPINGS: dict[str, Callable[[State], object]] = {
    "plain": lambda state: state,
    "model_state_dict": lambda state: {"model_state_dict": state, "epoch": 3, "loss": 0.1},
    "state_dict": lambda state: {"state_dict": state, "optimizer": {"lr": 0.1}},
    "model with a command line": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
    "distributed": lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrapped_checkpoints_give_the_same_model(state: State, wrapping: str, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pth"
    file.write_bytes(saved(WRAPPINGS[wrapping](state)))
    assert import_checkpoint(file, CATEGORIES) == import_checkpoint(saved(state), CATEGORIES)


def test_a_safetensors_checkpoint_gives_the_same_model(state: State) -> None:
    assert import_checkpoint(save_safetensors(state), CATEGORIES) == import_checkpoint(saved(state), CATEGORIES)


class Code:
    """An object that runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("exit 1",)


def without(state: State, name: str) -> State:
    return {key: value for key, value in state.items() if key != name}


SCORES = "roi_heads.box_predictor.cls_score.weight"
REFUSALS: dict[str, tuple[Callable[[State], bytes], str]] = {
    "classes": (
        lambda state: saved({**state, SCORES: torch.zeros(15, 1024)}),
        "The checkpoint's box head predicts 15 classes with background, but 4 categories were given.",
    ),
    "shape": (
        lambda state: saved({**state, "rpn.head.cls_logits.weight": torch.zeros(9, 256, 1, 1)}),
        "The checkpoint's rpn.head.cls_logits.weight has shape [9, 256, 1, 1], but fasterrcnn_mobilenet_v3_large_320",
    ),
    "missing": (
        lambda state: saved(without(state, SCORES)),
        f"The checkpoint lacks 1 weights of fasterrcnn_mobilenet_v3_large_320_fpn, for example {SCORES}.",
    ),
    "unexpected": (
        lambda state: saved({**state, "mask_head.weight": torch.zeros(1)}),
        "The checkpoint has 1 weights that fasterrcnn_mobilenet_v3_large_320_fpn does not, for example mask_head",
    ),
    "not finite": (
        lambda state: saved({**state, SCORES: torch.full((5, 1024), torch.nan)}),
        "The checkpoint holds weights that are not finite numbers.",
    ),
    "another network": (lambda _: saved({"conv.weight": torch.zeros(1)}), "The checkpoint's weights are not those of"),
    "no state dict": (lambda _: saved([1, 2, 3]), "The checkpoint holds no state dict"),
    "empty": (lambda _: saved({}), "The checkpoint holds no state dict"),
    "code": (lambda state: saved({"model": state, "extra": Code()}), "The checkpoint is not a plain state dict"),
    "truncated": (lambda state: saved(state)[:5000], "The checkpoint cannot be read"),
    "no bytes": (lambda _: b"", "The checkpoint cannot be read"),
    "text": (lambda _: b"hello, this is text", "The checkpoint cannot be read"),
    "broken safetensors": (lambda state: save_safetensors(state)[:5000], "The weights are not a safetensors file."),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_checkpoint_that_does_not_fit_is_refused_in_a_sentence(state: State, reason: str) -> None:
    make, sentence = REFUSALS[reason]
    with pytest.raises(InvalidModelFile) as refusal:
        import_checkpoint(make(state), CATEGORIES)
    assert refusal.value.detail.startswith(sentence)


def test_a_stated_architecture_is_held_to(state: State) -> None:
    with pytest.raises(InvalidModelFile, match="weights are not those of fasterrcnn_resnet50_fpn"):
        import_checkpoint(saved(state), CATEGORIES, "fasterrcnn_resnet50_fpn")


def test_half_precision_halves_the_kernels_and_spares_the_variances(state: State) -> None:
    card, weights = import_checkpoint(saved(state), CATEGORIES)
    model = build(card)
    with torch.no_grad():
        model.backbone.body["0"][1].running_var.fill_(1e6)  # Beyond float16.
    half = encode_weights(model.state_dict())
    assert len(half) < 0.52 * len(weights)
    back = decode_weights(half)
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(back[key], tensor, rtol=1e-3, atol=1e-6)
    assert back["backbone.body.0.1.running_var"].max() == 1e6
