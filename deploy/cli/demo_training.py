"""`carina demo --train`: trains the active model on images of a second machine, with the usual commands."""

from pathlib import Path

import typer

from deploy.cli import datasets, trainings
from deploy.cli.clients import connect
from deploy.cli.console import complain, story
from shared.vocabulary.states import ModelState

DATASET = "two-machines"
IMAGES = 160
#: Half of the images are negatives: the second machine exchanges black and white, which the first model does not know.
NEGATIVE_SHARE = 0.5
VAL_SHARE = 0.25
#: About two minutes on two cores.
EPOCHS = 6


def teach(data: Path) -> None:
    """Draw images, train the active model on them, let the gate compare both, and print the active model.

    Raises `typer.Exit` where a step fails.
    """
    before = _active(data)
    story().rule("A second machine")
    story().print(
        "A second machine's images have black and white exchanged. The active model has never seen such images. It is"
        " trained on images of both machines, and the gate promotes the result only if it is significantly better."
    )
    _say(f"carina dataset phantoms --name {DATASET} --films {IMAGES} --negative-share {NEGATIVE_SHARE}")
    datasets.phantoms(
        name=DATASET, films=IMAGES, negative_share=NEGATIVE_SHARE, val_share=VAL_SHARE, test_share=0, data=data
    )
    _say(f"carina train --dataset {DATASET} --recipe fine_tune --weights model:{before} --gate-dataset {DATASET}")
    trainings.train(
        dataset=DATASET,
        recipe="fine_tune",
        epochs=EPOCHS,
        weights=f"model:{before}",
        gate_dataset=DATASET,
        name="two-machines",
        data=data,
    )
    after = _active(data)
    if after == before:
        complain("The gate has kept the model that was active.")
        raise typer.Exit(1)
    story().print(f"[green]promoted:[/] model {after} is used for all new images; `carina model rollback` undoes it")


def _active(data: Path) -> str:
    with connect(data) as client:
        return next(str(model.id) for model in client.models() if model.state == ModelState.ACTIVE)


def _say(command: str) -> None:
    story().print(f"\n[bold]$ {command}[/]", soft_wrap=True)
