"""`carina train`, and `carina training`: list, show, follow, log, cancel, events."""

from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
import typer
from rich.markup import escape

from api.training.answers import describe_training
from deploy.cli import training_options as options
from deploy.cli.application import Application
from deploy.cli.audit import note
from deploy.cli.console import err, is_json, out, print_json, remark, show_result, tell
from deploy.cli.environment import Data, settings_of
from deploy.cli.evaluations import watch_evaluation
from deploy.cli.following import follow, how_far_is_decision, how_far_is_training, read, require_success
from deploy.cli.gate_options import GateDataset, GateSplit, LeastGain, read_gate
from deploy.cli.projects import InProject, open_project
from deploy.cli.results import print_decision
from deploy.cli.tables import Column, Table
from deploy.cli.weights import name_weights, store_weights
from shared.access.keys import FIRST_PROJECT
from shared.database import Database
from shared.database.lookup import find_id
from shared.tables import Evaluation, GateDecision, TrainingRun
from shared.training import datasets
from shared.training.recipes import require_base
from shared.training.tasks import cancel_task
from shared.vocabulary.states import TaskState

EXIT_INTERRUPTED = 130

app = Application(help="Trainings: where they stand, and what came of them.", no_args_is_help=True)

Run = Annotated[str, typer.Argument(metavar="TRAINING", help="A training, as `carina train` printed it.")]
Weights = Annotated[
    str | None,
    typer.Option(
        help="A file, `torchvision` (ImageNet), `none` or `model:NAME_OR_ID`.",
        show_default="the recipe's",
    ),
]


def train(
    dataset: Annotated[str, typer.Option(help="A dataset's name (its latest version) or id.")],
    recipe: options.Recipe = "default",
    arch: options.Architecture = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    canvas_px: options.CanvasPx = None,
    learning_rate: options.LearningRate = None,
    weights: Weights = None,
    seed: options.Seed = None,
    changes: options.Changes = None,
    gate_dataset: GateDataset = None,
    gate_split: GateSplit = None,
    least_gain: LeastGain = None,
    name: Annotated[str | None, typer.Option(help="What to call the model.", show_default="the dataset's")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")] = False,
    project: InProject = FIRST_PROJECT,
    data: Data = None,
) -> None:
    """Train a detector on a dataset, and evaluate it. Ctrl-C only stops watching."""
    from shared.object_store import ObjectStore
    from shared.training.pretrained import require_pretrained
    from shared.training.trainings import require_weights, start_training

    chosen = {
        "architecture": arch,
        "epochs": epochs,
        "batch_size": batch_size,
        "canvas_px": canvas_px,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    config = options.read_config(recipe, changes or [], **chosen)
    settings = settings_of(data)
    (database, project_id), store = open_project(settings, project), ObjectStore(settings)
    if weights is not None:
        chosen["initial_weights"] = store_weights(name_weights(weights, database), config.architecture, store)
        config = options.read_config(recipe, changes or [], **chosen)
    require_base(recipe, config)
    require_weights(store, config)
    with database.begin() as session:
        trained_on = datasets.resolve(session, project_id, dataset)
        gate = read_gate(session, project_id, None, dataset=gate_dataset, split=gate_split, least_gain=least_gain)
        run = start_training(session, dataset=trained_on, config=config, gate=gate, name=name)
        require_pretrained(store, config)
        run_id = run.id
        note(session, "training.start", training_id=run_id)
        tell(_describe(run), f"training {run_id} of {run.name}, on dataset {trained_on.id}")
        for each in run.notes:
            remark(f"  {each}")
    if not detach:
        _watch(database, run_id)


@app.command("list")
def list_(
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many.")] = 20,
    project: InProject = FIRST_PROJECT,
    data: Data = None,
) -> None:
    """List trainings, newest first."""
    database, _ = open_project(settings_of(data), project)
    with database.begin() as session:
        runs = session.scalars(sa.select(TrainingRun).order_by(TrainingRun.id.desc()).limit(count)).all()
        if is_json():
            print_json([_describe(run) for run in runs])
            return
        table = Table(Column("id", no_wrap=True), "name", "state", "epochs", "model", "began")
        for run in runs:
            began = f"{run.started_at:%Y-%m-%d %H:%M}" if run.started_at else ""
            epochs = f"{run.progress.get('epoch', 0)}/{run.config['epochs']}"
            table.add_row(str(run.id), escape(run.name), run.state, epochs, str(run.model_id or ""), began)
    out.print(table)


@app.command()
def show(training: Run, data: Data = None) -> None:
    """Show where a training stands, with its config."""
    run = read(Database.from_settings(settings_of(data)), TrainingRun, training)
    described = _describe(run)
    if is_json():
        print_json(described)
        return
    table = Table("", escape(run.name), show_lines=False)
    for key, value in described.items():
        if isinstance(value, dict):
            value = ", ".join(f"{inner}={each}" for inner, each in value.items())
        table.add_row(key, escape("" if value is None else str(value)))
    out.print(table)


@app.command("follow")
def follow_(training: Run, data: Data = None) -> None:
    """Watch a training until its end. Ctrl-C only stops watching."""
    database = Database.from_settings(settings_of(data))
    _watch(database, read(database, TrainingRun, training).id)


@app.command()
def log(training: Run, data: Data = None) -> None:
    """Print the last lines that a training's processes wrote."""
    run = read(Database.from_settings(settings_of(data)), TrainingRun, training)
    show_result({"id": run.id, "log": run.log_tail}, run.log_tail)


@app.command()
def cancel(training: Run, data: Data = None) -> None:
    """End a training; its trainer notices within seconds."""
    with Database.from_settings(settings_of(data)).begin() as session:
        run_id = find_id(session, "training", training)
        cancel_task(session, TrainingRun, run_id)
        note(session, "training.cancel", training_id=run_id)
    show_result({"id": run_id, "state": TaskState.CANCELLED}, f"{run_id} is cancelled")


@app.command()
def events(
    training: Run,
    output: Annotated[Path, typer.Option(help="Folder to write to, for `tensorboard --logdir`.", file_okay=False)],
    data: Data = None,
) -> None:
    """Write a training's event files for TensorBoard, one an attempt, up to its last checkpoint."""
    from shared.object_store import ObjectStore, result_key

    settings = settings_of(data)
    run = read(Database.from_settings(settings), TrainingRun, training)
    store = ObjectStore(settings)
    output.mkdir(parents=True, exist_ok=True)
    for attempt, sha256 in sorted(run.events.items(), key=lambda item: int(item[0])):
        # TensorBoard reads a folder's files in the order of their names.
        path = output / f"events.out.tfevents.{int(attempt):06}.attempt-{attempt}"
        path.write_bytes(store.get(result_key(sha256, "tfevents"), sha256=sha256))
        tell({"attempt": int(attempt), "file": str(path)}, str(path))
    if not run.events:
        remark("There is none before the first checkpoint.")


def _describe(run: TrainingRun) -> dict[str, Any]:
    return describe_training(run).model_dump(mode="json")


def _watch(database: Database, run_id: UUID) -> None:
    try:
        run = follow(database, TrainingRun, run_id, how_far_is_training)
        require_success(run)
        tell(_describe(run), f"model {run.model_id} ({run.name}) is a candidate: `carina model promote {run.model_id}`")
        _watch_what_follows(database, run)
    except KeyboardInterrupt:
        err.print(f"\nIt goes on: `carina training follow {run_id}` or `carina training cancel {run_id}`.")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _watch_what_follows(database: Database, run: TrainingRun) -> None:
    """Watch the decision or the evaluation that was asked for together with the model."""
    with database.begin() as session:
        decision_id = session.scalar(sa.select(GateDecision.id).where(GateDecision.training_run_id == run.id))
        # Of the same transaction as the run's end, and so of the same time; the model may be an older one's twin.
        of_run = (Evaluation.model_id == run.model_id, Evaluation.created_at >= run.finished_at)
        evaluation_id = session.scalar(sa.select(Evaluation.id).where(*of_run).order_by(Evaluation.id).limit(1))
    if decision_id is not None:
        decision = follow(database, GateDecision, decision_id, how_far_is_decision)
        require_success(decision)
        print_decision(decision)
        evaluation_id = decision.candidate_evaluation_id
    if evaluation_id is not None:
        watch_evaluation(database, evaluation_id)
