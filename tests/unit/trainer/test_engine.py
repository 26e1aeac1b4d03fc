"""What trains is what is to train, in the precision that it needs."""

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from shared.detector.families import build, family_of
from shared.detector.families.targets import Targets
from tests.tiny_images import card_of, tiny_config, tiny_dataset
from trainer.engine import set_training

CARD = card_of(tiny_config(), tiny_dataset(1))
TARGETS = [Targets(torch.tensor([[10.0, 12.0, 40.0, 44.0]]), torch.tensor([1]), torch.ones(1))]


def test_the_statistics_of_batch_norm_stay_what_they_were() -> None:
    model = build(CARD)
    losses_of = family_of(CARD.architecture).make_losses(model, CARD)
    set_training(model)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    images = torch.rand(1, 3, 64, 64)
    losses_of(images, model.backbone(images), TARGETS, [0])
    assert norms
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))


def test_boxes_stay_in_float32_under_autocast() -> None:
    model = build(CARD)
    losses_of = family_of(CARD.architecture).make_losses(model, CARD)
    set_training(model)
    seen: list[torch.dtype] = []
    for module in (model.rpn.head, model.roi_heads.box_predictor):
        module.register_forward_hook(lambda _m, _i, outputs: seen.extend(t.dtype for t in tree_leaves(outputs)))
    with torch.autocast("cpu", torch.bfloat16):
        images = torch.rand(1, 3, 64, 64)
        losses = losses_of(images, model.backbone(images), TARGETS, [0])
    assert set(seen) == {torch.float32}
    assert losses.isfinite().all()
