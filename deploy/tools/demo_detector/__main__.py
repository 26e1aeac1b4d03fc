"""Train and evaluate the shipped detector: `python -m deploy.tools.demo_detector --help`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import cv2
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from deploy.tools.demo_detector.calibration import calibrate
from deploy.tools.demo_detector.evaluation import (
    MIN_SCORE,
    Figures,
    Image,
    count_boxes,
    find_lesions,
    lesions_in,
    measure,
)
from deploy.tools.demo_detector.films import Film, Lesions, hold_out, read_films
from deploy.tools.demo_detector.material import draw_dataset
from deploy.tools.demo_detector.training import CONFIG, TRAINED_ON, WARNINGS, train
from shared.detector.card import ModelCard
from shared.detector.runtime import Detector
from shared.errors import CarinaError
from shared.training.recipes import change_config
from trainer import fit as trainer_fit

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=160)  # a table must stay whole where it goes into a file

CARD_FILE, WEIGHTS_FILE = "card.json", "weights.safetensors"
#: The shipped model.
SHIPPED = Path(__file__).parents[3] / "shared" / "detector" / "demo"
#: The share of the patients whose films are not trained on, for choices such as the length of the training.
HELD_OUT_SHARE = 0.2

Films = Annotated[Path, typer.Option(help="COCO JSON with `rsna_class` and `patient`; its images lie beside it.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]


@app.command(name="train")
def train_detector(
    films: Films,
    out: Annotated[Path, typer.Option(help="The folder for the drawn images and the finished model.")],
    base: Annotated[Path, typer.Option(help="The folder of the model to start from.")] = SHIPPED,
    images: Annotated[int, typer.Option(min=8, help="Images to draw.")] = 1600,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs.")] = CONFIG.epochs,
    images_per_epoch: Annotated[int, typer.Option(min=1, help="Images in an epoch.")] = CONFIG.images_per_epoch or 1,
    learning_rate: Annotated[float, typer.Option(min=1e-6, help="Highest learning rate.")] = CONFIG.learning_rate,
    seed: Annotated[int, typer.Option(min=0, help="Of the drawn images and the training.")] = 0,
    threads: Threads = 1,
) -> None:
    """Draw the training images, and train. The same command continues an interrupted training."""
    _use(threads)
    learned, held = hold_out(read_films(films)[0], HELD_OUT_SHARE, seed=0)
    console.print(f"{len(learned)} normal films to train on, {len(held)} of other patients held out")
    with _bar("drawing", images) as advance:
        dataset = draw_dataset(learned, images, seed, out / "images", advance)
    changes = {"epochs": epochs, "images_per_epoch": images_per_epoch, "learning_rate": learning_rate, "seed": seed}
    config = change_config(CONFIG, changes)
    blended = list(lesions_in(held, 1))
    card, weights = train(
        dataset, out / "images", _load(base), config, lambda detector: _figures(detector, held, blended), _report
    )
    card, weights, lowered = calibrate(card, weights, held)
    console.print(f"lowered the logits of these classes: {lowered}", soft_wrap=True)
    (out / WEIGHTS_FILE).write_bytes(weights)
    _write(card.model_copy(update={"trained_on": TRAINED_ON.format(len(learned)), "warnings": WARNINGS}), out)
    console.print(f"{out}: {len(weights)} bytes of weights", soft_wrap=True)


@app.command()
def evaluate(
    films: Films,
    model: Annotated[Path, typer.Option(help="The model's folder.")] = SHIPPED,
    held_out: Annotated[bool, typer.Option(help="Use only the films that `train` holds out.")] = False,
    record: Annotated[bool, typer.Option(help="Write the figures into the model's card.")] = False,
    threads: Threads = 1,
) -> None:
    """Measure a model on films that it has not seen, and on phantoms."""
    _use(threads)
    normal, marked = read_films(films)
    if held_out:
        _, normal = hold_out(normal, HELD_OUT_SHARE, seed=0)
    card, weights = _load(model)
    figures = measure(Detector(card, weights, "cpu"), normal, marked)
    console.print(_table(figures))
    if record:
        _write(card.model_copy(update={"metrics": figures.as_metrics()}), model)


def _figures(detector: Detector, films: list[Film], blended: list[tuple[str, Image, Lesions]]) -> dict[str, float]:
    """Measure a detector quickly, for the report of an epoch."""
    boxes, clean = count_boxes(detector, ((film.patient, film.pixels) for film in films))
    found, _ = find_lesions(detector, blended)
    return {"boxes_per_film": boxes.value, "clean": clean.value, "sensitivity": found.value}


def _report(progress: trainer_fit.Progress) -> None:
    if progress.position.steps_done % 25 == 0 or not progress.images:
        said = ", ".join(f"{name} {value:.4g}" for name, value in progress.figures.items())
        console.print(f"epoch {progress.position.epoch} step {progress.position.steps_done}: {said}", soft_wrap=True)


def _use(threads: int) -> None:
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


@contextmanager
def _bar(title: str, total: int) -> Iterator[Any]:
    with Progress(
        TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    ) as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)


def _load(folder: Path) -> tuple[ModelCard, bytes]:
    return ModelCard.model_validate_json((folder / CARD_FILE).read_bytes()), (folder / WEIGHTS_FILE).read_bytes()


def _write(card: ModelCard, folder: Path) -> None:
    (folder / CARD_FILE).write_text(card.model_dump_json(indent=2) + "\n")


def _table(figures: Figures) -> Table:
    table = Table("images", f"figure at a score of {MIN_SCORE}", "value (95%)", "of")
    for kind in figures.boxes_per_image:
        for title, share in (
            ("boxes per image", figures.boxes_per_image[kind]),
            ("images without a box", figures.clean_images[kind]),
        ):
            table.add_row(kind, title, f"{share.value:.3f} ({share.low:.3f}–{share.high:.3f})", f"{share.count} images")
    for kind, share in figures.sensitivity.items():
        of = f"{share.count} lesions"
        table.add_row(kind, "lesions found", f"{share.value:.3f} ({share.low:.3f}–{share.high:.3f})", of)
        for class_name, value in figures.sensitivity_by_class[kind].items():
            table.add_row("", class_name, f"{value:.3f}", "")
    return table


def main() -> None:
    """Run a command; print an expected error as one sentence."""
    try:
        app()
    except CarinaError as error:
        Console(stderr=True, highlight=False).print(f"[bold red]error[/] {error}", soft_wrap=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
