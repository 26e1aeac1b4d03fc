"""Sends real images and hostile ones to a stack with the shipped model and a ResNet-50; none may be lost."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import torch
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from api.client import Carina
from shared.phantoms import CLASS_NAMES
from tests.bench.figure import Figure
from tests.bench.servers import REPOSITORY, Stack, stack
from tests.expected_outcomes import EXPECTED_OUTCOMES

DATA = REPOSITORY.parent / "shared" / "data"
#: Half of the production model's side in each direction, so that a CPU is done in minutes.
CANVAS_PX = 512
TIMEOUT_S = 3600


def measure() -> Iterator[Figure]:
    """Send every image twice: under the shipped model, then by name under a ResNet-50 of random weights."""
    if not DATA.is_dir():
        return
    images = [*sorted((DATA / "nih-rsna" / "images").iterdir()), *(DATA / name for name in EXPECTED_OUTCOMES)]
    with stack() as running, Carina(running.environ["CARINA_API_URL"], running.environ["CARINA_API_KEY"]) as client:
        for name, model_id in (("the shipped model", None), ("ResNet-50, random weights", _import_resnet(running))):
            begun = time.monotonic()
            counts = _outcomes(client, images, model_id)
            took_s = time.monotonic() - begun
            yield Figure(f"{name}: images sent", len(images))
            for outcome, count in sorted(counts.items()):
                yield Figure(f"{name}: {outcome}", count)
            yield Figure(f"{name}: images without an outcome", len(images) - counts.total(), target=1, sense="below")
            yield Figure(f"{name}: from the first byte to the last result", len(images) / took_s, "images/s")


def _import_resnet(running: Stack) -> UUID:
    torch.manual_seed(0)
    model = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=len(CLASS_NAMES) + 1)
    checkpoint, categories = running.folder / "resnet50.pth", running.folder / "categories.json"
    torch.save({"model_state_dict": model.state_dict()}, checkpoint)
    categories.write_text(json.dumps([{"id": id_, "name": name} for id_, name in enumerate(CLASS_NAMES)]))
    command = [sys.executable, "-m", "deploy.cli", "model", "import", str(checkpoint), "--categories", str(categories)]
    command += ["--canvas-px", str(CANVAS_PX), "--data", str(running.folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return UUID(done.stdout.split()[0])


def _outcomes(client: Carina, images: list[Path], model_id: UUID | None) -> Counter[str]:
    """Return how many files came to which end, with its code."""
    outcomes = client.submit(images, model_id=model_id)
    jobs = client.wait([outcome.job_id for outcome in outcomes if outcome.job_id], timeout_s=TIMEOUT_S)
    ends = {job.id: _in_words(job.state, job.code) for job in jobs if job.state.is_final}
    refused = [_in_words(outcome.outcome, outcome.code) for outcome in outcomes if outcome.job_id is None]
    return Counter([*refused, *(ends[outcome.job_id] for outcome in outcomes if outcome.job_id in ends)])


def _in_words(outcome: str, code: str | None) -> str:
    return f"{outcome}: {code}" if code else str(outcome)
