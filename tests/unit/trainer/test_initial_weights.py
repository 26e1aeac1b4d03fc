"""A training begins with what fits: a whole detector, its body, or a classifier's features."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shared.detector.architectures import ARCHITECTURES
from shared.detector.card import Category
from shared.detector.families import build
from shared.detector.weights import decode_weights
from shared.errors import InvalidModelFile, ObjectMissing
from shared.training import pretrained
from shared.training.config import TrainingConfig
from tests.tiny_images import card_of, tiny_config, tiny_dataset
from tests.tiny_model import make_tiny_model
from trainer.fit import draft_card
from trainer.initial_weights import fetch, fill

CARD = card_of(tiny_config(), tiny_dataset(1))
BODY = "backbone.body."
KERNEL = "3.conv.0.0.weight"
PYRAMID = "backbone.fpn.inner_blocks.0.0.weight"
CLASSES = "roi_heads.box_predictor.cls_score.weight"


def detector(seed: int) -> dict[str, torch.Tensor]:
    """The weights of a detector with three classes; the one to be filled has two."""
    return decode_weights(make_tiny_model(seed)[1])


def test_a_detector_of_other_classes_hands_on_all_but_its_last_layer() -> None:
    model, state = build(CARD), detector(1)
    own_classes = model.state_dict()[CLASSES].clone()
    fill(model, state, CARD)
    for name in (BODY + KERNEL, PYRAMID, "roi_heads.box_head.fc6.weight"):
        assert torch.equal(model.state_dict()[name], state[name])
    assert torch.equal(model.state_dict()[CLASSES], own_classes)


def test_classes_are_handed_on_by_name_whatever_their_places() -> None:
    base, weights = make_tiny_model(1)
    state = decode_weights(weights)
    categories = [Category(id=1, name="New"), Category(id=2, name="mass"), Category(id=3, name="Opacity")]
    card = base.model_copy(update={"categories": tuple(categories)})
    model = build(card)
    own = {name: weight.clone() for name, weight in model.state_dict().items()}
    fill(model, state, card, base)
    scores, boxes = model.roi_heads.box_predictor.cls_score, model.roi_heads.box_predictor.bbox_pred
    # The base has Mass, Opacity and Fibrosis as outputs 1 to 3; output 0 is background.
    assert torch.equal(scores.weight[[0, 2, 3]], state[CLASSES][[0, 1, 2]])
    assert torch.equal(scores.weight[1], own[CLASSES][1]), "the base lacks it"
    assert torch.equal(boxes.bias[8:16], state["roi_heads.box_predictor.bbox_pred.bias"][4:12])
    assert torch.equal(boxes.weight[4:8], own["roi_heads.box_predictor.bbox_pred.weight"][4:8])


def test_what_the_base_was_trained_with_stays_unless_the_config_says_otherwise() -> None:
    base, _ = make_tiny_model()
    base = base.model_copy(
        update={
            "image_mean": (0.5, 0.5, 0.5),
            "image_std": (0.25, 0.25, 0.25),
            "batch_norm_eps": 0.0,
            "canvas_px": 192,
            "anchor_sizes_px": ((8, 12), (24, 32), (64, 96)),
        }
    )
    fields = ("image_mean", "image_std", "batch_norm_eps", "canvas_px", "anchor_sizes_px")
    config = TrainingConfig(architecture="carina_small")
    card = draft_card(config, tiny_dataset(1), "mine", base)
    assert card.model_dump(include=set(fields)) == base.model_dump(include=set(fields))
    other = draft_card(config.model_copy(update={"canvas_px": 256}), tiny_dataset(1), "mine", base)
    assert (other.canvas_px, other.batch_norm_eps) == (256, 0.0)


def test_imagenet_weights_come_from_the_object_store_and_are_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    features = {n.removeprefix(BODY): w for n, w in detector(1).items() if n.startswith(BODY)}
    buffer = io.BytesIO()
    torch.save({f"features.{name}": weight for name, weight in features.items()}, buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    described = replace(ARCHITECTURES["carina_small"], imagenet_file=f"mobilenet_v2-{digest[:8]}.pth")
    monkeypatch.setitem(ARCHITECTURES, "carina_small", described)
    store = MemoryStore()
    key = pretrained.pretrained_key("carina_small")

    assert pretrained.read_pretrained(store, "carina_small") is None
    cached = tmp_path / "cache" / "hub" / "checkpoints" / f"mobilenet_v2-{digest[:8]}.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"cut short")
    assert pretrained.read_pretrained(store, "carina_small") is None, "not the file that it should be"
    cached.write_bytes(buffer.getvalue())
    assert pretrained.read_pretrained(store, "carina_small") == buffer.getvalue()
    cached.unlink()
    # From now on every trainer has it, and nobody is refused for want of the Internet.
    assert store.objects[key] == buffer.getvalue()
    pretrained.require_pretrained(store, TrainingConfig(architecture="carina_small"))
    state = fetch("torchvision", "carina_small", None, store).state
    fill(build(CARD), state, CARD)


def test_without_the_internet_imagenet_weights_are_refused_before_and_in_the_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nothing listens
    with pytest.raises(pretrained.WeightsUnavailable, match=r"resnet50-0676ba61\.pth does not answer"):
        pretrained.require_pretrained(MemoryStore(), TrainingConfig())
    with pytest.raises(pretrained.WeightsUnavailable):
        fetch("torchvision", "fasterrcnn_resnet50_fpn", None, MemoryStore())
    for start in ("none", "object:" + "0" * 64):
        pretrained.require_pretrained(MemoryStore(), TrainingConfig(initial_weights=start))


class MemoryStore:
    """An object store without a server."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def has(self, key: str) -> bool:
        return key in self.objects

    def read(self, key: str) -> bytes:
        if key not in self.objects:
            raise ObjectMissing
        return self.objects[key]

    def put(self, key: str, content: bytes) -> None:
        self.objects[key] = content


@pytest.mark.parametrize("prefix", ["", "features."])
def test_a_classifiers_features_fill_the_body_alone(prefix: str) -> None:
    model = build(CARD)
    own_pyramid = model.state_dict()[PYRAMID].clone()
    features = {prefix + n.removeprefix(BODY): w for n, w in detector(1).items() if n.startswith(BODY)}
    fill(model, features | {"classifier.1.weight": torch.zeros(3)}, CARD)
    assert torch.equal(model.state_dict()[BODY + KERNEL], features[prefix + KERNEL])
    assert torch.equal(model.state_dict()[PYRAMID], own_pyramid)


def test_weights_of_another_backbone_are_refused_by_name() -> None:
    with pytest.raises(InvalidModelFile, match=r"weights are not among them, for example \d"):
        fill(build(CARD), {"layer1.0.conv1.weight": torch.zeros(1)}, CARD)
    features = {n.removeprefix(BODY): w[:1] for n, w in detector(1).items() if n.startswith(BODY)}
    with pytest.raises(InvalidModelFile, match="another shape"):
        fill(build(CARD), features, CARD)


def test_nothing_changes_nothing() -> None:
    model = build(CARD)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    fill(model, {}, CARD)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
