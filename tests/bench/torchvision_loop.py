"""torchvision's reference loop (references/detection/engine.py) on the same images: CONFIG.json IMAGES OUT.json AMP."""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_tensor

from shared.detector.families import build
from shared.training.config import TrainingConfig
from tests.bench.training_rank import WARM_UP, read_dataset
from trainer.fit import draft_card


class TrainingImages(torch.utils.data.Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """The images as the reference reads them: by Pillow, as float32 RGB."""

    def __init__(self, folder: Path, card_label: dict[int, int]) -> None:
        self._folder = folder
        self._label = card_label
        self._images = read_dataset(folder)[0].images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        entry = self._images[index]
        image = Image.open(self._folder / f"{entry.sha256}.png").convert("RGB")
        labels = [self._label[id_] for id_ in entry.category_ids.tolist()]
        boxes = torch.from_numpy(np.asarray(entry.boxes_on_rendition, np.float32))
        return to_tensor(image), {"boxes": boxes, "labels": torch.tensor(labels, dtype=torch.int64)}


def main() -> None:
    """Train one epoch and say how fast."""
    config = TrainingConfig.model_validate_json(Path(sys.argv[1]).read_text())
    folder, amp = Path(sys.argv[2]), sys.argv[4] == "amp"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset, _ = read_dataset(folder)
    card = draft_card(config, dataset, "bench")
    model = build(card).to(device).train()
    training_set = TrainingImages(folder, {category.id: card.label_of(category.id) for category in card.categories})
    loader = DataLoader(
        training_set,
        batch_size=config.batch_size,
        shuffle=True,
        num_workers=1 if device.type == "cpu" else 8,
        collate_fn=lambda batch: tuple(zip(*batch, strict=True)),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(device.type) if amp else None
    images_seen, begun = 0, 0.0
    for step, (images, targets) in enumerate(loader, start=1):
        on_device = [image.to(device) for image in images]
        wanted = [{name: tensor.to(device) for name, tensor in target.items()} for target in targets]
        with torch.autocast(device.type, enabled=amp):
            loss = torch.stack(list(model(on_device, wanted).values())).sum()
        loss.item()  # The reference looks at every loss.
        optimizer.zero_grad()
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        if step == WARM_UP:
            begun = time.perf_counter()
        elif step > WARM_UP:
            images_seen += len(images)
    if device.type == "cuda":
        torch.cuda.synchronize()
    speed = images_seen / (time.perf_counter() - begun)
    peak = (
        torch.cuda.max_memory_allocated()
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    Path(sys.argv[3]).write_text(json.dumps({"images_per_s": speed, "peak": peak}))


if __name__ == "__main__":
    main()
