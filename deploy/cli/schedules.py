"""`carina schedule`: create, list, show, update, enable, disable, delete, run."""

from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from api.contract.schedules import ScheduleAnswer, ScheduleRequest
from deploy.cli import training_options as options
from deploy.cli.application import Application
from deploy.cli.clients import connect
from deploy.cli.console import show_result
from deploy.cli.environment import Data
from deploy.cli.tables import Column, print_answer, print_list
from deploy.cli.weights import name_weights
from shared.training.config import GateConfig, TrainingConfig
from shared.training.recipes import RECIPES, change_config
from shared.vocabulary.states import Overlap

app = Application(help="Schedules: when to train again, and on what.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The schedule's name.")]
Cron = "Minute, hour, day of the month, month, day of the week, as in '0 3 * * 0'."
TimeZone = "Time zone of the cron expression, as Europe/Berlin."
DatasetName = "Train on the latest dataset of this name."
OverlapWith = "If the last run is still going on: `skip` this time, or `queue` behind it."
Always = "Train also if neither data nor config has changed."


@app.command()
def create(
    name: Name,
    cron: Annotated[str, typer.Option(help=Cron)],
    dataset: Annotated[str, typer.Option(help=DatasetName)],
    time_zone: Annotated[str, typer.Option(help=TimeZone)] = "UTC",
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
    metric: options.Metric = None,
    least_gain: options.LeastGain = None,
    confidence: options.Confidence = None,
    most_class_drop: options.MostClassDrop = None,
    counted_from_boxes: options.CountedFromBoxes = None,
    overlap: Annotated[Overlap, typer.Option(help=OverlapWith)] = Overlap.SKIP,
    always: Annotated[bool, typer.Option("--always", help=Always)] = False,
    data: Data = None,
) -> None:
    """Add a schedule. A dataset of the name need not exist yet."""
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
        gate = options.read_gate(
            client,
            None,
            dataset=gate_dataset,
            split=gate_split,
            metric=metric,
            least_gain=least_gain,
            confidence=confidence,
            most_class_drop=most_class_drop,
            counted_from_boxes=counted_from_boxes,
        )
        request = ScheduleRequest(
            name=name,
            cron=cron,
            time_zone=time_zone,
            dataset_name=dataset,
            recipe=recipe,
            config=config,
            gate=gate,
            overlap=overlap,
            skip_unchanged=not always,
        )
        made = client.create_schedule(request)
    show_result(made, f"{made.id} {name}: next {_next_time(made)}")


@app.command("list")
def list_(data: Data = None) -> None:
    """List all schedules, when each is due next, and what became of the last time."""
    with connect(data) as client:
        found = client.schedules()
    rows = [
        (
            each.name,
            f"{each.cron} {each.time_zone}",
            each.dataset_name,
            "yes" if each.gate else "no",
            _next_time(each),
            each.last_outcome,
        )
        for each in found
    ]
    print_list(found, [Column("name", no_wrap=True), "cron", "dataset", "gate", "next", "last"], rows)


@app.command()
def show(name: Name, data: Data = None) -> None:
    """Show a schedule with its config and gate."""
    with connect(data) as client:
        print_answer(client.find_schedule(name), name)


@app.command()
def update(
    name: Name,
    cron: Annotated[str | None, typer.Option(help=Cron)] = None,
    dataset: Annotated[str | None, typer.Option(help=DatasetName)] = None,
    time_zone: Annotated[str | None, typer.Option(help=TimeZone)] = None,
    recipe: Annotated[str | None, typer.Option(help="Start from this config instead of the schedule's.")] = None,
    changes: options.Changes = None,
    gate_dataset: options.GateDataset = None,
    gate_split: options.GateSplit = None,
    metric: options.Metric = None,
    least_gain: options.LeastGain = None,
    confidence: options.Confidence = None,
    most_class_drop: options.MostClassDrop = None,
    counted_from_boxes: options.CountedFromBoxes = None,
    no_gate: Annotated[bool, typer.Option("--no-gate", help="Remove the gate: no automatic promotion.")] = False,
    overlap: Annotated[Overlap | None, typer.Option(help=OverlapWith)] = None,
    always: Annotated[bool | None, typer.Option("--always/--when-changed", help=Always)] = None,
    data: Data = None,
) -> None:
    """Change a schedule; all that is not named stays as it is. A new cron expression or zone counts from now."""
    plain = {"cron": cron, "time_zone": time_zone, "dataset_name": dataset, "overlap": overlap, "recipe": recipe}
    changed: dict[str, Any] = {key: value for key, value in plain.items() if value is not None}
    if always is not None:
        changed["skip_unchanged"] = not always
    with connect(data) as client:
        schedule = client.find_schedule(name)
        if recipe is not None or changes:
            config = options.read_changes(recipe or TrainingConfig.model_validate(schedule.config), changes)
            changed |= {"config": config} if config else {}
        before = GateConfig.model_validate(schedule.gate) if schedule.gate else None
        gate = options.read_gate(
            client,
            None if no_gate else before,
            dataset=gate_dataset,
            split=gate_split,
            metric=metric,
            least_gain=least_gain,
            confidence=confidence,
            most_class_drop=most_class_drop,
            counted_from_boxes=counted_from_boxes,
        )
        if gate != before:
            changed["gate"] = gate
        schedule = client.change_schedule(schedule.id, **changed)
    _show_changed(schedule)


@app.command()
def enable(name: Name, data: Data = None) -> None:
    """Have a schedule come due again, from now on."""
    with connect(data) as client:
        _show_changed(client.change_schedule(client.find_schedule(name).id, enabled=True))


@app.command()
def disable(name: Name, data: Data = None) -> None:
    """Have a schedule come due no more; a run that has begun goes on."""
    with connect(data) as client:
        _show_changed(client.change_schedule(client.find_schedule(name).id, enabled=False))


@app.command()
def delete(name: Name, data: Data = None) -> None:
    """Remove a schedule; its runs stay."""
    with connect(data) as client:
        schedule = client.find_schedule(name)
        client.delete_schedule(schedule.id)
    show_result({"id": schedule.id, "name": schedule.name, "deleted": True}, f"{schedule.name} is deleted")


@app.command()
def run(name: Name, data: Data = None) -> None:
    """Start a run of a schedule now, regardless of its rules."""
    with connect(data) as client:
        started = client.run_schedule(client.find_schedule(name).id)
    show_result(started, f"training {started.id} of {started.name}")


def _show_changed(schedule: ScheduleAnswer) -> None:
    show_result(schedule, f"{schedule.name}: next {_next_time(schedule)}")


def _next_time(schedule: ScheduleAnswer) -> str:
    """Say when a schedule is due next, on its own clock."""
    if schedule.next_at is None:
        return "never: disabled"
    return f"{schedule.next_at.astimezone(ZoneInfo(schedule.time_zone)):%Y-%m-%d %H:%M %Z}"
