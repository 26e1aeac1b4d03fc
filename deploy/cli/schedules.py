"""`carina schedule`: create, list, show, update, enable, disable, delete, run."""

from typing import Annotated, Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
import typer
from rich.markup import escape
from sqlalchemy.orm import Session

from api.contract.schedules import ScheduleAnswer
from api.training.answers import describe_training
from deploy.cli import gate_options
from deploy.cli import training_options as options
from deploy.cli.application import Application
from deploy.cli.audit import note
from deploy.cli.console import is_json, out, print_json, show_result
from deploy.cli.environment import Data, settings_of
from deploy.cli.projects import InProject, open_project
from deploy.cli.tables import Column, Table
from deploy.cli.weights import name_weights
from shared.access.keys import FIRST_PROJECT
from shared.object_store import ObjectStore
from shared.tables import Schedule
from shared.training import schedules
from shared.training.config import GateConfig, TrainingConfig
from shared.training.recipes import require_base
from shared.training.trainings import require_weights
from shared.vocabulary.states import Overlap

app = Application(help="Schedules: when to train again, and on what.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="What it is called.")]
Cron = "Minute, hour, day of the month, month, day of the week, as in '0 3 * * 0'."
TimeZone = "In which the cron expression is meant, as in Europe/Berlin."
DatasetName = "Train on the latest dataset of this name."
OverlapWith = "While the last run has not come to its end: leave the time out, or queue behind it."
Always = "Train also when neither data nor config has changed."


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
    gate_dataset: gate_options.GateDataset = None,
    gate_split: gate_options.GateSplit = None,
    least_gain: gate_options.LeastGain = None,
    confidence: gate_options.Confidence = None,
    most_class_drop: gate_options.MostClassDrop = None,
    counted_from_boxes: gate_options.CountedFromBoxes = None,
    overlap: Annotated[Overlap, typer.Option(help=OverlapWith)] = Overlap.SKIP,
    always: Annotated[bool, typer.Option("--always", help=Always)] = False,
    project: InProject = FIRST_PROJECT,
    data: Data = None,
) -> None:
    """Add a schedule. A dataset of the name need not be there yet."""
    settings = settings_of(data)
    database, project_id = open_project(settings, project)
    config = options.read_config(
        recipe,
        changes or [],
        architecture=arch,
        epochs=epochs,
        batch_size=batch_size,
        canvas_px=canvas_px,
        learning_rate=learning_rate,
        initial_weights=None if weights is None else name_weights(weights, database),
        seed=seed,
    )
    require_base(recipe, config)
    require_weights(ObjectStore(settings), config)
    with database.begin() as session:
        gate = gate_options.read_gate(
            session,
            project_id,
            None,
            dataset=gate_dataset,
            split=gate_split,
            least_gain=least_gain,
            confidence=confidence,
            most_class_drop=most_class_drop,
            counted_from_boxes=counted_from_boxes,
        )
        made = schedules.create_schedule(
            session,
            project_id=project_id,
            name=name,
            cron=cron,
            time_zone=time_zone,
            dataset_name=dataset,
            config=config,
            gate=gate,
            overlap=overlap,
            skip_unchanged=not always,
        )
        note(session, "schedule.create", schedule_id=made.id)
        show_result(_describe(made), f"{made.id} {name}: next {_tell_time(made)}")


@app.command("list")
def list_(project: InProject = FIRST_PROJECT, data: Data = None) -> None:
    """List all schedules, when each is due next, and what became of the last time."""
    database, _ = open_project(settings_of(data), project)
    with database.begin() as session:
        rows = session.scalars(sa.select(Schedule).order_by(Schedule.name)).all()
        if is_json():
            print_json([_describe(row) for row in rows])
            return
        table = Table(Column("name", no_wrap=True), "cron", "dataset", "gate", "next", "last")
        for row in rows:
            gate = "yes" if row.gate else "no"
            cron = f"{row.cron} {row.time_zone}"
            table.add_row(
                escape(row.name), cron, escape(row.dataset_name), gate, _tell_time(row), escape(row.last_outcome or "")
            )
    out.print(table)


@app.command()
def show(name: Name, project: InProject = FIRST_PROJECT, data: Data = None) -> None:
    """Show a schedule with its config and gate."""
    database, project_id = open_project(settings_of(data), project)
    with database.begin() as session:
        described = _describe(schedules.find_schedule(session, project_id, name))
    if is_json():
        print_json(described)
        return
    table = Table("", escape(name))
    for key, value in described.items():
        if isinstance(value, dict):
            value = ", ".join(f"{inner}={each}" for inner, each in value.items())
        table.add_row(key, escape("" if value is None else str(value)))
    out.print(table)


@app.command()
def update(
    name: Name,
    cron: Annotated[str | None, typer.Option(help=Cron)] = None,
    dataset: Annotated[str | None, typer.Option(help=DatasetName)] = None,
    time_zone: Annotated[str | None, typer.Option(help=TimeZone)] = None,
    recipe: Annotated[str | None, typer.Option(help="Start from this config instead of the schedule's.")] = None,
    changes: options.Changes = None,
    gate_dataset: gate_options.GateDataset = None,
    gate_split: gate_options.GateSplit = None,
    least_gain: gate_options.LeastGain = None,
    confidence: gate_options.Confidence = None,
    most_class_drop: gate_options.MostClassDrop = None,
    counted_from_boxes: gate_options.CountedFromBoxes = None,
    no_gate: Annotated[bool, typer.Option("--no-gate", help="Let nobody decide any more.")] = False,
    overlap: Annotated[Overlap | None, typer.Option(help=OverlapWith)] = None,
    always: Annotated[bool | None, typer.Option("--always/--when-changed", help=Always)] = None,
    project: InProject = FIRST_PROJECT,
    data: Data = None,
) -> None:
    """Change a schedule; all that is not named stays as it is. A new cron expression or zone counts from now."""
    settings = settings_of(data)
    plain = {"cron": cron, "time_zone": time_zone, "dataset_name": dataset, "overlap": overlap}
    changed: dict[str, Any] = {key: value for key, value in plain.items() if value is not None}
    if always is not None:
        changed["skip_unchanged"] = not always
    database, project_id = open_project(settings, project)
    with database.begin() as session:
        schedule = schedules.find_schedule(session, project_id, name, to_change=True)
        if recipe is not None or changes:
            base = recipe or TrainingConfig.model_validate(schedule.config)
            changed["config"] = options.read_config(base, changes or [])
            if recipe is not None:
                require_base(recipe, changed["config"])
            require_weights(ObjectStore(settings), changed["config"])
        gate = gate_options.read_gate(
            session,
            project_id,
            None if schedule.gate is None or no_gate else GateConfig.model_validate(schedule.gate),
            dataset=gate_dataset,
            split=gate_split,
            least_gain=least_gain,
            confidence=confidence,
            most_class_drop=most_class_drop,
            counted_from_boxes=counted_from_boxes,
        )
        _change(session, schedule, **changed, gate=gate)


@app.command()
def enable(name: Name, project: InProject = FIRST_PROJECT, data: Data = None) -> None:
    """Have a schedule come due again, from now on."""
    database, project_id = open_project(settings_of(data), project)
    with database.begin() as session:
        _change(session, schedules.find_schedule(session, project_id, name, to_change=True), enabled=True)


@app.command()
def disable(name: Name, project: InProject = FIRST_PROJECT, data: Data = None) -> None:
    """Have a schedule come due no more; a run that has begun goes on."""
    database, project_id = open_project(settings_of(data), project)
    with database.begin() as session:
        _change(session, schedules.find_schedule(session, project_id, name, to_change=True), enabled=False)


@app.command()
def delete(name: Name, project: InProject = FIRST_PROJECT, data: Data = None) -> None:
    """Remove a schedule; its runs stay."""
    database, project_id = open_project(settings_of(data), project)
    with database.begin() as session:
        schedule = schedules.find_schedule(session, project_id, name, to_change=True)
        note(session, "schedule.delete", schedule_id=schedule.id)
        schedules.delete_schedule(session, schedule)
        show_result({"id": schedule.id, "name": schedule.name, "deleted": True}, f"{schedule.name} is deleted")


@app.command()
def run(name: Name, project: InProject = FIRST_PROJECT, data: Data = None) -> None:
    """Start a schedule's run now, whatever its rules say."""
    database, project_id = open_project(settings_of(data), project)
    with database.begin() as session:
        started = schedules.run_now(session, schedules.find_schedule(session, project_id, name, to_change=True))
        note(session, "schedule.run", schedule_id=started.schedule_id, training_id=started.id)
        show_result(describe_training(started).model_dump(mode="json"), f"training {started.id} of {started.name}")


def _change(session: Session, schedule: Schedule, **changes: Any) -> None:
    schedules.update_schedule(session, schedule, **changes)
    note(session, "schedule.update", schedule_id=schedule.id)
    session.flush()
    show_result(_describe(schedule), f"{schedule.name}: next {_tell_time(schedule)}")


def _describe(schedule: Schedule) -> dict[str, Any]:
    return ScheduleAnswer.model_validate(schedule).model_dump(mode="json")


def _tell_time(schedule: Schedule) -> str:
    """Say when a schedule is due next, on its own clock."""
    if schedule.next_at is None:
        return "never: disabled"
    return f"{schedule.next_at.astimezone(ZoneInfo(schedule.time_zone)):%Y-%m-%d %H:%M %Z}"
