"""A training begins with what fits: a whole detector, its body, or a classifier's features."""

import pytest
import torch

from shared.detector.architectures import build
from shared.errors import InvalidModelFile
from tests.tiny_films import card_of, tiny_config, tiny_dataset
from tests.tiny_model import make_tiny_model
from trainer.initial_weights import fill

CARD = card_of(tiny_config(), tiny_dataset(1))
BODY = "backbone.body."
KERNEL = "3.conv.0.0.weight"
PYRAMID = "backbone.fpn.inner_blocks.0.0.weight"
CLASSES = "roi_heads.box_predictor.cls_score.weight"


def detector(seed: int) -> dict[str, torch.Tensor]:
    """The weights of a detector with three classes; the one to be filled has two."""
    from shared.detector.weights import decode_weights

    return decode_weights(make_tiny_model(seed)[1])


def test_a_detector_of_other_classes_hands_on_all_but_its_last_layer() -> None:
    model, state = build(CARD), detector(1)
    own_classes = model.state_dict()[CLASSES].clone()
    fill(model, state)
    for name in (BODY + KERNEL, PYRAMID, "roi_heads.box_head.fc6.weight"):
        assert torch.equal(model.state_dict()[name], state[name])
    assert torch.equal(model.state_dict()[CLASSES], own_classes)


@pytest.mark.parametrize("prefix", ["", "features."])
def test_a_classifiers_features_fill_the_body_alone(prefix: str) -> None:
    model = build(CARD)
    own_pyramid = model.state_dict()[PYRAMID].clone()
    features = {prefix + n.removeprefix(BODY): w for n, w in detector(1).items() if n.startswith(BODY)}
    fill(model, features | {"classifier.1.weight": torch.zeros(3)})
    assert torch.equal(model.state_dict()[BODY + KERNEL], features[prefix + KERNEL])
    assert torch.equal(model.state_dict()[PYRAMID], own_pyramid)


def test_weights_of_another_backbone_are_refused_by_name() -> None:
    with pytest.raises(InvalidModelFile, match=r"weights are not among them, for example \d"):
        fill(build(CARD), {"layer1.0.conv1.weight": torch.zeros(1)})
    features = {n.removeprefix(BODY): w[:1] for n, w in detector(1).items() if n.startswith(BODY)}
    with pytest.raises(InvalidModelFile, match="another shape"):
        fill(build(CARD), features)


def test_nothing_changes_nothing() -> None:
    model = build(CARD)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    fill(model, {})
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
