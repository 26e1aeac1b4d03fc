"""Makes batches from the plan of an epoch. Threads read and augment the images while the model trains.

Threads are used instead of processes because decoding and warping release the GIL, and nothing must be copied or forked
with CUDA.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from shared.detector.card import ModelCard
from shared.training.config import Augmentation, Labels
from trainer.augmentation import augment
from trainer.datasets.dataset import DatasetImage
from trainer.engine import Batch
from trainer.labels import confidences
from trainer.sampling import Share

#: Returns the pixels of an image's rendition, uint8 [h, w].
ReadRendition = Callable[[DatasetImage], NDArray[np.uint8]]
NO_CHANGE = Labels()
#: Number of steps that are read in advance.
AHEAD = 3


@dataclass(frozen=True, eq=False)
class _Example:
    image_id: int
    canvas: NDArray[np.uint8]  # [S, S]
    boxes_xyxy: NDArray[np.float32]  # [n, 4], in canvas pixels
    labels: list[int]  # [n]
    confidences: NDArray[np.float32]  # [n]


class Loader:
    """Reads batches for one rank."""

    def __init__(
        self,
        images: Sequence[DatasetImage],
        read: ReadRendition,
        card: ModelCard,
        augmentation: Augmentation,
        workers: int,
        labels: Labels = NO_CHANGE,
    ) -> None:
        cv2.setNumThreads(1)  # parallelism comes from the threads here
        self._images = images
        self._read = read
        self._card = card
        self._augmentation = augmentation
        self._labels = labels
        self._threads = ThreadPoolExecutor(max(1, workers), thread_name_prefix="loader")

    def batches(self, steps: Iterable[list[Share]]) -> Iterator[list[Batch]]:
        """Yield the batches of each step in order."""
        begun: deque[list[tuple[Share, list[Future[_Example]]]]] = deque()
        for shares in steps:
            begun.append([(share, self._begin(share)) for share in shares])
            if len(begun) > AHEAD:
                yield _finish(begun.popleft())
        while begun:
            yield _finish(begun.popleft())

    def close(self) -> None:
        """Stop reading."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _begin(self, share: Share) -> list[Future[_Example]]:
        # A rank without images takes a placeholder that does not count, because each rank must enter each collective.
        places = zip(share.images.tolist() or [0], share.seeds or [(0, 0, 0)], strict=True)
        return [self._threads.submit(self._load, self._images[index], seed) for index, seed in places]

    def _load(self, image: DatasetImage, seed: tuple[int, int, int]) -> _Example:
        rng = np.random.default_rng(seed)
        canvas, boxes, kept = augment(
            self._read(image), image.boxes_on_rendition, self._card.canvas_px, self._augmentation, rng
        )
        labels = [self._card.label_of(category_id) for category_id in image.category_ids[kept].tolist()]
        return _Example(image.image_id, canvas, boxes, labels, confidences(image, self._labels)[kept])


def _finish(step: list[tuple[Share, list[Future[_Example]]]]) -> list[Batch]:
    return [_collate(share, [future.result() for future in futures]) for share, futures in step]


def _collate(share: Share, examples: list[_Example]) -> Batch:
    return Batch(
        canvases=torch.from_numpy(np.stack([example.canvas for example in examples])),
        boxes=[torch.from_numpy(example.boxes_xyxy) for example in examples],
        labels=[torch.tensor(example.labels, dtype=torch.int64) for example in examples],
        confidences=[torch.from_numpy(example.confidences) for example in examples],
        image_ids=[example.image_id for example in examples],
        seeds=[abs(hash(seed)) for seed in share.seeds] or [0],
        weight=share.weight,
    )
