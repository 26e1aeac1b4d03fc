"""`carina model`: import, export, list, promote, roll back."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from uuid import UUID

import sqlalchemy as sa
import typer
from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from deploy.cli.audit import note
from deploy.cli.console import out, print_json
from deploy.cli.environment import Data, settings_of
from shared.database import Database
from shared.detector.card import Category, ModelCard
from shared.errors import InvalidModelFile, NotFound
from shared.tables import Model

app = typer.Typer(help="The detectors that Carina knows, and which of them is active.", no_args_is_help=True)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A torchvision Faster R-CNN state dict (.pth, .pt, .safetensors).")],
    categories: Annotated[
        Path,
        typer.Option(help="JSON: COCO `categories` in the order of the model's outputs, or a COCO file with them."),
    ],
    name: Annotated[str | None, typer.Option(help="What to call it.", show_default="the file's name")] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Make it the active model at once.")] = False,
    canvas_px: Annotated[int | None, typer.Option(help="Side of the square that films are fitted onto.")] = None,
    warnings: Annotated[
        list[str] | None,
        typer.Option("--warning", help="What a reader must know, shown beside its findings; may be repeated."),
    ] = None,
    data: Data = None,
) -> None:
    """Import a trained model. It is a candidate until it is promoted."""
    from shared import models
    from shared.detector.weights import import_checkpoint
    from shared.object_store import ObjectStore

    settings = settings_of(data)
    if not file.is_file():
        raise typer.BadParameter(f"{file} is no file.")
    with out.status(f"Reading {file.name}"):
        card, weights = import_checkpoint(
            file, _read_categories(categories), name=name or file.stem, canvas_px=canvas_px
        )
    card = _warn(card, warnings or ())
    with out.status(f"Storing {len(weights) / 1e6:.0f} MB"), Database.from_settings(settings).begin() as session:
        model = models.register(session, ObjectStore(settings), card, weights)
        note(session, "model.import", model_id=model.id, promoted=promote)
        if promote:
            models.promote(session, model.id)
        out.print(f"{model.id} {model.name} ({card.architecture}, {len(card.categories)} classes): {model.state}")


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data: Data = None,
) -> None:
    """List all models, newest first."""
    with Database.from_settings(settings_of(data)).begin() as session:
        rows = session.scalars(sa.select(Model).order_by(Model.id.desc())).all()
        if as_json:
            print_json(
                [
                    {"id": row.id, "name": row.name, "state": row.state, "digest": row.digest, "card": row.card}
                    for row in rows
                ]
            )
            return
        table = Table("id", "name", "architecture", "classes", "state", "made")
        for row in rows:
            card = row.card
            made = f"{row.created_at:%Y-%m-%d %H:%M}"
            table.add_row(str(row.id), row.name, card["architecture"], str(len(card["categories"])), row.state, made)
    out.print(table)


@app.command()
def export(
    model_id: UUID,
    output: Annotated[Path, typer.Option(help="The folder that card.json and weights.safetensors go to.")],
    data: Data = None,
) -> None:
    """Write a model to a folder; `carina model import` takes it, and so does torchvision's own Faster R-CNN."""
    from shared.object_store import ObjectStore, weights_key

    settings = settings_of(data)
    with Database.from_settings(settings).begin() as session:
        model = session.get(Model, model_id)
        if model is None:
            raise NotFound(f"There is no model {model_id}.")
        card, sha256 = ModelCard.model_validate(model.card), model.weights_sha256
    weights = ObjectStore(settings).get(weights_key(sha256), sha256=sha256)
    output.mkdir(parents=True, exist_ok=True)
    (output / "weights.safetensors").write_bytes(weights)
    (output / "card.json").write_text(card.model_dump_json(indent=2) + "\n")
    out.print(f"{output}: card.json and weights.safetensors ({len(weights) / 1e6:.0f} MB)", soft_wrap=True)


@app.command()
def demo(data: Data = None) -> None:
    """Register the small model that ships with Carina; it becomes active where no model is."""
    from shared import models
    from shared.detector.demo import load_demo_model
    from shared.object_store import ObjectStore

    settings = settings_of(data)
    with Database.from_settings(settings).begin() as session:
        model = models.register(session, ObjectStore(settings), *load_demo_model())
        if models.active(session) is None:
            models.promote(session, model.id)
        note(session, "model.demo", model_id=model.id)
        out.print(f"{model.id} {model.name}: {model.state}. {model.card['trained_on']}")


@app.command()
def promote(model_id: UUID, data: Data = None) -> None:
    """Make a model the active one; workers change over between two batches."""
    from shared import models

    with Database.from_settings(settings_of(data)).begin() as session:
        model = models.promote(session, model_id)
        note(session, "model.promote", model_id=model.id)
        out.print(f"{model.id} {model.name}: {model.state}")


@app.command()
def rollback(data: Data = None) -> None:
    """Return to the model that was active before."""
    from shared import models

    with Database.from_settings(settings_of(data)).begin() as session:
        model = models.roll_back(session)
        note(session, "model.rollback", model_id=model.id)
        out.print(f"{model.id} {model.name}: {model.state}")


def _warn(card: ModelCard, warnings: Sequence[str]) -> ModelCard:
    """Return the card with these warnings, if there are any, in place of its own."""
    try:
        return card.with_warnings(warnings) if warnings else card
    except ValidationError as exc:
        raise typer.BadParameter(
            "--warning takes at most ten sentences, each of one line and 1 to 300 characters."
        ) from exc


def _read_categories(path: Path) -> list[Category]:
    try:
        content = json.loads(path.read_text())
        listed = content["categories"] if isinstance(content, dict) else content
        return TypeAdapter(list[Category]).validate_python(listed)
    except (OSError, ValueError, KeyError, ValidationError) as exc:
        raise InvalidModelFile(
            f'{path} holds no COCO categories: a list like [{{"id": 0, "name": "Aortic enlargement"}}, ...].'
        ) from exc
