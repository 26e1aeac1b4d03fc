"""Losses of boxes with confidences: torchvision's where all count fully, and what changes with weights."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from shared.detector.architectures import Architecture
from shared.detector.card import ModelCard
from shared.detector.families import build, family_of
from shared.detector.families.seeded_sampler import SeededSampler
from shared.detector.families.targets import BACKGROUND, IGNORED, Targets
from tests.tiny_images import card_of, tiny_config, tiny_dataset
from trainer.engine import set_training

SIDE = 64
IMAGES = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
BOXES = [torch.tensor([[6.0, 8.0, 30.0, 40.0], [20.0, 20.0, 60.0, 60.0]]), torch.empty(0, 4)]
LABELS = [torch.tensor([1, 2]), torch.empty(0, dtype=torch.int64)]
SEEDS = [3, 4]


def card_for(architecture: Architecture, *, multi_label: bool = False) -> ModelCard:
    config = tiny_config(architecture=architecture, labels={"multi_label": multi_label})
    return card_of(config, tiny_dataset(1))


def targets(*confidences: float) -> list[Targets]:
    first = torch.tensor(confidences or (1.0, 1.0))
    return [Targets(BOXES[0], LABELS[0], first), Targets(BOXES[1], LABELS[1], torch.empty(0))]


def trained(card: ModelCard) -> nn.Module:
    torch.manual_seed(5)
    model = build(card)
    set_training(model)
    return model


def losses_of(card: ModelCard, *confidences: float) -> Tensor:
    model = trained(card)
    losses: Tensor = family_of(card.architecture).make_losses(model, card)(
        IMAGES, model.backbone(IMAGES), targets(*confidences), SEEDS
    )
    return losses


def test_boxes_that_count_fully_have_the_losses_of_torchvisions_faster_rcnn() -> None:
    card = card_for("carina_small")
    model = trained(card)
    for head in (model.rpn, model.roi_heads):
        head.fg_bg_sampler = SeededSampler(
            head.fg_bg_sampler.batch_size_per_image, head.fg_bg_sampler.positive_fraction
        )
        head.fg_bg_sampler.seeds = SEEDS
    own = [{"boxes": boxes, "labels": labels} for boxes, labels in zip(BOXES, LABELS, strict=True)]
    sizes = [(SIDE, SIDE)] * 2
    features = model.backbone(IMAGES)
    proposals, theirs = model.rpn(ImageList(IMAGES, sizes), features, own)
    _, of_regions = model.roi_heads(features, proposals, sizes, own)
    theirs = {**theirs, **of_regions}
    expected = torch.stack([theirs[name] for name in family_of(card.architecture).loss_names])
    torch.testing.assert_close(losses_of(card), expected)


def test_boxes_that_count_fully_have_the_losses_of_torchvisions_retinanet() -> None:
    card = card_for("retinanet_resnet50_fpn")
    model = trained(card)
    own = [{"boxes": boxes, "labels": labels} for boxes, labels in zip(BOXES, LABELS, strict=True)]
    features = list(model.backbone(IMAGES).values())
    anchors = model.anchor_generator(ImageList(IMAGES, [(SIDE, SIDE)] * 2), features)
    theirs = model.compute_loss(own, model.head(features), anchors)
    torch.testing.assert_close(
        losses_of(card), torch.stack((theirs["classification"], theirs["bbox_regression"])), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("architecture", ["carina_small", "retinanet_resnet50_fpn"])
def test_the_losses_of_a_box_are_weighted_by_its_confidence(architecture: Architecture) -> None:
    """The loss of boxes is linear in the confidences; that of classes falls, because background keeps its weight."""
    card = card_for(architecture)
    full, half = losses_of(card), losses_of(card, 0.5, 0.5)
    of_boxes = [number for number, name in enumerate(family_of(architecture).loss_names) if "box_reg" in name]
    torch.testing.assert_close(half[of_boxes], full[of_boxes] / 2)
    others = [number for number in range(len(full)) if number not in of_boxes]
    assert (half[others] < full[others]).all()


@pytest.mark.parametrize("architecture", ["carina_small", "retinanet_resnet50_fpn"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_boxes_of_no_confidence_are_neither_findings_nor_background(
    architecture: Architecture, *, multi_label: bool
) -> None:
    """A region that the box overlaps is ignored; another one is background. Losses without any finding are finite."""
    card = card_for(architecture, multi_label=multi_label)
    model = trained(card)
    losses = family_of(architecture).make_losses(model, card)
    assert losses_of(card, 0.0, 0.0).isfinite().all()
    whole = Targets(torch.tensor([[0.0, 0.0, SIDE, SIDE]]), torch.tensor([1]), torch.zeros(1))
    match = whole.match(
        torch.tensor([[2.0, 2.0, 60.0, 62.0], [0.0, 0.0, 5.0, 5.0]]),
        model.proposal_matcher if architecture.startswith("retina") else model.rpn.proposal_matcher,
    )
    assert match.tolist() == [IGNORED, BACKGROUND]
    assert losses(IMAGES[:1], model.backbone(IMAGES[:1]), [whole], [3]).isfinite().all()


def test_a_place_of_several_names_has_the_confidence_of_each() -> None:
    boxes = torch.tensor(
        [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [30.0, 30.0, 40.0, 40.0], [0.0, 0.0, 9.0, 9.0]]
    )
    place = Targets(boxes, torch.tensor([1, 2, 2, 3]), torch.tensor([0.9, 0.4, 0.7, 0.0]))
    rows = place.soft_classes(4)
    torch.testing.assert_close(rows, torch.tensor([[0, 0.9, 0.4, 0], [0, 0.9, 0.4, 0], [0, 0, 0.7, 0]]))
    assert Targets(boxes[:0], torch.empty(0, dtype=torch.int64), torch.empty(0)).soft_classes(4).shape == (0, 4)


def test_independent_scores_learn_both_names_of_a_place() -> None:
    """A few steps on one image with two classes at one place: both outputs rise above one half, the third does not."""
    card = card_for("carina_small", multi_label=True)
    model = trained(card)
    losses = family_of(card.architecture).make_losses(model, card)
    both = Targets(BOXES[0][[0, 0]], torch.tensor([1, 2]), torch.tensor([1.0, 1.0]))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(40):
        optimizer.zero_grad()
        losses(IMAGES[:1], model.backbone(IMAGES[:1]), [both], [1]).sum().backward()
        optimizer.step()
    model.eval()
    found = family_of(card.architecture).make_inference(copy.deepcopy(model), card, torch.float32)(
        model.backbone(IMAGES[:1]), torch.tensor([[float(SIDE), SIDE]])
    )[0]
    best = [found[found[:, 5] == label][:, 4].amax().item() for label in (1, 2)]
    assert min(best) > 0.5, "softmax would give one of them at most one half"
