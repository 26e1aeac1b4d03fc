"""`carina train`, and `carina training`: list, show, follow, log, cancel, resume, events."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.contract.schedules import GateDecisionAnswer
from api.contract.training import TrainingAnswer
from deploy.cli import training_options as options
from deploy.cli.application import Application
from deploy.cli.clients import connect
from deploy.cli.console import remark, show_result, tell
from deploy.cli.environment import Data
from deploy.cli.evaluations import watch_evaluation
from deploy.cli.following import follow, may_leave
from deploy.cli.tables import Column, print_answer, print_list
from deploy.cli.weights import name_weights
from shared.training.recipes import RECIPES, change_config

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import Carina

app = Application(help="Trainings: where they stand, and what came of them.", no_args_is_help=True)

Run = Annotated[str, typer.Argument(metavar="TRAINING", help="A training, as `carina train` printed it.")]


def train(
    dataset: Annotated[str, typer.Option(help="A dataset's name (its latest version) or id.")],
    recipe: options.Recipe = "default",
    arch: options.Architecture = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    canvas_px: options.CanvasPx = None,
    learning_rate: options.LearningRate = None,
    weights: options.Weights = None,
    seed: options.Seed = None,
    changes: options.Changes = None,
    gate_dataset: options.GateDataset = None,
    gate_split: options.GateSplit = None,
    least_gain: options.LeastGain = None,
    name: Annotated[str | None, typer.Option(help="What to call the model.", show_default="the dataset's")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")] = False,
    data: Data = None,
) -> None:
    """Train a detector on a dataset, and evaluate it. Ctrl-C only stops watching."""
    config = options.read_changes(
        recipe,
        changes,
        architecture=arch,
        epochs=epochs,
        batch_size=batch_size,
        canvas_px=canvas_px,
        learning_rate=learning_rate,
        seed=seed,
    )
    with connect(data) as client:
        if weights is not None:
            architecture = change_config(RECIPES[recipe], config).architecture
            config["initial_weights"] = name_weights(client, weights, architecture)
        gate = options.read_gate(client, None, dataset=gate_dataset, split=gate_split, least_gain=least_gain)
        run = client.train(dataset, recipe=recipe, config=config, gate=gate, name=name)
        tell(run, f"training {run.id} of {run.name}, on dataset {run.dataset_id}")
        for each in run.notes:
            remark(f"  {each}")
        if not detach:
            _watch(client, run)


@app.command("list")
def list_(
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many.")] = 20,
    data: Data = None,
) -> None:
    """List trainings, newest first."""
    with connect(data) as client:
        runs = list(islice(client.trainings(), count))
    rows = [
        (
            run.id,
            run.name,
            run.state,
            f"{run.progress.get('epoch', 0)}/{run.config['epochs']}",
            run.model_id,
            f"{run.started_at:%Y-%m-%d %H:%M}" if run.started_at else "",
        )
        for run in runs
    ]
    print_list(runs, [Column("id", no_wrap=True), "name", "state", "epochs", "model", "began"], rows)


@app.command()
def show(training: Run, data: Data = None) -> None:
    """Show where a training stands, with its config."""
    with connect(data) as client:
        run = client.training(client.find_id(training, "training"))
    print_answer(run, run.name)


@app.command("follow")
def follow_(training: Run, data: Data = None) -> None:
    """Watch a training until its end. Ctrl-C only stops watching."""
    with connect(data) as client:
        _watch(client, client.training(client.find_id(training, "training")))


@app.command()
def log(training: Run, data: Data = None) -> None:
    """Print the last lines that a training's processes wrote."""
    with connect(data) as client:
        run_id = client.find_id(training, "training")
        lines = client.training_log(run_id)
    show_result({"id": run_id, "log": lines}, lines)


@app.command()
def cancel(training: Run, data: Data = None) -> None:
    """Cancel a training; its trainer notices within seconds."""
    with connect(data) as client:
        run = client.cancel_training(client.find_id(training, "training"))
    show_result({"id": run.id, "state": run.state}, f"{run.id} is cancelled")


@app.command()
def resume(training: Run, data: Data = None) -> None:
    """Continue a failed or cancelled training from its last checkpoint."""
    with connect(data) as client:
        run = client.resume_training(client.find_id(training, "training"))
    show_result({"id": run.id, "state": run.state}, f"{run.id} is {run.state}; it waits for a trainer")


@app.command()
def events(
    training: Run,
    output: Annotated[Path, typer.Option(help="Folder to write to, for `tensorboard --logdir`.", file_okay=False)],
    data: Data = None,
) -> None:
    """Write a training's event files for TensorBoard, one for each attempt, up to its last checkpoint."""
    with connect(data) as client:
        run = client.training(client.find_id(training, "training"))
        output.mkdir(parents=True, exist_ok=True)
        for attempt in run.events:
            # TensorBoard reads a folder's files in the order of their names.
            path = output / f"events.out.tfevents.{attempt:06}.attempt-{attempt}"
            path.write_bytes(client.training_events(run.id, attempt))
            tell({"attempt": attempt, "file": str(path)}, str(path))
    if not run.events:
        remark("There is none before the first checkpoint.")


def print_decision(decision: GateDecisionAnswer) -> None:
    """Print the decision of a gate and its reasons."""
    tell(decision, f"gate {decision.id}: {decision.explanation or ''}")


def _watch(client: "Carina", run: TrainingAnswer) -> None:
    with may_leave(f"`carina training follow {run.id}` or `carina training cancel {run.id}`"):
        run = follow(client, run, lambda: client.training(run.id))
        tell(run, f"model {run.model_id} ({run.name}) is a candidate: `carina model promote {run.model_id}`")
        _watch_what_follows(client, run)


def _watch_what_follows(client: "Carina", run: TrainingAnswer) -> None:
    """Watch the decision or the evaluation that was requested with the training."""
    assert run.finished_at is not None
    finished_at, evaluation_id = run.finished_at, None
    if run.gate is not None:
        decision = next(each for each in client.gate_decisions() if each.training_run_id == run.id)
        decision = follow(client, decision, lambda: client.gate_decision(decision.id))
        print_decision(decision)
        evaluation_id = decision.candidate_evaluation_id
    else:
        # Of the same transaction as the run's end, and so of the same time; the model may be an older one's twin.
        for each in client.evaluations():
            if each.created_at < finished_at:
                break
            if each.model_id == run.model_id:
                evaluation_id = each.id
    if evaluation_id is not None:
        watch_evaluation(client, client.evaluation(evaluation_id))
