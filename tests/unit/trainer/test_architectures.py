"""Every kind of network trains on phantoms, comes back from a training script's checkpoint, serves and is evaluated."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from shared.detector.architectures import ARCHITECTURES, Architecture
from shared.detector.card import Category, ModelCard
from shared.detector.families import build, family_of, plan_of
from shared.detector.families.faster_rcnn import Blueprint
from shared.detector.runtime import Detector
from shared.detector.weights import import_checkpoint, load_model
from shared.phantoms import CLASS_NAMES, make_phantom
from shared.version import RENDITION_VERSION
from tests.recording_checkpointer import RecordingCheckpointer
from tests.tiny_images import tiny_config
from trainer.datasets.dataset import Dataset, DatasetImage
from trainer.evaluate import find, to_material
from trainer.evaluation.voc import evaluate_voc
from trainer.fit import draft_card, fit
from trainer.initial_weights import fill
from trainer.ranks import Ranks


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


ALONE = Ranks(0, 1, torch.device("cpu"))
HEIGHT_PX, WIDTH_PX = 120, 100
CATEGORIES = tuple(Category(id=class_id + 1, name=name) for class_id, name in enumerate(CLASS_NAMES))


def phantom_image(seed: int) -> DatasetImage:
    lesions = make_phantom(seed, HEIGHT_PX, WIDTH_PX, (3, 8)).lesions
    sha256 = hashlib.sha256(str(seed).encode()).hexdigest()
    return DatasetImage(
        image_id=seed,
        sha256=sha256,
        rendition_sha256=sha256,
        height_px=2 * HEIGHT_PX,
        width_px=2 * WIDTH_PX,
        rendition_height_px=HEIGHT_PX,
        rendition_width_px=WIDTH_PX,
        patient=None,
        split="train",
        category_ids=np.array([lesion.class_id + 1 for lesion in lesions], np.int64),
        boxes_xyxy_px=2 * np.array([lesion.box_xyxy_px for lesion in lesions], np.float32).reshape(-1, 4),
    )


def read(image: DatasetImage) -> NDArray[np.uint8]:
    return np.rint(255 * make_phantom(image.image_id, HEIGHT_PX, WIDTH_PX, (3, 8)).pixels).astype(np.uint8)


@pytest.mark.parametrize("architecture", ["fasterrcnn_resnet50_fpn_v2", "retinanet_resnet50_fpn"])
def test_a_network_goes_the_whole_way_on_phantoms(architecture: Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    family = family_of(architecture)
    if isinstance(plan := plan_of(architecture), Blueprint):  # few regions, so that it is quick on a CPU
        few = {"proposals_in_training": 50, "regions_in_training": 16, "proposals_after_nms": 50}
        monkeypatch.setattr(family, "plans", {architecture: replace(plan, **few)})
    dataset = Dataset("phantoms", "0" * 64, RENDITION_VERSION, CATEGORIES, (phantom_image(1),))
    config = tiny_config(
        architecture=architecture,
        canvas_px=64,
        epochs=4,
        ema_decay=None,
        warmup_epochs=0,
        train_batch_norm=True,
        learning_rate=1e-4,
        abnormality_loss=0.2,
    )
    steps = RecordingCheckpointer()
    card, weights = fit(
        config, dataset, draft_card(config, dataset, "phantoms"), lambda model: None, read, ALONE, steps
    )
    assert set(steps.progress[0].figures) == {*family.loss_names, "loss_abnormality", "loss", "learning_rate"}
    first, *later = steps.figures()
    assert min(later) < first

    buffer = io.BytesIO()
    torch.save({"model": load_model(card, weights).state_dict(), "epoch": 3}, buffer)
    imported, again = import_checkpoint(buffer.getvalue(), CATEGORIES, canvas_px=64, score_threshold=0.0)
    assert (imported.architecture, imported.weights_sha256) == (architecture, card.weights_sha256)
    assert imported.abnormality_exponent == card.abnormality_exponent == 0.25

    detector = Detector(imported, again, "cpu", "fp32")
    found = find(detector, dataset.images, read, batch_size=1)
    assert all(len(boxes.scores) > 10 for boxes in found.values())
    assert all(0 < (boxes.abnormality or 0) < 1 for boxes in found.values())
    assert all((boxes.boxes_xyxy[:, 2:] <= (2 * WIDTH_PX, 2 * HEIGHT_PX)).all() for boxes in found.values())
    assert evaluate_voc(to_material(dataset, dataset.images, found)).mean_ap is not None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_classes_are_handed_on_by_name_and_the_backbone_as_a_whole(architecture: Architecture) -> None:
    def card_of(*names: str) -> ModelCard:
        plan = plan_of(architecture)
        return ModelCard(
            name="any",
            architecture=architecture,
            categories=tuple(Category(id=id_, name=name) for id_, name in enumerate(names)),
            canvas_px=128,
            anchor_sizes_px=plan.anchor_sizes_px,
            rendition_version=1,
            weights_sha256="0" * 64,
        )

    base, card = card_of("Mass", "Opacity", "Fibrosis"), card_of("New", "opacity")
    torch.manual_seed(1)
    given = {name: weight.clone() for name, weight in build(base).state_dict().items()}
    model = build(card)
    own = {name: weight.clone() for name, weight in model.state_dict().items()}
    fill(model, given, card, base)
    filled, family, layers = model.state_dict(), family_of(architecture), 0
    for name, weight in filled.items():
        mine, theirs = family.by_class(name, weight, 3), family.by_class(name, given[name], 4)
        if mine is None or theirs is None:
            assert name.endswith("num_batches_tracked") or torch.equal(weight, given[name]), name
            continue
        layers += 1
        before = family.by_class(name, own[name], 3)
        assert before is not None
        assert torch.equal(mine[[0, 2]], theirs[[0, 2]]), f"{name}: background and Opacity"
        assert torch.equal(mine[1], before[1]), f"{name}: the base lacks New"
    assert layers >= 2
