"""Trains and evaluates the small detector that ships with Carina, on synthetic films only.

    python -m trainer.train_demo_detector train --backbone-weights mobilenet_v2_features.safetensors
    python -m trainer.train_demo_detector evaluate

Training can be interrupted at any time; the same command goes on from the last checkpoint.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.models.detection import FasterRCNN

from shared.detector import demo
from shared.detector.architectures import BLUEPRINTS, build
from shared.detector.card import Category, ModelCard
from shared.detector.runtime import Detector, Precision
from shared.detector.weights import decode_weights, encode_weights
from shared.imaging.rendition import RENDITION_VERSION
from shared.phantoms import CLASS_NAMES
from shared.version import code_version
from trainer import phantom_set
from trainer.augmentation import expose_at_random, place_at_random
from trainer.engine import Batch, evaluate, keep_boxes_in_float32, train_one_epoch
from trainer.evaluation.boxes import Boxes
from trainer.evaluation.voc import Evaluation
from trainer.phantom_set import PhantomSet

#: Disjoint from every training seed, and never looked at while training but to report progress.
HELD_OUT_FILMS = 300
HELD_OUT = range(1_000_000, 1_000_000 + HELD_OUT_FILMS)
STEPS_PER_EPOCH = 50
#: Detections below this never change a mean average precision by much, and cost time above it.
EVALUATION_THRESHOLD = 0.001
#: Training on a part of the canvas costs less, and the part is as wide as an upright film.
CROP_PX = 384
#: Stages of the backbone that keep their ImageNet weights: edges and texture look the same on every film.
FROZEN_STAGES = 5
BACKBONE_LEARNING_RATE, HEAD_LEARNING_RATE = 4e-4, 1e-3
AVERAGE_DECAY = 0.995

app = typer.Typer(add_completion=False, help=__doc__)
console = Console()

Work = Annotated[Path, typer.Option(help="Where films and checkpoints are kept.")]
HeldOutFilms = Annotated[int, typer.Option(min=1, max=HELD_OUT_FILMS, help="Films to evaluate on.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]


@app.command()
def train(
    backbone_weights: Annotated[Path, typer.Option(help="ImageNet weights of MobileNetV2's `features`.", exists=True)],
    work: Work = Path("build/demo-detector"),
    output: Annotated[Path, typer.Option(help="Where the card and the weights go.")] = Path(demo.__file__).parent,
    films: Annotated[int, typer.Option(min=1, max=HELD_OUT.start, help="Training films.")] = 2400,
    held_out_films: HeldOutFilms = HELD_OUT_FILMS,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 1400,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    canvas_px: Annotated[int, typer.Option(min=64)] = BLUEPRINTS["carina_small"].canvas_px,
    threads: Threads = 1,
    seed: int = 1,
) -> None:
    """Train the demo detector, evaluate it on held-out films and write its card and weights."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    training_set = phantom_set.load(work / "films", range(films), phantom_set.balanced, threads)
    held_out = phantom_set.load(work / "films", HELD_OUT[:held_out_films], phantom_set.natural, threads)
    draft = draft_card(canvas_px)
    model = prepare_model(draft, backbone_weights)
    averaging = get_ema_multi_avg_fn(AVERAGE_DECAY)  # type: ignore[no-untyped-call]
    average = AveragedModel(model, multi_avg_fn=averaging, use_buffers=True)
    body = [p for p in model.backbone.body.parameters() if p.requires_grad]
    heads = [p for name, p in model.named_parameters() if not name.startswith("backbone.body.")]
    optimizer = AdamW(
        [{"params": body, "lr": BACKBONE_LEARNING_RATE}, {"params": heads, "lr": HEAD_LEARNING_RATE}], weight_decay=0.02
    )
    rates = [BACKBONE_LEARNING_RATE, HEAD_LEARNING_RATE]
    schedule = OneCycleLR(optimizer, rates, total_steps=steps, pct_start=0.06, final_div_factor=100)
    parts: dict[str, Any] = {"model": model, "average": average, "optimizer": optimizer, "schedule": schedule}
    checkpoint = work / "checkpoint.pt"

    for first in range(resume(checkpoint, parts), steps, STEPS_PER_EPOCH):
        last = min(first + STEPS_PER_EPOCH, steps)
        batches = track(
            draw_batches(training_set, draft, seed, range(first, last), batch_size),
            f"steps {first}–{last} of {steps}",
            last - first,
            console=console,
        )
        losses = train_one_epoch(model, average, batches, optimizer, schedule, bf16=True)
        console.log(last, {name: round(loss, 4) for name, loss in losses.items()})
        save(checkpoint, parts, last)
        if last % (8 * STEPS_PER_EPOCH) == 0 and last < steps:
            card, weights = seal(draft, average.module)
            report(card, *score(card, weights, held_out, len(held_out) // 3, "auto"))

    card, weights = seal(draft, average.module)
    evaluation, seconds = score(card, weights, held_out, len(held_out), "fp32")
    report(card, evaluation, seconds)
    card = card.model_copy(update={"metrics": describe(evaluation, training_set, held_out, steps, batch_size)})
    output.mkdir(parents=True, exist_ok=True)
    (output / "weights.safetensors").write_bytes(weights)
    (output / "card.json").write_text(card.model_dump_json(indent=2) + "\n")


@app.command(name="evaluate")
def evaluate_model(
    work: Work = Path("build/demo-detector"),
    held_out_films: HeldOutFilms = HELD_OUT_FILMS,
    threads: Threads = 1,
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the detector.")] = "auto",
) -> None:
    """Evaluate the demo detector as it is installed, on held-out synthetic films, through the serving code."""
    torch.set_num_threads(threads)
    held_out = phantom_set.load(work / "films", HELD_OUT[:held_out_films], phantom_set.natural, threads)
    card, weights = demo.load_demo_model()
    report(card, *score(card, weights, held_out, len(held_out), precision))


# --- model and files -------------------------------------------------------------------------------------------------


def draft_card(canvas_px: int) -> ModelCard:
    """Return the demo model's card, but for its weights and metrics."""
    return ModelCard(
        name="carina-demo",
        architecture="carina_small",
        categories=tuple(Category(id=index, name=name) for index, name in enumerate(CLASS_NAMES)),
        canvas_px=canvas_px,
        anchor_sizes_px=BLUEPRINTS["carina_small"].anchor_sizes_px,
        score_threshold=0.3,
        rendition_version=RENDITION_VERSION,
        weights_sha256="0" * 64,
        trained_on="trained on synthetic films only",
        code_version=code_version(),
    )


def prepare_model(card: ModelCard, backbone_weights: Path) -> FasterRCNN:
    """Build the network on its ImageNet features, the first stages frozen."""
    model = build(card).to(memory_format=torch.channels_last)
    features = decode_weights(backbone_weights.read_bytes())
    model.backbone.body.load_state_dict({k: v for k, v in features.items() if not k.startswith("18.")})
    for stage in range(FROZEN_STAGES):
        model.backbone.body[str(stage)].requires_grad_(False)
    keep_boxes_in_float32(model)
    return model


def seal(draft: ModelCard, model: FasterRCNN) -> tuple[ModelCard, bytes]:
    """Return the card and the float16 weights of a model."""
    weights = encode_weights(model.state_dict())
    return draft.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()}), weights


def save(checkpoint: Path, parts: dict[str, Any], step: int) -> None:
    """Write a checkpoint, all of it or nothing."""
    unfinished = checkpoint.with_suffix(".tmp")
    torch.save({"step": step, **{name: part.state_dict() for name, part in parts.items()}}, unfinished)
    unfinished.replace(checkpoint)


def resume(checkpoint: Path, parts: dict[str, Any]) -> int:
    """Load a checkpoint if there is one; return the steps done."""
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])


# --- data ------------------------------------------------------------------------------------------------------------


def draw_batches(films: PhantomSet, card: ModelCard, seed: int, steps: range, batch_size: int) -> Iterator[Batch]:
    """Yield the batches of these steps; a step's batch depends on nothing but `seed` and the step."""
    for step in steps:
        rows = [_film_of(seed, index, len(films)) for index in range(step * batch_size, (step + 1) * batch_size)]
        rng = np.random.default_rng((seed, step))
        yield _collate(films, rows, card, rng)


def _film_of(seed: int, index: int, films: int) -> int:
    """Return which film comes at a place of the stream, in which every film comes once a round."""
    order = np.random.default_rng((seed, index // films, 0xF11)).permutation(films)
    return int(order[index % films])


def _collate(films: PhantomSet, rows: list[int], card: ModelCard, rng: np.random.Generator) -> Batch:
    crops, boxes, labels = [], [], []
    for row in rows:
        crop, placed, visible = place_at_random(
            films.films[row], films.boxes_xyxy_px[row], card.canvas_px, CROP_PX, rng
        )
        crops.append(expose_at_random(crop, rng))
        boxes.append(torch.from_numpy(placed[visible]))
        labels.append(torch.tensor([card.label_of(c) for c in films.classes[row][visible].tolist()], dtype=torch.int64))
    grey = torch.from_numpy(np.stack(crops))[:, None].float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (card.image_mean, card.image_std))
    return Batch(((grey - mean) / std).contiguous(memory_format=torch.channels_last), boxes, labels)


# --- evaluation ------------------------------------------------------------------------------------------------------


def score(
    card: ModelCard, weights: bytes, held_out: PhantomSet, films: int, precision: Precision
) -> tuple[Evaluation, float]:
    """Evaluate on the first held-out films; also return the mean seconds an image."""
    detector = Detector(card.model_copy(update={"score_threshold": EVALUATION_THRESHOLD}), weights, "cpu", precision)
    detector.warm_up(1)
    renditions: Iterator[NDArray[np.uint8]] = (np.ascontiguousarray(film) for film in held_out.films[:films])
    truth = {
        seed: Boxes(classes, boxes, np.ones(len(classes), np.float32))
        for seed, classes, boxes in zip(held_out.seeds, held_out.classes, held_out.boxes_xyxy_px, strict=True)
    }
    return evaluate(detector, renditions, truth, list(held_out.seeds[:films]))


def describe(
    evaluation: Evaluation, training_set: PhantomSet, held_out: PhantomSet, steps: int, batch_size: int
) -> dict[str, Any]:
    """Return what the card says about how good the model is, and how that was found."""
    return {
        "map_iou_40": _rounded(evaluation.mean_ap),
        "ap_iou_40": {CLASS_NAMES[id_]: _rounded(ap) for id_, ap in evaluation.ap_by_category.items()},
        "evaluated_films": evaluation.images,
        "evaluated_seeds": _span(held_out.seeds),
        "training_seeds": _span(training_set.seeds),
        "training_steps": steps,
        "batch_size": batch_size,
    }


def report(card: ModelCard, evaluation: Evaluation, seconds: float) -> None:
    """Print each class's average precision."""
    table = Table("class", "AP at IoU > 0.4")
    for category in card.categories:
        ap = evaluation.ap_by_category[category.id]
        table.add_row(category.name, "no true box: left out" if ap is None else f"{ap:.3f}")
    console.print(table)
    console.print(
        f"mAP at IoU > 0.4: {_rounded(evaluation.mean_ap)} on {evaluation.images} held-out synthetic films; "
        f"{seconds:.3f} s an image with {torch.get_num_threads()} CPU thread(s)"
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _span(seeds: Any) -> str:
    return f"{seeds[0]}–{seeds[-1]}"


if __name__ == "__main__":
    app()
