"""How fast a detector is trained: beside torchvision's reference loop, and on two ranks beside one."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from shared.phantoms import make_phantom
from shared.training.config import TrainingConfig
from tests.bench.figure import Figure
from tests.bench.training_rank import WARM_UP

REPOSITORY = Path(__file__).parents[2]
HEIGHT_PX, WIDTH_PX = 1024, 860


def measure() -> Iterator[Figure]:
    """Train for some steps each way, one after the other, on the same images."""
    on_gpu = torch.cuda.is_available()
    steps = WARM_UP + (30 if on_gpu else 8)
    config = TrainingConfig(
        architecture="fasterrcnn_resnet50_fpn" if on_gpu else "fasterrcnn_mobilenet_v2_fpn",
        initial_weights="none",
        epochs=1,
        batch_size=8 if on_gpu else 4,
        learning_rate=1e-5,
        warmup_epochs=0,
        ema_decay=None,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, steps * config.batch_size)
        if on_gpu:
            yield from on_gpu(folder, config)
        else:
            yield from _on_cpu(folder, config)


def _on_cpu(folder: Path, config: TrainingConfig) -> Iterator[Figure]:
    theirs = _run(folder, "tests.bench.torchvision_loop", config, "fp32", threads=2)["images_per_s"]
    ours = _run(folder, "tests.bench.training_rank", config, threads=2)["images_per_s"]
    yield Figure(f"torchvision's loop, {config.architecture}, fp32", theirs, "images/s")
    yield Figure("ours, as it comes", ours, "images/s")
    yield Figure("ours of torchvision's", ours / theirs, target=1.3)
    ranks = _run(folder, "tests.bench.training_rank", config, threads=1, ranks=2, batch_size=2)["images_per_s"]
    alone = _run(folder, "tests.bench.training_rank", config, threads=2)["images_per_s"]
    yield Figure("two Gloo ranks of one thread, of one rank with two", ranks / alone, target=0.9)


def on_gpu(folder: Path, config: TrainingConfig) -> Iterator[Figure]:
    """Compare both loops in both precisions, and one rank under torchrun with one alone."""
    for name, theirs, ours in (("fp32", "fp32", "fp32"), ("AMP", "amp", "bf16")):
        reference = _run(folder, "tests.bench.torchvision_loop", config, theirs, threads=8)
        precise = config.model_copy(update={"precision": ours})
        mine = _run(folder, "tests.bench.training_rank", precise, threads=8)
        for whose, result in (("torchvision", reference), ("ours", mine)):
            yield Figure(f"{config.architecture} at 1024, batch 8, {name}: {whose}", result["images_per_s"], "images/s")
            yield Figure(f"peak memory, {name}: {whose}", result["peak"] / 2**30, "GiB")
        yield Figure(f"ours of torchvision's, {name}", mine["images_per_s"] / reference["images_per_s"])
        ddp = _run(folder, "tests.bench.training_rank", precise, threads=8, ranks=1)
        yield Figure(f"under torchrun at one rank, of alone, {name}", ddp["images_per_s"] / mine["images_per_s"])


def _run(
    folder: Path,
    module: str,
    config: TrainingConfig,
    *arguments: str,
    threads: int,
    ranks: int | None = None,
    batch_size: int | None = None,
) -> dict[str, float]:
    """Run a module in processes of its own, alone or by torchrun, and return what it says."""
    out = folder / "out"
    (folder / "config").write_text(
        config.model_copy(update={"batch_size": batch_size or config.batch_size}).model_dump_json()
    )
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks else []
    command = [sys.executable, *launcher, "-m", module, str(folder / "config"), str(folder), str(out), *arguments]
    environ = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, cwd=REPOSITORY, env=environ, check=True, stderr=subprocess.DEVNULL if ranks else None)
    result: dict[str, float] = json.loads(out.read_text())
    return result


def draw(folder: Path, images: int) -> None:
    """Write images and their boxes, as the loops read them."""
    for seed in range(images):
        # A few images, repeated: drawing them takes longer than training on them.
        first = folder / f"{seed % 8:04}.png"
        if seed < 8:
            phantom = make_phantom(seed, HEIGHT_PX, WIDTH_PX, None)
            cv2.imwrite(str(first), np.rint(255 * phantom.pixels).astype(np.uint8))
            content = {
                "height": HEIGHT_PX,
                "width": WIDTH_PX,
                "classes": [lesion.class_id for lesion in phantom.lesions],
                "boxes": [lesion.box_xyxy_px for lesion in phantom.lesions],
            }
            (folder / f"{seed:04}.json").write_text(json.dumps(content))
        else:
            (folder / f"{seed:04}.png").symlink_to(first)
            (folder / f"{seed:04}.json").symlink_to(first.with_suffix(".json"))
