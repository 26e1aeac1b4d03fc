"""`carina evaluate`, and `carina evaluation`: list, show, report, detections."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from rich.markup import escape

from api.contract.training import DetectionsFormat, EvaluationAnswer
from deploy.cli.application import Application
from deploy.cli.clients import connect
from deploy.cli.console import is_json, opened, out, print_json, tell
from deploy.cli.environment import Data
from deploy.cli.following import follow, may_leave
from deploy.cli.tables import Column, Table, print_list
from shared.training.config import EvaluationConfig, Split
from shared.vocabulary.headlines import read_headlines, read_references

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import Carina

_DEFAULTS = EvaluationConfig()

app = Application(help="Evaluations: their numbers and reports.", no_args_is_help=True)

Chosen = Annotated[str, typer.Argument(metavar="EVALUATION", help="An evaluation, as `carina evaluate` printed it.")]
Form = Annotated[
    DetectionsFormat,
    typer.Option("--format", help="`kaggle`: the submission of the VinBigData challenge; `coco`: for pycocotools."),
]
Metrics = Mapping[str, Any]


def evaluate(
    dataset: Annotated[str, typer.Option(help="A dataset's name (its latest version) or id.")],
    model: Annotated[str, typer.Option(help="A model's id or name, or `active`.")] = "active",
    split: Annotated[Split, typer.Option(help="Split of the dataset to evaluate on.")] = _DEFAULTS.split,
    score_threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out detections below this score.")
    ] = _DEFAULTS.score_threshold,
    batch_size: Annotated[int, typer.Option(min=1, max=256, help="Images per forward pass.")] = _DEFAULTS.batch_size,
    bootstrap_samples: Annotated[
        int, typer.Option(min=0, max=100_000, help="Resamples behind each interval; 0: no intervals.")
    ] = _DEFAULTS.bootstrap_samples,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples.")] = _DEFAULTS.seed,
    report: Annotated[
        Path | None, typer.Option(help="Write the report to this HTML file.", dir_okay=False, writable=True)
    ] = None,
    form: Annotated[
        DetectionsFormat | None,
        typer.Option(
            "--format", help="Write the detections to --output, or instead of the numbers to standard output."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the detections to this file.", dir_okay=False)
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")] = False,
    data: Data = None,
) -> None:
    """Evaluate a model on a split of a dataset. Ctrl-C only stops watching."""
    if output is not None and form is None:
        raise typer.BadParameter("--output needs --format, the format of the detections.")
    if detach and (form is not None or report is not None):
        raise typer.BadParameter("With --detach there is nothing to write yet: use `carina evaluation` later.")
    is_piped = form is not None and output is None
    if is_piped and report is not None:
        raise typer.BadParameter("--format with --report needs --output, the file of the detections.")
    config = EvaluationConfig(
        split=split,
        score_threshold=score_threshold,
        batch_size=batch_size,
        bootstrap_samples=bootstrap_samples,
        seed=seed,
    )
    with connect(data) as client:
        model_id = None if model == "active" else client.find_model(model)
        asked = client.evaluate(dataset, model=model_id or "active", config=config)
        if not is_piped:
            tell(asked, f"evaluation {asked.id} of model {asked.model_id}, on {split} of dataset {asked.dataset_id}")
        if detach:
            return
        with may_leave(f"`carina evaluation show {asked.id}`"):
            if is_piped:
                follow(client, asked, lambda: client.evaluation(asked.id))
            else:
                watch_evaluation(client, asked)
        if report is not None:
            _write_report(client, asked, report)
        if form is not None:
            _write_detections(client, asked.id, form, output)


@app.command("list")
def list_(
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many.")] = 20,
    data: Data = None,
) -> None:
    """List evaluations, newest first."""
    with connect(data) as client:
        found = list(islice(client.evaluations(), count))
    rows = []
    for each in found:
        value = each.metrics["map40"]["value"] if each.metrics else None
        figure = "" if value is None else f"{value:.3f}"
        rows.append((each.id, each.model_id, each.dataset_id, each.config["split"], each.state, figure))
    print_list(found, [Column("id", no_wrap=True), "model", "dataset", "split", "state", "mAP at IoU > 0.4"], rows)


@app.command()
def show(chosen: Chosen, data: Data = None) -> None:
    """Show an evaluation's numbers."""
    with connect(data) as client:
        evaluation = client.evaluation(client.find_id(chosen, "evaluation"))
    if is_json():
        print_json(evaluation)
        return
    out.print(f"evaluation {evaluation.id} of model {evaluation.model_id}: {evaluation.state}", soft_wrap=True)
    if evaluation.metrics is not None:
        print_metrics(evaluation.metrics)
    elif evaluation.code:
        out.print(f"{evaluation.code}: {evaluation.reason}", soft_wrap=True, markup=False)


@app.command()
def report(
    chosen: Chosen,
    output: Annotated[Path, typer.Option(help="The HTML file to write.", dir_okay=False, writable=True)],
    data: Data = None,
) -> None:
    """Write an evaluation's report, one self-contained HTML file. It shows images of patients: mind who reads it."""
    with connect(data) as client:
        _write_report(client, client.evaluation(client.find_id(chosen, "evaluation")), output)


@app.command()
def detections(
    chosen: Chosen,
    form: Form = DetectionsFormat.JSON,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.", dir_okay=False)] = None,
    data: Data = None,
) -> None:
    """Write an evaluation's detections, in pixels of the originals."""
    with connect(data) as client:
        _write_detections(client, client.find_id(chosen, "evaluation"), form, output)


def watch_evaluation(client: "Carina", evaluation: EvaluationAnswer) -> None:
    """Follow an evaluation to its end and print its numbers; exits where it has none."""
    evaluation = follow(client, evaluation, lambda: client.evaluation(evaluation.id))
    if not is_json():
        assert evaluation.metrics is not None
        print_metrics(evaluation.metrics)
    tell(evaluation, f"report: `carina evaluation report {evaluation.id} --output report.html`")


def _write_report(client: "Carina", evaluation: EvaluationAnswer, path: Path) -> None:
    path.write_bytes(client.report(evaluation.id))
    tell({"id": evaluation.id, "file": str(path)}, str(path))


def _write_detections(client: "Carina", evaluation_id: UUID, form: DetectionsFormat, path: Path | None) -> None:
    with opened(path) as file:
        client.export_detections(evaluation_id, file, form)
    if path is not None:
        tell({"id": evaluation_id, "file": str(path)}, str(path))


def print_metrics(metrics: Metrics) -> None:
    """Print an evaluation's numbers: the headlines with their intervals, FROC, and each class."""
    percent = round(100 * metrics["confidence"])
    table = Table("metric", "value", f"{percent}% interval", title=f"On {metrics['images']} images")
    for headline in (*read_headlines(metrics), *read_references(metrics)):
        interval = "" if headline.low is None else f"{headline.low:.3f} to {headline.high:.3f}"
        table.add_row(headline.name, _number(headline.value), interval)
    out.print(table)
    froc = Table("false positives an image", *(f"{point['false_positives']:g}" for point in metrics["froc"]))
    froc.add_row("lesions found", *(_number(point["lesions"]["value"]) for point in metrics["froc"]))
    froc.add_row("images with lesions found", *(_number(point["images"]["value"]) for point in metrics["froc"]))
    out.print(froc)
    classes = Table("class", "images", "boxes", "AP at IoU > 0.4", "COCO AP", "AUROC")
    for row in metrics["categories"]:
        counts = (str(row["images"]), str(row["boxes"]))
        classes.add_row(escape(row["name"]), *counts, *(_number(row[key]) for key in ("ap40", "ap", "auroc")))
    out.print(classes)
    _print_normals(metrics)
    # Evaluations of earlier versions know of neither.
    for missing in metrics.get("missing", ()):
        closest = f"; its most similar class is {missing['closest']!r}" if missing["closest"] else ""
        said = f"The model has no class {missing['name']!r} ({missing['boxes']:,} boxes){closest}. It is in no mean."
        out.print(said, soft_wrap=True, markup=False)


def _print_normals(metrics: Metrics) -> None:
    points = metrics.get("normal_films") or []
    if not points:
        return
    images = metrics["images"] - metrics["images_with_findings"]
    normals = Table("score from", *(f"{point['threshold']:g}" for point in points), title=f"On {images} normal images")
    normals.add_row("false positives an image", *(_number(point["false_positives"]) for point in points))
    normals.add_row("images with one", *(_number(point["films_marked"]) for point in points))
    out.print(normals)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
