"""`carina model`: import, export, list, promote, roll back."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from api.contract.models import ModelAnswer, PromotionRequest
from deploy.cli.application import Application, Part
from deploy.cli.clients import connect
from deploy.cli.console import busy, explain, show_result
from deploy.cli.environment import Data, has_database_alone, settings_of
from deploy.cli.model_imports import CARD, WEIGHTS
from deploy.cli.tables import print_list
from shared.detector.card import ModelCard
from shared.vocabulary.states import ModelState

app = Application(help="The detectors that Carina knows, and which of them is active.", no_args_is_help=True)

Named = Annotated[str, typer.Argument(metavar="MODEL", help="Its id, the beginning of it, or its name.")]

app.parts["import"] = Part("deploy.cli.model_imports:import_model")


@app.command("list")
def list_(data: Data = None) -> None:
    """List all models, newest first."""
    with connect(data) as client:
        found = client.models()
    rows = [
        (
            model.id,
            model.name,
            model.card["architecture"],
            len(model.card["categories"]),
            model.state,
            f"{model.created_at:%Y-%m-%d %H:%M}",
        )
        for model in found
    ]
    print_list(found, ["id", "name", "architecture", "classes", "state", "made"], rows)


@app.command()
def export(
    model: Named,
    output: Annotated[Path, typer.Option(help="The folder that card.json and weights.safetensors go to.")],
    data: Data = None,
) -> None:
    """Write a model to a folder, which `carina model import` takes. Needs a key with the scope `system`.

    torchvision's own Faster R-CNN loads the weights too.
    """
    with connect(data) as client:
        model_id = client.find_model(model)
        card = next(ModelCard.model_validate(each.card) for each in client.models() if each.id == model_id)
        with busy("Fetching the weights"):
            weights = client.weights(model_id)
    output.mkdir(parents=True, exist_ok=True)
    (output / WEIGHTS).write_bytes(weights)
    (output / CARD).write_text(card.model_dump_json(indent=2) + "\n")
    said = f"{output}: card.json and weights.safetensors ({len(weights) / 1e6:.0f} MB)"
    show_result({"id": model_id, "folder": str(output), "byte_count": len(weights)}, said)


@app.command()
def demo(data: Data = None) -> None:
    """Register the small model that ships with Carina; it becomes active if no model is. Needs a key with `system`.

    Without an API key it is registered in the database, whose credentials the command then needs.
    """
    from shared.detector.demo import load_demo_model

    if has_database_alone(data):
        from deploy.bootstrap import register_demo_model

        model_id, state = register_demo_model(settings_of(None))
        card = load_demo_model()[0]
        described = {"id": model_id, "name": card.name, "state": state, "digest": card.digest, "card": card}
        show_result(described, f"{model_id} {card.name}: {state}. {card.trained_on}")
        return
    card, weights = load_demo_model()
    with connect(data) as client:
        client.put_weights(card.weights_sha256, weights)
        model = client.register_model(card.model_dump(mode="json"))
        if not any(each.state == ModelState.ACTIVE for each in client.models()):
            model = client.promote(model.id)
    show_result(model, f"{model.id} {model.name}: {model.state}. {model.card['trained_on']}")


@app.command()
def promote(
    model: Named,
    reason: Annotated[str | None, typer.Option(help="Why, if the gate refused the model; the audit keeps it.")] = None,
    data: Data = None,
) -> None:
    """Make a model the active one; workers change over between two batches. Needs a key with the scope `system`.

    Shows the gate's last decision about the model. After a refusal, --reason is needed.
    """
    try:
        PromotionRequest(reason=reason)
    except ValidationError as exc:
        raise typer.BadParameter(explain(exc)) from exc
    with connect(data) as client:
        promoted = client.promote(client.find_model(model), reason=reason)
    gate = promoted.gate
    said = gate.in_words() if gate else "The gate has not been asked about this model."
    _show(promoted, said)


@app.command()
def rollback(data: Data = None) -> None:
    """Return to the model that was active before. Needs a key with the scope `system`."""
    with connect(data) as client:
        _show(client.roll_back())


def _show(model: ModelAnswer, *more: str) -> None:
    show_result(model, f"{model.id} {model.name}: {model.state}", *more)
