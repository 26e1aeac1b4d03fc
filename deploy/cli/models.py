"""`carina model`: import, export, list, promote, roll back."""

from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
import typer
from rich.markup import escape

from deploy.cli.application import Application, Part
from deploy.cli.audit import note
from deploy.cli.console import is_json, out, print_json, show_result
from deploy.cli.environment import Data, settings_of
from deploy.cli.model_imports import CARD, WEIGHTS, describe_model
from deploy.cli.tables import Table
from shared.bounded import is_odd
from shared.database import Database
from shared.detector.card import ModelCard
from shared.models.verdict import MOST_REASON
from shared.tables import Model

app = Application(help="The detectors that Carina knows, and which of them is active.", no_args_is_help=True)

Named = Annotated[str, typer.Argument(metavar="MODEL", help="Its id, the beginning of it, or its name.")]

app.parts["import"] = Part("deploy.cli.model_imports:import_model")


@app.command("list")
def list_(
    data: Data = None,
) -> None:
    """List all models, newest first."""
    with Database.from_settings(settings_of(data)).begin() as session:
        rows = session.scalars(sa.select(Model).order_by(Model.id.desc())).all()
        if is_json():
            print_json([describe_model(row) for row in rows])
            return
        table = Table("id", "name", "architecture", "classes", "state", "made")
        for row in rows:
            card = row.card
            made = f"{row.created_at:%Y-%m-%d %H:%M}"
            table.add_row(
                str(row.id), escape(row.name), card["architecture"], str(len(card["categories"])), row.state, made
            )
    out.print(table)


@app.command()
def export(
    model: Named,
    output: Annotated[Path, typer.Option(help="The folder that card.json and weights.safetensors go to.")],
    data: Data = None,
) -> None:
    """Write a model to a folder; `carina model import` takes it, and so does torchvision's own Faster R-CNN."""
    from shared.models import registry
    from shared.object_store import ObjectStore, weights_key

    settings = settings_of(data)
    with Database.from_settings(settings).begin() as session:
        row = registry.find(session, model)
        model_id, card, sha256 = row.id, ModelCard.model_validate(row.card), row.weights_sha256
    weights = ObjectStore(settings).get(weights_key(sha256), sha256=sha256)
    output.mkdir(parents=True, exist_ok=True)
    (output / WEIGHTS).write_bytes(weights)
    (output / CARD).write_text(card.model_dump_json(indent=2) + "\n")
    said = f"{output}: card.json and weights.safetensors ({len(weights) / 1e6:.0f} MB)"
    show_result({"id": model_id, "folder": str(output), "byte_count": len(weights)}, said)


@app.command()
def demo(data: Data = None) -> None:
    """Register the small model that ships with Carina; it becomes active where no model is."""
    from shared.detector.demo import load_demo_model
    from shared.models import registry
    from shared.object_store import ObjectStore

    settings = settings_of(data)
    with Database.from_settings(settings).begin() as session:
        model = registry.register(session, ObjectStore(settings), *load_demo_model())
        if registry.active(session) is None:
            registry.promote(session, model.id)
        note(session, "model.demo", model_id=model.id)
        show_result(describe_model(model), f"{model.id} {model.name}: {model.state}. {model.card['trained_on']}")


@app.command()
def promote(
    model: Named,
    reason: Annotated[
        str | None, typer.Option(help="Why, where the gate refused the model; the audit keeps it.")
    ] = None,
    data: Data = None,
) -> None:
    """Make a model the active one; workers change over between two batches.

    Shows the gate's last decision about it. Where that is a refusal, --reason is needed.
    """
    from shared.models import registry
    from shared.models.promotion import audited, promote_by_hand

    reason = _read_reason(reason)
    with Database.from_settings(settings_of(data)).begin() as session:
        row, verdict = promote_by_hand(session, registry.find(session, model).id, reason)
        note(session, "model.promote", model_id=row.id, **audited(verdict, reason))
        gate = verdict.model_dump(mode="json") if verdict else None
        said = verdict.in_words() if verdict else "The gate has not been asked about this model."
        show_result(describe_model(row) | {"gate": gate}, f"{row.id} {row.name}: {row.state}", said)


@app.command()
def rollback(data: Data = None) -> None:
    """Return to the model that was active before."""
    from shared.models import registry

    with Database.from_settings(settings_of(data)).begin() as session:
        model = registry.roll_back(session)
        note(session, "model.rollback", model_id=model.id)
        show_result(describe_model(model), f"{model.id} {model.name}: {model.state}")


def _read_reason(reason: str | None) -> str | None:
    if reason is None:
        return None
    reason = reason.strip()
    if not 1 <= len(reason) <= MOST_REASON or is_odd(reason):
        raise typer.BadParameter(f"--reason takes one line of 1 to {MOST_REASON} characters.")
    return reason
