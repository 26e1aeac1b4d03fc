"""Train and evaluate the classifier of whole images: `python -m deploy.tools.chest_classifier --help`."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from deploy.tools.chest_classifier.evaluation import measure, measure_on_chests
from deploy.tools.chest_classifier.fit import SIDE_PX, choose_thresholds, fit
from deploy.tools.chest_classifier.material import Material, draw_negatives, draw_phantoms
from deploy.tools.chest_classifier.pictures import NothingToLearnFrom, read_pictures, split
from deploy.tools.chest_classifier.projections import read_ct, views
from shared.errors import CarinaError
from shared.imaging.chest_classifier.card import ChestClassifierCard, Tested
from shared.imaging.chest_classifier.classifier import CARD_FILE, SHIPPED, WEIGHTS_FILE, ChestClassifier
from shared.version import RENDITION_VERSION

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=160)  # a table must stay whole where it goes into a file

#: The kind that `--films` is.
IMAGES = "frontal films"

Images = Annotated[
    list[Path],
    typer.Option("--films", help="Frontal chest images: a folder, or a COCO JSON with its images beside it."),
]
Others = Annotated[
    list[Path] | None,
    typer.Option("--other", help="Pictures that are no frontal chest: a folder, whose own name is their kind's."),
]


@app.command()
def train(
    images: Images,
    out: Annotated[Path, typer.Option(help="The folder to write `card.json` and `weights.safetensors` to.")],
    other: Others = None,
    name: Annotated[str, typer.Option(help="The classifier's name.")] = "chest-classifier",
    note: Annotated[str, typer.Option(help="What a reader of the card should know of the data.")] = "",
    phantom_count: Annotated[int, typer.Option("--phantoms", min=0, help="Phantoms to learn from as well.")] = 150,
    drawn_count: Annotated[int, typer.Option("--drawn", min=1, help="Pictures to draw of each other kind.")] = 300,
    steps: Annotated[int, typer.Option(min=10, help="Steps of training.")] = 5000,
    batch_size: Annotated[int, typer.Option(min=4, help="Pictures a step.")] = 64,
    validation_share: Annotated[float, typer.Option(min=0.05, max=0.5, help="Images kept for the thresholds.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of the split, of the weights and of every variation.")] = 0,
) -> None:
    """Train on frontal images and on others; choose the thresholds on images of other patients."""
    kinds = read_pictures(_sources(images, other), console)
    fitted, chosen = split(kinds.pop(IMAGES), validation_share, seed)
    drawn = draw_phantoms(phantom_count)
    material = Material(
        [picture.image for picture in fitted],
        drawn,
        {kind: [picture.image for picture in pictures] for kind, pictures in kinds.items()},
        draw_negatives(drawn_count, seed),
    )
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("loss {task.fields[loss]:.3f}"), console=console) as progress:
        task = progress.add_task("training", total=steps, loss=float("nan"))
        network = fit(
            material, steps, batch_size, seed, lambda done, loss: progress.update(task, completed=done, loss=loss)
        )
    weights = network.to_bytes()
    card = ChestClassifierCard(
        name=name,
        side_px=SIDE_PX,
        thresholds=choose_thresholds(network, [picture.image for picture in chosen], seed),
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        rendition_version=RENDITION_VERSION,
        fitted_on={
            IMAGES: len(fitted),
            "phantoms": len(drawn),
            **{kind: len(pictures) for kind, pictures in kinds.items()},
        },
        chosen_on={IMAGES: len(chosen)},
        trained_at=f"{datetime.now(UTC):%Y-%m-%d}",
        note=note,
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / WEIGHTS_FILE).write_bytes(weights)
    _write(card, out)
    console.print(f"{out}: {len(weights)} bytes of weights, thresholds {card.thresholds.model_dump()}", soft_wrap=True)


@app.command()
def evaluate(
    images: Images,
    other: Others = None,
    classifier: Annotated[Path, typer.Option(help="The classifier's folder.")] = SHIPPED,
    record: Annotated[bool, typer.Option(help="Write what was measured into the classifier's card.")] = False,
) -> None:
    """Count the flags on images and on other pictures that the classifier has never seen."""
    subject = ChestClassifier.load(classifier)
    kinds = read_pictures(_sources(images, other), console)
    tested = measure_on_chests(subject, IMAGES, kinds.pop(IMAGES))
    for kind, pictures in kinds.items():
        tested[kind] = measure(subject, [picture.rendition for picture in pictures])
    console.print(_table(tested))
    if record:
        _write(subject.card.model_copy(update={"tested_on": tested}), classifier)


@app.command()
def project(
    ct: Annotated[Path, typer.Option(help="A folder with the DICOM slices of one CT of a chest.")],
    out: Annotated[Path, typer.Option(help="The folder to make one folder a kind in.")],
) -> None:
    """Compute images from a CT that are no frontal chest: from the side, of the belly, and the slices themselves."""
    for kind, pictures in views(*read_ct(ct)).items():
        (out / kind).mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures):
            cv2.imwrite(str(out / kind / f"{number:03d}.png"), np.rint(255 * picture).astype(np.uint8))
        console.print(f"{out / kind}: {len(pictures)} pictures", soft_wrap=True)


def _sources(images: list[Path], negatives: list[Path] | None) -> dict[str, list[Path]]:
    return {IMAGES: images, **{folder.name: [folder] for folder in negatives or []}}


def _write(card: ChestClassifierCard, folder: Path) -> None:
    (folder / CARD_FILE).write_text(card.model_dump_json(indent=2) + "\n")


def _table(tested: dict[str, Tested]) -> Table:
    table = Table("pictures", "flag", "raised", "of", "share (95%)")
    for kind, result in tested.items():
        for flag, rate in result.rates.items():
            share = f"{rate.flagged / rate.of:.1%} ({rate.low:.1%}–{rate.high:.1%})"
            table.add_row(kind, flag, str(rate.flagged), str(rate.of), share)
    return table


def main() -> None:
    """Run a command; print an expected error as one sentence."""
    try:
        app()
    except (CarinaError, NothingToLearnFrom) as error:
        Console(stderr=True, highlight=False).print(f"[bold red]error[/] {error}", soft_wrap=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
