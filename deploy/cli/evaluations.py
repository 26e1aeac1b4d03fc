"""`carina evaluate`, and `carina evaluation`: list, show, report."""

from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
import typer

from api.contract.training import EvaluationAnswer
from deploy.cli.application import Application
from deploy.cli.audit import note
from deploy.cli.console import err, is_json, out, print_json, tell
from deploy.cli.environment import Data, settings_of
from deploy.cli.following import follow, how_far_is_evaluation, read, require_success
from deploy.cli.projects import InProject, open_project
from deploy.cli.results import print_metrics
from deploy.cli.tables import Column, Table
from shared.access.keys import FIRST_PROJECT
from shared.database import Database
from shared.errors import NotReady
from shared.models import registry
from shared.settings import Settings
from shared.tables import Evaluation
from shared.training import datasets
from shared.training.config import EvaluationConfig, Split
from shared.training.evaluations import start_evaluation

EXIT_INTERRUPTED = 130
_DEFAULTS = EvaluationConfig()

app = Application(help="Evaluations: their numbers and reports.", no_args_is_help=True)

Chosen = Annotated[str, typer.Argument(metavar="EVALUATION", help="An evaluation, as `carina evaluate` printed it.")]


def evaluate(
    dataset: Annotated[str, typer.Option(help="A dataset's name (its latest version) or id.")],
    model: Annotated[str, typer.Option(help="A model's id or name, or `active`.")] = "active",
    split: Annotated[Split, typer.Option(help="Which images of it.")] = _DEFAULTS.split,
    score_threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out detections below this score.")
    ] = _DEFAULTS.score_threshold,
    batch_size: Annotated[int, typer.Option(min=1, max=256, help="Images per forward pass.")] = _DEFAULTS.batch_size,
    bootstrap_samples: Annotated[
        int, typer.Option(min=0, max=100_000, help="Resamples behind each interval; 0: no intervals.")
    ] = _DEFAULTS.bootstrap_samples,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = _DEFAULTS.seed,
    report: Annotated[
        Path | None, typer.Option(help="Write the report to this HTML file.", dir_okay=False, writable=True)
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")] = False,
    project: InProject = FIRST_PROJECT,
    data: Data = None,
) -> None:
    """Evaluate a model on a split of a dataset. Ctrl-C only stops watching."""
    config = EvaluationConfig(
        split=split,
        score_threshold=score_threshold,
        batch_size=batch_size,
        bootstrap_samples=bootstrap_samples,
        seed=seed,
    )
    settings = settings_of(data)
    database, project_id = open_project(settings, project)
    with database.begin() as session:
        met = datasets.resolve(session, project_id, dataset)
        asked = start_evaluation(
            session,
            model_id=None if model == "active" else registry.find(session, model).id,
            dataset=met,
            config=config,
        )
        evaluation_id = asked.id
        note(session, "evaluation.start", evaluation_id=evaluation_id)
        said = f"evaluation {evaluation_id} of model {asked.model_id}, on {split} of dataset {met.id}"
        tell(_describe(asked), said)
    if detach:
        return
    try:
        evaluation = watch_evaluation(database, evaluation_id)
    except KeyboardInterrupt:
        err.print(f"\nIt goes on: `carina evaluation show {evaluation_id}`.")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if report is not None:
        _write_report(settings, evaluation, report)


@app.command("list")
def list_(
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many.")] = 20,
    project: InProject = FIRST_PROJECT,
    data: Data = None,
) -> None:
    """List evaluations, newest first."""
    database, _ = open_project(settings_of(data), project)
    with database.begin() as session:
        rows = session.scalars(sa.select(Evaluation).order_by(Evaluation.id.desc()).limit(count)).all()
        if is_json():
            print_json([_describe(row) for row in rows])
            return
        table = Table(Column("id", no_wrap=True), "model", "dataset", "split", "state", "mAP at IoU > 0.4")
        for row in rows:
            value = row.metrics["map40"]["value"] if row.metrics else None
            figure = "" if value is None else f"{value:.3f}"
            table.add_row(str(row.id), str(row.model_id), str(row.dataset_id), row.config["split"], row.state, figure)
    out.print(table)


@app.command()
def show(chosen: Chosen, data: Data = None) -> None:
    """Show an evaluation's numbers."""
    evaluation = read(Database.from_settings(settings_of(data)), Evaluation, chosen)
    if is_json():
        print_json(_describe(evaluation))
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
    """Write an evaluation's report, one HTML file with everything in it. It shows films: mind who reads it."""
    settings = settings_of(data)
    evaluation = read(Database.from_settings(settings), Evaluation, chosen)
    _write_report(settings, evaluation, output)


def watch_evaluation(database: Database, evaluation_id: UUID) -> Evaluation:
    """Follow an evaluation to its end and print its numbers; exits where it has none."""
    evaluation = follow(database, Evaluation, evaluation_id, how_far_is_evaluation)
    require_success(evaluation)
    assert evaluation.metrics is not None
    if not is_json():
        print_metrics(evaluation.metrics)
    tell(_describe(evaluation), f"report: `carina evaluation report {evaluation.id} --output report.html`")
    return evaluation


def _describe(evaluation: Evaluation) -> dict[str, Any]:
    return EvaluationAnswer.model_validate(evaluation).model_dump(mode="json")


def _write_report(settings: Settings, evaluation: Evaluation, path: Path) -> None:
    from shared.object_store import ObjectStore, result_key

    sha256 = evaluation.report_sha256
    if sha256 is None:
        raise NotReady(f"Evaluation {evaluation.id} is {evaluation.state} and has no report.")
    path.write_bytes(ObjectStore(settings).get(result_key(sha256, "html"), sha256=sha256))
    tell({"id": evaluation.id, "file": str(path)}, str(path))
