"""One epoch of training lowers the losses and leaves alone what is frozen; an evaluation goes through serving code."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import ConstantLR
from torch.optim.swa_utils import AveragedModel
from torch.utils._pytree import tree_leaves
from torchvision.models.detection import FasterRCNN

from shared.detector.architectures import BLUEPRINTS, build
from shared.detector.card import Category, ModelCard
from shared.detector.runtime import Detector
from shared.detector.weights import encode_weights
from trainer.engine import Batch, evaluate, keep_boxes_in_float32, train_one_epoch
from trainer.evaluation.boxes import Boxes

SIDE = 96
SQUARE = (24.0, 32.0, 64.0, 72.0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def card() -> ModelCard:
    return ModelCard(
        name="test",
        architecture="carina_small",
        categories=(Category(id=9, name="Disc"), Category(id=4, name="Square")),
        canvas_px=SIDE,
        anchor_sizes_px=BLUEPRINTS["carina_small"].anchor_sizes_px,
        rendition_version=1,
        weights_sha256="0" * 64,
    )


def rendition() -> np.ndarray:
    film = np.full((SIDE, SIDE), 60, np.uint8)
    film[32:72, 24:64] = 220
    return film


def batch_of_squares(card: ModelCard) -> Batch:
    grey = torch.from_numpy(rendition())[None, None].expand(2, 3, -1, -1) / 255
    images = (grey - torch.tensor(card.image_mean)[:, None, None]) / torch.tensor(card.image_std)[:, None, None]
    return Batch(images, [torch.tensor([SQUARE])] * 2, [torch.tensor([card.label_of(4)])] * 2)


def train(model: FasterRCNN, card: ModelCard, epochs: int, *, bf16: bool) -> list[float]:
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=6e-4)
    schedule, average = ConstantLR(optimizer, 1.0), AveragedModel(model)
    batches = [batch_of_squares(card)] * 4
    return [
        sum(train_one_epoch(model, average, batches, optimizer, schedule, bf16=bf16).values()) for _ in range(epochs)
    ]


def test_losses_fall_and_the_square_is_found(card: ModelCard) -> None:
    torch.manual_seed(2)
    model = build(card)
    losses = train(model, card, 9, bf16=False)
    assert min(losses) < 0.5 * losses[0]
    weights = encode_weights(model.state_dict())
    detector = Detector(
        card.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()}), weights, "cpu", "fp32"
    )
    truth = {5: Boxes(np.array([4]), np.array([SQUARE], np.float32), np.ones(1, np.float32))}
    evaluation, seconds = evaluate(detector, [rendition()], truth, [5])
    assert evaluation.absent == [9]
    assert evaluation.mean_ap is not None
    assert evaluation.mean_ap > 0.3
    assert seconds > 0


def test_frozen_layers_and_statistics_stay_as_they_were(card: ModelCard) -> None:
    model = build(card)
    model.backbone.body["0"].requires_grad_(False)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    train(model, card, 1, bf16=False)
    after = model.state_dict()
    frozen = [key for key in before if key.startswith("backbone.body.0.") or "running" in key]
    assert all(torch.equal(before[key], after[key]) for key in frozen)
    assert not torch.equal(before["rpn.head.conv.0.0.weight"], after["rpn.head.conv.0.0.weight"])


def test_boxes_are_computed_in_float32_under_bf16(card: ModelCard) -> None:
    """A layer between runs in bf16; what it hands to the boxes does not."""
    model = build(card)
    keep_boxes_in_float32(model)
    seen: dict[str, torch.dtype] = {}

    def note(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _module, _inputs, out: seen.update({name: tree_leaves(out)[0].dtype}))

    note("inside", model.rpn.head.cls_logits)
    note("objectness", model.rpn.head)
    note("classes", model.roi_heads.box_predictor)
    train(model, card, 1, bf16=True)
    assert seen == {"inside": torch.bfloat16, "objectness": torch.float32, "classes": torch.float32}


def test_a_lost_loss_stops_training(card: ModelCard) -> None:
    model = build(card)
    nn.init.constant_(model.roi_heads.box_predictor.cls_score.weight, torch.inf)
    with pytest.raises(FloatingPointError):
        train(model, card, 1, bf16=False)
