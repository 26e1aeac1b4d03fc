"""What torchrun starts on each rank for `training`: CONFIG.json IMAGES OUT.json; trains and says how fast."""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from shared.detector.card import Category
from shared.phantoms import CLASS_NAMES
from shared.training.config import TrainingConfig
from shared.version import RENDITION_VERSION
from tests.recording_checkpointer import RecordingCheckpointer
from trainer.datasets.dataset import Dataset, DatasetImage
from trainer.fit import Progress, draft_card, fit
from trainer.ranks import joined

#: Steps that are not counted: kernels are chosen, caches filled.
WARM_UP = 2


class Stopwatch(RecordingCheckpointer):
    """Counts images from the end of the warm-up on."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = self.images = 0
        self.begun = self.ended = 0.0

    def check(self, progress: Progress) -> None:
        """Count a step."""
        self.steps += 1
        self.ended = time.perf_counter()
        if self.steps == WARM_UP:
            self.begun = self.ended
        elif self.steps > WARM_UP:
            self.images += progress.images

    @property
    def images_per_s(self) -> float:
        """Images of all ranks, a second."""
        return self.images / (self.ended - self.begun)


def read_dataset(folder: Path) -> tuple[Dataset, Callable[[DatasetImage], NDArray[np.uint8]]]:
    """Return the images that `training` has drawn into a folder, and how their pixels are read."""
    images = []
    for file in sorted(folder.glob("*.json")):
        content = json.loads(file.read_text())
        size = {"height_px": content["height"], "width_px": content["width"]}
        images.append(
            DatasetImage(
                image_id=len(images),
                sha256=file.stem,
                rendition_sha256=file.stem,
                **size,
                **{f"rendition_{name}": value for name, value in size.items()},
                patient=None,
                split="train",
                category_ids=np.array(content["classes"], np.int64),
                boxes_xyxy_px=np.array(content["boxes"], np.float32).reshape(-1, 4),
            )
        )
    categories = tuple(Category(id=number, name=name) for number, name in enumerate(CLASS_NAMES))

    def read(image: DatasetImage) -> NDArray[np.uint8]:
        return np.asarray(cv2.imread(str(folder / f"{image.sha256}.png"), cv2.IMREAD_GRAYSCALE), np.uint8)

    return Dataset("bench", "0" * 64, RENDITION_VERSION, categories, tuple(images)), read


def main() -> None:
    """Train on this rank."""
    config = TrainingConfig.model_validate_json(Path(sys.argv[1]).read_text())
    dataset, read = read_dataset(Path(sys.argv[2]))
    watch = Stopwatch()
    with joined() as ranks:
        fit(config, dataset, draft_card(config, dataset, "bench"), lambda _: None, read, ranks, watch)
        if ranks.is_first:
            on_gpu = ranks.device.type == "cuda"
            peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            Path(sys.argv[3]).write_text(json.dumps({"images_per_s": watch.images_per_s, "peak": peak}))


if __name__ == "__main__":
    main()
