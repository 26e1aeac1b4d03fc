"""`python -m tests.bench.gpu OUT.json`: what a GPU does with the detector and the trainer, beside stock torchvision.

Takes at most eight minutes, and needs neither a network nor servers. The parts on inference need PyTorch, torchvision,
NumPy, OpenCV, pydicom, imagecodecs, safetensors and pydantic; the part on training needs `carina[trainer]`. Each part
stands alone: one that fails is recorded as failed, and the rest is still measured. Without a GPU everything is small,
and parts that need CUDA are recorded as skipped.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from shared.detector.card import Category, ModelCard
from shared.detector.families import plan_of
from shared.detector.fitting import FittedImage
from shared.detector.runtime import Detection, Detector
from shared.detector.weights import encode_weights
from shared.errors import DeviceOutOfMemory
from shared.phantoms import make_phantom
from shared.training.config import TrainingConfig

WITH_CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if WITH_CUDA else "cpu")
SIDE_PX = 1024 if WITH_CUDA else 256
BATCHES = (1, 8, 16) if WITH_CUDA else (1, 2)
IMAGES = 8
#: A part begins only if so many seconds are left of the time for all.
LIMIT_S, LEAST_S = 470, 20
_GIB = 2**30

Rows = dict[str, Any]


class Skipped(Exception):
    """The part cannot be measured here; the message names what it lacks."""


def main() -> None:
    """Measure every part, and write the outcome after each, so that a run that is cut short has its figures."""
    out, begun = Path(sys.argv[1]), time.monotonic()
    outcome: dict[str, Any] = {}
    bench = GpuBench()
    parts: list[Callable[[], Any]] = [
        bench.machine, bench.parity, bench.speed, bench.compiled, bench.graphs, bench.syncs, bench.memory,
        bench.lost_device, bench.training,
    ]  # fmt: skip
    for part in parts:
        name, at = part.__name__, time.monotonic()
        try:
            if at - begun > LIMIT_S - LEAST_S:
                raise Skipped("no time is left")
            outcome[name] = part()
        except Skipped as exc:
            outcome[name] = {"skipped": str(exc)}
        except Exception as exc:  # noqa: BLE001 - the other parts are still measured
            outcome[name] = {"failed": repr(exc), "trace": traceback.format_exc()[-1500:]}
        outcome.setdefault("seconds", {})[name] = round(time.monotonic() - at, 1)
        out.write_text(json.dumps(outcome, indent=1))
        sys.stdout.write(f"{name} {json.dumps(outcome[name])[:600]}\n")
        sys.stdout.flush()


class GpuBench:
    """The parts; each returns what it measured."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        stock: Any = fasterrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=15, min_size=SIDE_PX, max_size=SIDE_PX
        )
        with torch.no_grad():  # random weights that find some dozens of boxes an image
            stock.roi_heads.box_predictor.cls_score.weight.mul_(0.5)
            stock.roi_heads.box_predictor.cls_score.bias[0] = 2.0
        self._stock: nn.Module = stock.eval().to(DEVICE)
        self._weights = encode_weights(stock.state_dict(), torch.float32)
        self._card = ModelCard(
            name="gpu",
            architecture="fasterrcnn_resnet50_fpn",
            categories=tuple(Category(id=number, name=f"class {number}") for number in range(14)),
            canvas_px=SIDE_PX,
            anchor_sizes_px=plan_of("fasterrcnn_resnet50_fpn").anchor_sizes_px,
            rendition_version=1,
            weights_sha256=hashlib.sha256(self._weights).hexdigest(),
        )
        self._renditions = [
            np.rint(255 * make_phantom(seed, SIDE_PX, SIDE_PX).pixels).astype(np.uint8) for seed in range(IMAGES)
        ]

    def machine(self) -> Rows:
        """Name the machine and the versions."""
        name = torch.cuda.get_device_name() if WITH_CUDA else "no GPU"
        return {"device": name, "torch": torch.__version__, "torchvision": torchvision.__version__, "side_px": SIDE_PX}

    def parity(self) -> Rows:
        """Compare our boxes with stock fp32's as sets, and an image alone with the same one in a batch."""
        _use_tf32(enabled=False)
        try:
            with torch.inference_mode():
                theirs = [self._stock([image])[0] for image in self._tensors(IMAGES)]
            rows = {}
            for precision in ("fp32", "bf16"):
                detector, fitted = self._detector(precision, IMAGES)
                alone = [detector.detect([image])[0].detections for image in fitted]
                together = [found.detections for found in detector.detect(fitted)]
                rows[precision] = _compare(alone, theirs) | {"alone_or_in_a_batch": _largest_change(alone, together)}
            return rows
        finally:
            _use_tf32(enabled=True)

    def speed(self) -> list[Rows]:
        """Measure images per second by batch: stock in fp32 and under bf16 autocast, ours in both, copies included."""
        rows = []
        for count in BATCHES:
            images = self._tensors(count)
            row: Rows = {"batch": count, "stock fp32": count / _time(lambda images=images: self._stock(images))}
            with torch.autocast(DEVICE.type, torch.bfloat16):
                row["stock bf16"] = count / _time(lambda images=images: self._stock(images))
            for precision in ("fp32", "bf16"):
                detector, fitted = self._detector(precision, count)
                row[f"ours {precision}"] = count / _time(lambda d=detector, f=fitted: d.detect(f))
                canvases, content = detector._upload(fitted)
                pixels = detector._normalise(canvases)
                device_part = _time(lambda d=detector, p=pixels, c=content: d._run(p, c))
                row[f"ours {precision}, device part"] = count / device_part
            row["ours bf16 of stock fp32"] = row["ours bf16"] / row["stock fp32"]
            rows.append(_rounded(row))
        return rows

    def compiled(self) -> list[Rows]:
        """Measure the device part with a compiled backbone."""
        _need_cuda()
        rows = []
        for count in BATCHES:
            detector, pixels, content = self._on_device(count)
            eager = _time(lambda d=detector, p=pixels, c=content: d._run(p, c))
            detector._model.backbone = torch.compile(detector._model.backbone)
            compiled = _time(lambda d=detector, p=pixels, c=content: d._run(p, c))
            rows.append(_rounded({"batch": count, "eager": count / eager, "compiled backbone": count / compiled}))
        return rows

    def graphs(self) -> list[Rows]:
        """Measure the backbone replayed as a CUDA graph, and its share of the device part."""
        _need_cuda()
        rows = []
        for count in BATCHES:
            detector, pixels, content = self._on_device(count)
            whole = _time(lambda d=detector, p=pixels, c=content: d._run(p, c))
            eager = _time(lambda d=detector, p=pixels: d._model.backbone(p))
            graph = torch.cuda.CUDAGraph()
            with torch.inference_mode(), torch.cuda.graph(graph):
                detector._model.backbone(pixels)
            replayed = _time(graph.replay)
            rows.append(_rounded({"batch": count, "device part_ms": 1e3 * whole, "backbone_ms": 1e3 * eager,
                                  "backbone as a graph_ms": 1e3 * replayed}))  # fmt: skip
        return rows

    def syncs(self) -> Rows:
        """Return where the device part makes the host wait; nowhere is the aim."""
        _need_cuda()
        detector, pixels, content = self._on_device(IMAGES)
        detector._run(pixels, content)
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.inference_mode():
                detector._run(pixels, content)
        except RuntimeError as exc:
            at = traceback.extract_tb(exc.__traceback__)[-1]
            return {"waits": f"{Path(at.filename).name}:{at.lineno} {at.line}"}
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return {"waits": None}

    def memory(self) -> Rows:
        """Measure the peak by batch, and whether the detector works again after the memory ran out."""
        _need_cuda()
        detector, fitted = self._detector("bf16", 64)
        rows: Rows = {}
        for count in (1, 16, 64):
            torch.cuda.reset_peak_memory_stats()
            detector.detect(fitted[:count])
            rows[f"peak of {count} images, GiB"] = round(torch.cuda.max_memory_allocated() / _GIB, 2)
        total = torch.cuda.mem_get_info()[1]
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + _GIB) / total)
        try:
            detector.detect(fitted)
            rows["64 images in 1 GiB"] = "fitted"
        except DeviceOutOfMemory:
            rows["64 images in 1 GiB"] = "DeviceOutOfMemory"
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        rows["detections afterwards"] = len(detector.detect(fitted[:1])[0].detections)
        return rows

    def lost_device(self) -> Rows:
        """Check in another process that detection fails for good after a device-side assertion: a worker then ends."""
        _need_cuda()
        program = (
            "import torch; from tests.bench.gpu import GpuBench\n"
            "detector, fitted = GpuBench()._detector('bf16', 1)\n"
            "try: print(torch.arange(4, device='cuda')[torch.tensor([99], device='cuda')].sum().item())\n"
            "except Exception: pass\n"
            "detector.detect(fitted)"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
        )
        return {"exit code": ended.returncode, "last line": (ended.stderr.strip().splitlines() or [""])[-1][:200]}

    def training(self) -> list[Rows]:
        """Measure images per second and peak memory of both training loops, in fp32 and AMP, and under torchrun."""
        _need_cuda()
        from tests.bench import training
        from tests.bench.training_rank import WARM_UP

        config = TrainingConfig(initial_weights="none", epochs=1, batch_size=8, learning_rate=1e-5, warmup_epochs=0,
                                ema_decay=None)  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            training.draw(Path(folder), (WARM_UP + 30) * config.batch_size)
            return [{figure.what: round(figure.measured, 3)} for figure in training.on_gpu(Path(folder), config)]

    def _detector(self, precision: Any, count: int) -> tuple[Detector, list[FittedImage]]:
        detector = Detector(self._card, self._weights, str(DEVICE), precision)
        return detector, [detector.fit_to_canvas(self._renditions[number % IMAGES]) for number in range(count)]

    def _on_device(self, count: int) -> tuple[Detector, Tensor, Tensor]:
        """Return a bf16 detector with the input of its device part: images and the sizes of their content."""
        detector, fitted = self._detector("bf16", count)
        canvases, content = detector._upload(fitted)
        return detector, detector._normalise(canvases), content

    def _tensors(self, count: int) -> list[Tensor]:
        images = [torch.from_numpy(self._renditions[number % IMAGES]) for number in range(count)]
        return [image.to(DEVICE).float().div(255)[None].expand(3, -1, -1) for image in images]


def _need_cuda() -> None:
    if not WITH_CUDA:
        raise Skipped("there is no CUDA device")


def _use_tf32(*, enabled: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = enabled


def _time(call: Callable[[], object], seconds: float = 2.0) -> float:
    """Return the median seconds of a call, after two that warm up."""

    def once() -> float:
        begun = time.perf_counter()
        call()
        if WITH_CUDA:
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    with torch.inference_mode():
        once()
        first = once()
        return float(np.median([once() for _ in range(int(np.clip(seconds / first, 3, 40)))]))


def _compare(mine: list[tuple[Detection, ...]], theirs: list[dict[str, Tensor]]) -> Rows:
    """Match each of stock's boxes with ours of the same class whose edges are nearest, at most 8 px apart."""
    edges_px, scores, missing = [], [], 0
    for ours, stock in zip(mine, theirs, strict=True):
        left = list(ours)
        for box, score, label in zip(*(stock[key].tolist() for key in ("boxes", "scores", "labels")), strict=True):
            same = [one for one in left if one.category_id == label - 1]
            apart = [max(abs(a - b) for a, b in zip(box, one.box_xyxy_px, strict=True)) for one in same]
            if not apart or min(apart) > 8:
                missing += 1
                continue
            best = same[int(np.argmin(apart))]
            left.remove(best)
            edges_px.append(min(apart))
            scores.append(abs(best.score - score))
    return {"boxes": len(edges_px) + missing, "missing": missing, "largest edge, px": max(edges_px, default=0.0),
            "largest score": max(scores, default=0.0)}  # fmt: skip


def _largest_change(one: list[tuple[Detection, ...]], other: list[tuple[Detection, ...]]) -> float:
    pairs = [pair for left, right in zip(one, other, strict=True) for pair in zip(left, right, strict=False)]
    return max((abs(left.score - right.score) for left, right in pairs), default=0.0)


def _rounded(row: Rows) -> Rows:
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in row.items()}


if __name__ == "__main__":
    main()
