"""A few small images in memory: bright squares on noise, for training that is over in seconds."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from shared.detector.card import Category, ModelCard
from shared.training.config import Split, TrainingConfig
from shared.version import RENDITION_VERSION
from trainer.datasets.dataset import Dataset, DatasetImage
from trainer.fit import draft_card

SIDE_PX = 80
#: Ids with a gap and not in order, so that a label taken for an id would show.
CATEGORIES = (Category(id=7, name="square"), Category(id=3, name="bar"))


def tiny_config(**changes: object) -> TrainingConfig:
    """The least training that moves every weight."""
    least = {
        "architecture": "carina_small",
        "canvas_px": 64,
        "initial_weights": "none",
        "epochs": 2,
        "batch_size": 2,
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "precision": "fp32",
        "loader_workers": 1,
    }
    return TrainingConfig.model_validate({**least, **changes})


def tiny_dataset(images: int, *, split: Split = "train") -> Dataset:
    """Images with one to three boxes each, but for every fourth one, which has none."""
    made = []
    for image_id in range(images):
        rng = np.random.default_rng(image_id)
        boxes = [] if image_id % 4 == 3 else [_box(rng) for _ in range(rng.integers(1, 4))]
        sha256 = hashlib.sha256(f"{split} {image_id}".encode()).hexdigest()
        made.append(
            DatasetImage(
                image_id=image_id,
                sha256=sha256,
                rendition_sha256=sha256,
                height_px=2 * SIDE_PX,
                width_px=2 * SIDE_PX,
                rendition_height_px=SIDE_PX,
                rendition_width_px=SIDE_PX,
                patient=None,
                split=split,
                category_ids=np.array([CATEGORIES[rng.integers(2)].id for _ in boxes], np.int64),
                boxes_xyxy_px=2 * np.array(boxes, np.float32).reshape(-1, 4),
            )
        )
    return Dataset("tiny", "0" * 64, RENDITION_VERSION, CATEGORIES, tuple(made))


def read(image: DatasetImage) -> NDArray[np.uint8]:
    """Draw an image, uint8 [80, 80]."""
    pixels = np.random.default_rng(image.image_id).integers(0, 60, (SIDE_PX, SIDE_PX), dtype=np.uint8)
    for x_min, y_min, x_max, y_max in image.boxes_on_rendition.astype(int).tolist():
        pixels[y_min:y_max, x_min:x_max] += 150
    return pixels


def card_of(config: TrainingConfig, dataset: Dataset) -> ModelCard:
    """The card of the model to be."""
    return draft_card(config, dataset, "tiny")


def _box(rng: np.random.Generator) -> tuple[int, int, int, int]:
    x_min, y_min = rng.integers(0, SIDE_PX // 2, 2).tolist()
    width, height = rng.integers(SIDE_PX // 8, SIDE_PX // 2, 2).tolist()
    return x_min, y_min, x_min + width, y_min + height
