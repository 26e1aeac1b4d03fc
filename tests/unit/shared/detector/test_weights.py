"""Weights travel unharmed, usual checkpoints load, and what does not fit is refused in one sentence."""

import argparse
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as save_safetensors
from torchvision.models import detection

from shared.detector.architectures import ARCHITECTURES, Architecture
from shared.detector.card import Category
from shared.detector.checkpoints import read_checkpoint
from shared.detector.families import build
from shared.detector.weights import decode_weights, encode_weights, import_checkpoint, load_model
from shared.errors import InvalidModelFile

#: The architectures that torchvision has under the same names.
TORCHVISIONS = [architecture for architecture in ARCHITECTURES if hasattr(detection, architecture)]
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


@pytest.mark.parametrize("architecture", TORCHVISIONS)
def test_torchvisions_checkpoints_are_recognised_and_keep_every_weight(architecture: Architecture) -> None:
    state = torchvision_state(architecture)
    card, weights = import_checkpoint(saved(state), CATEGORIES)
    assert card.architecture == architecture
    assert [category.id for category in card.categories] == [1, 4, 7, 10]
    ours = load_model(card, weights).state_dict()
    assert ours.keys() >= {key for key in state if not key.endswith("num_batches_tracked")}
    assert all(torch.equal(ours[key], state[key]) for key in ours if not key.endswith("num_batches_tracked"))


WRAPPINGS: dict[str, Callable[[State], object]] = {
    "plain": lambda state: state,
    "model_state_dict": lambda state: {"model_state_dict": state, "epoch": 3, "loss": 0.1},
    "state_dict": lambda state: {"state_dict": state, "optimizer": {"lr": 0.1}},
    "model with a command line": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
    "distributed": lambda state: {"model": under("module.", state)},
    "compiled": lambda state: under("_orig_mod.", state),
    "distributed and compiled": lambda state: {"state_dict": under("module._orig_mod.", state)},
    "a compiled backbone": lambda state: {
        key.replace("backbone.", "backbone._orig_mod.", 1): value for key, value in state.items()
    },
    "Lightning": lambda state: {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": under("model.", state) | {"criterion.weight": torch.zeros(5)},
        "hyper_parameters": {"lr": 1e-3, "folder": Path("films"), "best": np.float64(0.4)},
        "callbacks": {"EarlyStopping": {"best_score": torch.tensor(0.3)}},
    },
    "Lightning around a compiled network": lambda state: {"state_dict": under("net._orig_mod.", state)},
    "torchvision's average": lambda state: {
        "model": scrambled(state),
        "model_ema": {"n_averaged": torch.tensor(7), **under("module.", state)},
        "args": argparse.Namespace(lr=0.1),
    },
    "timm's average": lambda state: {"state_dict": scrambled(state), "state_dict_ema": state},
    "an average with its counter": lambda state: {
        "model": scrambled(state),
        "ema": {"module": state, "updates": 5},
    },
    "an average beside the network": lambda state: {
        "state_dict": under("model.", scrambled(state)) | under("ema_model.module.", state)
    },
    "an average without names": lambda state: {
        "model": state,
        "ema": {"decay": 0.99, "shadow_params": list(state.values())},
    },
    "an older torchvision's names": lambda state: {
        key.replace("conv.0.0.", "conv.").replace("_blocks.0.0.", "_blocks.0."): value for key, value in state.items()
    },
    "counters of batch norm": lambda state: {
        **state,
        "backbone.body.0.1.num_batches_tracked": torch.tensor(9),
    },
}


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def scrambled(state: State) -> State:
    return {key: value + 1 for key, value in state.items()}


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


def scripted() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch would have us use something newer.
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), buffer)
    return buffer.getvalue()


SCORES = "roi_heads.box_predictor.cls_score.weight"
REFUSALS: dict[str, tuple[Callable[[State], bytes], str]] = {
    "classes": (
        lambda state: saved({**state, SCORES: torch.zeros(15, 1024)}),
        "The checkpoint's box head predicts 15 classes with background, but 4 categories were given.",
    ),
    "shape": (
        lambda state: saved({**state, "rpn.head.conv.0.0.weight": torch.zeros(9, 256, 1, 1)}),
        "The checkpoint's rpn.head.conv.0.0.weight has shape [9, 256, 1, 1], but fasterrcnn_mobilenet_v3_large_320",
    ),
    "missing": (
        lambda state: saved(without(state, SCORES)),
        f"The checkpoint lacks 1 weights of fasterrcnn_mobilenet_v3_large_320_fpn, for example {SCORES}.",
    ),
    "unexpected": (
        lambda state: saved({**state, "mask_head.weight": torch.zeros(1)}),
        "The checkpoint has 1 weights that fasterrcnn_mobilenet_v3_large_320_fpn does not, for example mask_head",
    ),
    "anchors": (
        lambda state: saved({**state, "rpn.head.cls_logits.weight": torch.zeros(9, 256, 1, 1)}),
        "The checkpoint has 9 anchors at each place, but the card has 15 (5 sizes on a level, 3 aspect ratios).",
    ),
    "two detectors": (
        lambda state: saved(under("student.", state) | under("teacher.", state)),
        "The checkpoint holds several detectors, by the prefixes of its keys: student. and teacher.",
    ),
    "the same weight twice": (
        lambda state: saved(state | under("module.", state)),
        "The checkpoint has two weights for ",
    ),
    "whole numbers": (
        lambda state: saved({**state, SCORES: torch.zeros(5, 1024, dtype=torch.int8)}),
        f"The checkpoint's {SCORES} is not a dense tensor of real numbers.",
    ),
    "background among the classes": (
        lambda state: saved({**state, SCORES: torch.zeros(4, 1024)}),
        "The checkpoint's box head predicts 4 classes with background, but 4 categories were given.",
    ),
    "a whole module": (
        lambda _: saved(torch.nn.Linear(1, 1)),
        "The checkpoint is not a plain state dict: it holds Python objects (torch.nn.modules.linear.Linear)",
    ),
    "TorchScript": (lambda _: scripted(), "The checkpoint is a TorchScript program."),
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_taken_as_they_are(state: State, dtype: torch.dtype) -> None:
    card, weights = import_checkpoint(saved({key: value.to(dtype) for key, value in state.items()}), CATEGORIES)
    ours = load_model(card, weights).state_dict()
    assert all(torch.equal(ours[key], state[key].to(dtype).float()) for key in ours)


@pytest.mark.parametrize(
    ("wrapping", "note"),
    [
        ("torchvision's average", "The moving average of the weights (model_ema) was taken, not the last weights."),
        ("an average beside the network", "The moving average of the weights (ema_model.*) was taken, not the last"),
        (
            "an average without names",
            "The last weights were taken, not the moving average (ema): its form is not known.",
        ),
        ("Lightning", "1 weights outside model.* were left out, for example criterion.weight."),
    ],
)
def test_what_was_chosen_or_left_out_is_said(state: State, wrapping: str, note: str) -> None:
    (said,) = read_checkpoint(saved(WRAPPINGS[wrapping](state))).notes
    assert said.startswith(note)


def test_what_weights_cannot_tell_is_on_the_card(state: State) -> None:
    said: dict[str, Any] = {
        "canvas_px": 512,
        "anchor_sizes_px": ((8, 16, 32),) * 3,
        "anchor_aspect_ratios": (0.5, 0.8, 1, 1.25, 2),
        "image_mean": (0.5, 0.4, 0.3),
        "image_std": (0.1, 0.2, 0.3),
        "batch_norm_eps": 0.0,
        "score_threshold": 0.2,
        "nms_iou": 0.3,
        "max_detections": 7,
        "rendition_version": 1,
        "trained_on": "films",
    }
    card, weights = import_checkpoint(saved(state), CATEGORIES, **said)
    assert card.model_dump(include=set(said)) == said
    norm = load_model(card, weights).backbone.body["0"][1]
    assert norm.eps == 0


@pytest.mark.parametrize(
    ("architecture", "eps"),
    [("fasterrcnn_resnet50_fpn", 0), ("retinanet_resnet50_fpn", 0), ("fasterrcnn_resnet50_fpn_v2", 1e-5)],
)
def test_torchvisions_own_coco_detectors_have_their_epsilon(architecture: Architecture, eps: float) -> None:
    state = torchvision_state(architecture, classes=91)
    categories = [Category(id=index, name=f"class {index}") for index in range(1, 91)]
    assert import_checkpoint(saved(state), categories)[0].batch_norm_eps == eps
    assert import_checkpoint(saved(state), categories, batch_norm_eps=1e-4)[0].batch_norm_eps == 1e-4
