"""How well the recipes detect on real images: the NIH/RSNA set beside the checkout. Takes hours on a CPU.

Each training keeps a checkpoint under `build/bench/recipes`, so that an interrupted bench goes on where it was, and a
finished one is only evaluated again.
"""

import json
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from deploy.tools.demo_detector.training import Checkpoint
from shared.detector.card import Category
from shared.detector.runtime import Detector
from shared.detector.weights import decode_weights
from shared.training.config import Split, TrainingConfig
from shared.training.recipes import RECIPES
from shared.version import RENDITION_VERSION
from tests.bench.figure import Figure
from tests.bench.servers import REPOSITORY
from trainer import initial_weights
from trainer.datasets.dataset import Dataset, DatasetImage
from trainer.evaluate import boxes_of, to_material
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.paired import paired_gain
from trainer.evaluation.summary import summarise
from trainer.fit import draft_card, fit
from trainer.ranks import Ranks

DATA = REPOSITORY.parent / "shared" / "data"
KEPT = REPOSITORY / "build" / "bench" / "recipes"
BACKBONE = DATA / "weights" / "mobilenet_v2_imagenet_features.safetensors"
#: The one class whose boxes were drawn.
LUNG_OPACITY = Category(id=7, name="Lung Opacity")
SAMPLES = 1000


def measure() -> Iterator[Figure]:
    """Train each recipe on the training images with seed 0, and evaluate it on the others."""
    if not DATA.is_dir():
        return
    dataset = Dataset(
        "nih-rsna", "0" * 64, RENDITION_VERSION, (LUNG_OPACITY,), (*images_of("train"), *images_of("val"))
    )
    sets = {}
    for name in ("reference", "small_set"):
        material = sets[name] = train_and_detect(name, RECIPES[name], dataset)
        summary = summarise(material, bootstrap_samples=SAMPLES, seed=0)
        for what, estimate in (
            ("AP@0.4", summary.map40),
            ("AP@[.5:.95]", summary.coco_ap),
            ("mean FROC sensitivity", summary.froc_mean),
            *((f"sensitivity at {point.false_positives:g} FP/image", point.lesions) for point in summary.froc),
        ):
            interval = f" [{estimate.low or 0:.3f}, {estimate.high or 0:.3f}]"
            yield Figure(f"{name}: {what}{interval}", estimate.value or 0.0)
    gain = paired_gain(sets["reference"], sets["small_set"], samples=SAMPLES, seed=0)
    yield Figure(f"gain in AP@0.4 [{gain.low:.3f}, {gain.high:.3f}]", gain.gain)
    yield Figure("AP@0.4 of the reference's", (gain.candidate_map or 0) / (gain.active_map or 1), target=1.5)


def train_and_detect(name: str, config: TrainingConfig, dataset: Dataset) -> EvaluationSet:
    """Train on the training images, and detect on the validation images."""
    backbone = decode_weights(BACKBONE.read_bytes())

    def initialise(model: torch.nn.Module) -> None:
        initial_weights.fill(model, backbone, card)

    alone = Ranks(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    card = draft_card(config, dataset, name)
    card, weights = fit(
        config, dataset, card, initialise, _read, alone, Checkpoint(KEPT / f"{name}.pt", lambda _: None)
    )
    detector = Detector(card.model_copy(update={"score_threshold": 0.001}), weights)
    images = dataset.of("val").images
    found = {
        image.image_id: boxes_of(image, detector.detect([detector.fit_to_canvas(_read(image))])[0]) for image in images
    }
    return to_material(dataset, images, found)


def images_of(split: Split) -> list[DatasetImage]:
    """Return the images of a split of the set."""
    content = json.loads((DATA / "nih-rsna" / f"{split}.json").read_text())
    boxes: dict[int, list[Any]] = {}
    for annotation in content["annotations"]:
        left, top, width, height = annotation["bbox"]
        boxes.setdefault(annotation["image_id"], []).append((left, top, left + width, top + height))
    return [
        DatasetImage(
            # Both files number their images from 1.
            image_id=image["id"] + (split == "val") * 10_000,
            sha256=image["file_name"],
            rendition_sha256=image["file_name"],
            height_px=image["height"],
            width_px=image["width"],
            rendition_height_px=image["height"],
            rendition_width_px=image["width"],
            patient=image["patient"],
            split=split,
            category_ids=np.full(len(boxes.get(image["id"], [])), LUNG_OPACITY.id, np.int64),
            boxes_xyxy_px=np.array(boxes.get(image["id"], []), np.float32).reshape(-1, 4),
        )
        for image in content["images"]
    ]


def _read(image: DatasetImage) -> NDArray[np.uint8]:
    path = DATA / "nih-rsna" / "images" / image.sha256
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.uint8)
