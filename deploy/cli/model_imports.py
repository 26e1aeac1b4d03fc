"""`carina model import`: a checkpoint with options for what it does not contain, or an exported model."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError
from rich.markup import escape

from deploy.cli.clients import connect
from deploy.cli.console import busy, explain, show_result
from deploy.cli.environment import Data
from shared.detector.card import Category, ModelCard
from shared.errors import InvalidModelFile

if TYPE_CHECKING:
    from shared.detector.checkpoints import Checkpoint

CARD, WEIGHTS = "card.json", "weights.safetensors"
#: Properties that weights do not contain, and their options.
_UNSAID = {
    "canvas_px": "--canvas-px",
    "anchor_sizes_px": "--anchor-sizes",
    "anchor_aspect_ratios": "--anchor-ratios",
    "image_mean": "--image-mean",
    "image_std": "--image-std",
    "batch_norm_eps": "--batch-norm-eps",
    "score_threshold": "--score-threshold",
    "nms_iou": "--nms-iou",
    "max_detections": "--max-detections",
    "rendition_version": "--rendition-version",
}


class Order(StrEnum):
    """Order of the categories of the model's outputs."""

    LISTED = "listed"  # the first category of the file is output 1
    ID = "id"  # the category with the smallest id is output 1


@dataclass(frozen=True)
class _Given:
    """The classes that came with the weights: a whole card, or categories alone."""

    categories: list[Category]
    card: ModelCard | None = None


def import_model(
    file: Annotated[
        Path,
        typer.Argument(
            help="A torchvision Faster R-CNN checkpoint (.pth, .pt, .ckpt, .safetensors), "
            "or the folder that `carina model export` wrote."
        ),
    ],
    categories: Annotated[
        Path | None,
        typer.Option(help="JSON: COCO `categories`, a COCO file with them, or an exported card.json."),
    ] = None,
    order: Annotated[
        Order | None,
        typer.Option(
            "--category-order",
            help="Whether outputs 1, 2, ... are the categories as `listed` or by `id`; needed where these differ.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model.", show_default="the file's name")] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Make it the active model at once.")] = False,
    canvas_px: Annotated[int | None, typer.Option(help="Side of the square that images are fitted onto.")] = None,
    anchor_sizes: Annotated[
        str | None, typer.Option(metavar="JSON", help="Anchor sizes in canvas pixels, as [32],[64],[128],[256],[512].")
    ] = None,
    anchor_ratios: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Anchors' height over width, as 0.5,1,2.")
    ] = None,
    image_mean: Annotated[
        str | None, typer.Option(metavar="N,N,N", help="Subtracted from pixels of 0 to 1; ImageNet's by default.")
    ] = None,
    image_std: Annotated[
        str | None, typer.Option(metavar="N,N,N", help="Pixels are divided by this; ImageNet's by default.")
    ] = None,
    batch_norm_eps: Annotated[
        float | None, typer.Option(help="Of the backbone: 0 for weights that began from torchvision's COCO weights.")
    ] = None,
    score_threshold: Annotated[float | None, typer.Option(help="Minimum score of a finding.")] = None,
    nms_iou: Annotated[float | None, typer.Option(help="Findings of one class overlap by at most this.")] = None,
    max_detections: Annotated[int | None, typer.Option(help="Maximum number of findings of an image.")] = None,
    rendition_version: Annotated[
        int | None, typer.Option(help="Version of the renditions that it was trained on.")
    ] = None,
    trained_on: Annotated[str | None, typer.Option(help="Description of the training data, for people.")] = None,
    warnings: Annotated[
        list[str] | None,
        typer.Option("--warning", help="Sentence shown beside the findings of the model; may be repeated."),
    ] = None,
    data: Data = None,
) -> None:
    """Import a trained model. It is a candidate until it is promoted. Needs a key with the scope `system`.

    The file is read and checked on this machine, which needs the extra `worker`, and then sent to the API.
    """
    said = {
        "canvas_px": canvas_px,
        "anchor_sizes_px": _read_numbers("--anchor-sizes", anchor_sizes),
        "anchor_aspect_ratios": _read_numbers("--anchor-ratios", anchor_ratios),
        "image_mean": _read_numbers("--image-mean", image_mean),
        "image_std": _read_numbers("--image-std", image_std),
        "batch_norm_eps": batch_norm_eps,
        "score_threshold": score_threshold,
        "nms_iou": nms_iou,
        "max_detections": max_detections,
        "rendition_version": rendition_version,
        "trained_on": trained_on,
    }
    said = {key: value for key, value in said.items() if value is not None}
    with busy(f"Reading {escape(file.name)}"):
        card, weights, notes = _read_model(file, categories, order, name, said)
    card = _warn(card, warnings or ())
    with connect(data) as client:
        with busy(f"Sending {len(weights) / 1e6:.0f} MB"):
            client.put_weights(card.weights_sha256, weights)
        model = client.register_model(card.model_dump(mode="json"))
        if promote:
            model = client.promote(model.id)
    line = f"{model.id} {model.name} ({card.architecture}, {len(card.categories)} classes): {model.state}"
    show_result(model.model_dump(mode="json") | {"notes": notes}, line, *(f"  {each}" for each in notes))


def _read_model(
    file: Path, listed: Path | None, order: Order | None, name: str | None, said: dict[str, Any]
) -> tuple[ModelCard, bytes, list[str]]:
    """Return card, weights, and sentences about assumptions and choices."""
    from shared.detector.checkpoints import read_checkpoint
    from shared.detector.weights import import_checkpoint, load_model

    if file.is_dir() or file.name == CARD:
        folder = file if file.is_dir() else file.parent
        file, listed = folder / WEIGHTS, listed or folder / CARD
    if not file.is_file():
        raise typer.BadParameter(f"{file} is not a file.")
    if listed is None and (beside := file.with_name(CARD)).is_file():
        listed = beside
    if listed is None:
        raise typer.BadParameter(
            "Give the classes with --categories: a JSON list in the order of the model's outputs, "
            "or the card.json of an exported model."
        )
    content = file.read_bytes()
    given = _read_categories(listed)
    if given.card is not None and hashlib.sha256(content).hexdigest() == given.card.weights_sha256:
        changes = said if name is None else {**said, "name": name}
        card = _to_card(given.card.model_dump() | changes)
        load_model(card, content)  # They must fit.
        return card, content, [f"Everything that is not given as an option is as {listed.name} has it."]
    checkpoint = read_checkpoint(content)
    categories, notes = _order(given, order, checkpoint)
    if given.card is not None:
        notes.append(f"The weights are not the file that {listed.name} names; what weights cannot tell is as it says.")
        said = {field: value for field, value in given.card.model_dump().items() if field in _UNSAID} | said
    try:
        card, weights = import_checkpoint(checkpoint, categories, name=name or file.stem, **said)
    except ValidationError as exc:
        raise InvalidModelFile(f"The model's card would not be valid: {explain(exc)}.") from exc
    return card, weights, [*checkpoint.notes, *notes, *_assumptions(card, said)]


def _order(given: _Given, order: Order | None, checkpoint: "Checkpoint") -> tuple[list[Category], list[str]]:
    """Return the categories in the order of the outputs, and a note if they were sorted; raises `InvalidModelFile`."""
    categories, notes = given.categories, []
    scores = checkpoint.state.get("roi_heads.box_predictor.cls_score.weight")
    if scores is not None and len(scores) == len(categories) and _is_background(categories[0]):
        notes = [f"Output 0 is {categories[0].name!r}."]
        categories = categories[1:]
    by_id = sorted(categories, key=lambda category: category.id)
    if order is None and given.card is None and categories != by_id:
        raise InvalidModelFile(
            "The categories are not in the order of their ids, so it is not certain which output stands for which. "
            f"By id, output 1 is {by_id[0].name!r}; as listed, it is {categories[0].name!r}. "
            "Choose --category-order id (as where a label was the id, or the id + 1) or --category-order listed."
        )
    if order == Order.ID:
        categories = by_id
    outputs = ", ".join(f"{label} {category.name}" for label, category in enumerate(categories, start=1))
    return categories, [*notes, f"Outputs: {outputs}."]


def _is_background(category: Category) -> bool:
    return category.name.strip("_ ").casefold() in ("background", "bg")


def _assumptions(card: ModelCard, said: Mapping[str, Any]) -> list[str]:
    from shared.detector.families import plan_of

    values = card.model_dump(mode="json")
    assumed = [
        f"{field} {json.dumps(values[field])} ({option})" for field, option in _UNSAID.items() if field not in said
    ]
    notes = [f"Assumed, for weights do not tell: {'; '.join(assumed)}."] if assumed else []
    if "batch_norm_eps" not in said and plan_of(card.architecture).coco_batch_norm_eps == 0 < card.batch_norm_eps:
        notes.append(
            "If its training began from torchvision's COCO weights, whose batch_norm_eps is 0, import it again with "
            "--batch-norm-eps 0."
        )
    return notes


def _to_card(values: Mapping[str, Any]) -> ModelCard:
    try:
        return ModelCard.model_validate(values)
    except ValidationError as exc:
        raise InvalidModelFile(f"The model's card would not be valid: {explain(exc)}.") from exc


def _read_categories(path: Path) -> _Given:
    try:
        content = json.loads(path.read_text())
        if isinstance(content, dict) and "weights_sha256" in content:
            card = _to_card(content)
            return _Given(list(card.categories), card)
        listed = content["categories"] if isinstance(content, dict) else content
        categories = TypeAdapter(list[Category]).validate_python(listed)
        if not categories:
            raise ValueError("there are none")
    except (OSError, ValueError, KeyError, RecursionError) as exc:
        raise InvalidModelFile(
            f'{path} has no COCO categories, which are a list like [{{"id": 0, "name": "Aortic enlargement"}}, ...].'
        ) from exc
    return _Given(categories)


def _warn(card: ModelCard, warnings: Sequence[str]) -> ModelCard:
    """Return the card with these warnings, if there are any, in place of its own."""
    try:
        return card.with_warnings(warnings) if warnings else card
    except ValidationError as exc:
        raise typer.BadParameter(
            "--warning takes at most ten sentences, each of one line and 1 to 300 characters."
        ) from exc


def _read_numbers(option: str, text: str | None) -> list[Any] | None:
    """Return a list as JSON has it, with or without its brackets; one size on a level needs none of its own."""
    if text is None:
        return None
    try:
        values = json.loads(f"[{text}]")
    except ValueError as exc:
        raise typer.BadParameter(f"{option} {text}: not a list of numbers.") from exc
    if len(values) == 1 and isinstance(values[0], list) and any(isinstance(each, list) for each in values[0]):
        values = values[0]
    if option == "--anchor-sizes":
        return [each if isinstance(each, list) else [each] for each in values]
    return values[0] if len(values) == 1 and isinstance(values[0], list) else values
