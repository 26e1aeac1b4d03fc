"""Schedules against a real PostgreSQL: what is started when, what is left out, and what is said about it."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from shared.database import Database
from shared.errors import InvalidRequest, NotFound, NotReady
from shared.ids import new_id
from shared.queue.hints import Hints
from shared.settings import Settings
from shared.tables import Dataset, Schedule, TrainingRun
from shared.training.config import EvaluationConfig, GateConfig, HeldOut, TrainingConfig
from shared.training.due import Outcome, claim_due
from shared.training.evaluations import start_evaluation
from shared.training.schedules import (
    ScheduleExists,
    create_schedule,
    database_now,
    delete_schedule,
    find_schedule,
    run_now,
    update_schedule,
)
from shared.training.tasks import claim_task
from shared.training.trainings import start_training
from shared.vocabulary.states import Overlap, TaskState
from tests.integration.rows import add_dataset, add_model, home
from workers.sweep import sweep

NAME = "every night"
CONFIG = TrainingConfig(epochs=2)
#: A time at which the schedule of these tests is due, and a minute of the day before.
DUE = datetime(2026, 5, 2, 1, 0, tzinfo=UTC)
BEFORE = DUE - timedelta(hours=12)
DAY = timedelta(days=1)


class Diary:
    """One schedule, and what becomes of it."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(self, *, dataset: bool = True, **changes: Any) -> None:
        """Make a schedule for every night at three in Berlin, next due at `DUE`."""
        values = {
            "cron": "0 3 * * *",
            "time_zone": "Europe/Berlin",
            "dataset_name": "films",
            "config": CONFIG,
        } | changes
        with self.database.begin() as session:
            if dataset:
                add_dataset(session)
            create_schedule(session, project_id=home(session), name=NAME, **values)
        self.set(next_at=DUE)

    def set(self, **columns: object) -> None:
        with self.database.begin() as session:
            session.execute(sa.update(Schedule).values(**columns))

    def update(self, **changes: Any) -> None:
        with self.database.begin() as session:
            update_schedule(session, find_schedule(session, home(session), NAME, to_change=True), **changes)

    def beat(self, now: datetime = DUE) -> list[Outcome]:
        with self.database.begin() as session:
            return claim_due(session, now)

    def say(self, now: datetime = DUE) -> str:
        """Let a beat tick that finds the schedule due; return what it said."""
        (outcome,) = self.beat(now)
        assert self.schedule.last_outcome == outcome.said
        return outcome.said

    def end(self, state: TaskState = TaskState.SUCCEEDED) -> None:
        """Bring all runs to an end."""
        with self.database.begin() as session:
            session.execute(sa.update(TrainingRun).values(state=state, lease_owner=None, lease_expires_at=None))

    @property
    def schedule(self) -> Schedule:
        with self.database.begin() as session:
            schedule = find_schedule(session, home(session), NAME)
            session.expunge(schedule)
            return schedule

    @property
    def runs(self) -> list[TrainingRun]:
        with self.database.begin() as session:
            runs = list(session.scalars(sa.select(TrainingRun).order_by(TrainingRun.due_at)))
            session.expunge_all()
            return runs


@pytest.fixture
def diary(database: Database) -> Diary:
    """A diary without a schedule."""
    return Diary(database)


def add_gate_set(database: Database, **changes: Any) -> GateConfig:
    with database.begin() as session:
        return GateConfig(evaluation_dataset_id=add_dataset(session, "fixed", content="fixed").id, **changes)


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_due_schedule_starts_one_run_with_all_it_needs(diary: Diary, database: Database) -> None:
    gate = add_gate_set(database, least_gain=0.01)
    diary.create(gate=gate)
    assert diary.beat(DUE - timedelta(seconds=1)) == []
    (outcome,) = diary.beat(DUE + timedelta(seconds=5))
    (run,) = diary.runs
    assert (outcome.run_id, outcome.said) == (run.id, f"Started run {run.id}.")
    assert (run.state, run.due_at, run.name) == ("queued", DUE, "every night 2026-05-02 01:00")
    trained = TrainingConfig.model_validate(run.config)
    assert trained.held_out == (HeldOut(dataset_id=gate.evaluation_dataset_id, split="val"),)
    assert trained == CONFIG.model_copy(update={"held_out": trained.held_out})
    assert run.config_digest == trained.digest
    assert run.gate is not None
    assert GateConfig.model_validate(run.gate) == gate
    schedule = diary.schedule
    assert (schedule.id, schedule.last_at, schedule.next_at) == (run.schedule_id, DUE, DUE + DAY)
    assert diary.beat(DUE + timedelta(minutes=1)) == []


def test_the_latest_dataset_that_succeeded_is_trained_on(diary: Diary, database: Database) -> None:
    diary.create()
    with database.begin() as session:
        newest = add_dataset(session, content="second").id
        add_dataset(session, state=TaskState.QUEUED)
        add_dataset(session, state=TaskState.FAILED)
        add_dataset(session, "others", content="third")
    diary.beat()
    assert [run.dataset_id for run in diary.runs] == [newest]


def test_without_a_dataset_the_time_is_left_out_and_the_next_one_tried(diary: Diary, database: Database) -> None:
    diary.create(dataset=False)
    assert diary.say() == "Skipped: there is no dataset 'films' whose import has succeeded."
    assert diary.schedule.next_at == DUE + DAY
    with database.begin() as session:
        add_dataset(session)
    assert diary.say(DUE + DAY).startswith("Started")


def test_a_model_to_start_from_is_kept_with_the_run(diary: Diary, database: Database) -> None:
    with database.begin() as session:
        model_id = add_model(session).id
    diary.create(config=TrainingConfig(initial_weights=f"model:{model_id}"))
    diary.beat()
    assert [run.initial_model_id for run in diary.runs] == [model_id]


# --- several beats, and none -----------------------------------------------------------------------------------------


def test_any_number_of_beats_start_a_time_once(diary: Diary, settings: Settings) -> None:
    diary.create(overlap=Overlap.QUEUE, skip_unchanged=False)
    databases = [Database.from_settings(settings) for _ in range(6)]
    for day in range(5):
        together = threading.Barrier(len(databases))

        def beat(database: Database, day: int = day, together: threading.Barrier = together) -> list[Outcome]:
            with database.begin() as session:
                together.wait()
                return claim_due(session, DUE + day * DAY)

        with ThreadPoolExecutor(len(databases)) as beats:
            outcomes = [outcome for found in beats.map(beat, databases) for outcome in found]
        assert [bool(outcome.run_id) for outcome in outcomes] == [True]
    assert [run.due_at for run in diary.runs] == [DUE + day * DAY for day in range(5)]
    for database in databases:
        database.close()


def test_a_beat_that_is_at_a_schedule_holds_up_no_other(diary: Diary, database: Database) -> None:
    diary.create()
    with database.begin() as session:
        assert claim_due(session, DUE)
        assert diary.beat() == [], "the other beat goes on without waiting"
    assert len(diary.runs) == 1


def test_a_time_that_has_its_run_gets_no_second_one(diary: Diary) -> None:
    """Also where the row is due again, as after a restored backup."""
    diary.create(overlap=Overlap.QUEUE, skip_unchanged=False)
    diary.beat()
    diary.set(next_at=DUE)
    assert diary.say() == "Not started: The schedule's run for this time has been started already."
    assert len(diary.runs) == 1
    assert diary.schedule.next_at == DUE + DAY


def test_missed_times_become_one_late_run_that_says_so(diary: Diary) -> None:
    diary.create()
    said = diary.say(DUE + 3 * DAY + timedelta(hours=2, minutes=5))
    (run,) = diary.runs
    assert run.due_at == DUE + 3 * DAY
    assert said == (
        f"Started run {run.id}. This was 2 h 5 min late. "
        "3 earlier times were missed, from 2026-05-02 01:00 UTC on."
    )  # fmt: skip
    assert diary.schedule.next_at == DUE + 4 * DAY


def test_being_late_for_one_time_is_said_without_others(diary: Diary) -> None:
    diary.create()
    assert diary.say(DUE + timedelta(minutes=2)).endswith(". This was 2 min late.")


def test_times_are_missed_across_a_change_of_clocks(diary: Diary) -> None:
    """The night of 29 March 2026 has no 02:30 in Berlin; its run is that of the leap."""
    diary.create(cron="30 2 * * *")
    diary.set(next_at=datetime(2026, 3, 28, 1, 30, tzinfo=UTC))
    assert "1 earlier time was missed" in diary.say(datetime(2026, 3, 29, 9, 0, tzinfo=UTC))
    assert [run.due_at for run in diary.runs] == [datetime(2026, 3, 29, 1, 0, tzinfo=UTC)]
    assert diary.schedule.next_at == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)


# --- what is left out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [state for state in TaskState if not state.is_final])
def test_a_run_that_lasts_keeps_the_next_one_away(diary: Diary, state: TaskState) -> None:
    diary.create(skip_unchanged=False)
    diary.beat()
    (run,) = diary.runs
    with diary.database.begin() as session:
        assert claim_task(session, "trainer", lease_s=60)
        if state is not TaskState.RUNNING:
            values = {"state": state, "lease_owner": None, "lease_expires_at": None}
            session.execute(sa.update(TrainingRun).values(**values))
    assert diary.say(DUE + DAY) == f"Skipped: run {run.id} is not finished."
    diary.end()
    assert diary.say(DUE + 2 * DAY).startswith("Started")


def test_a_queued_run_waits_for_the_one_before(diary: Diary, database: Database) -> None:
    diary.create(overlap=Overlap.QUEUE, skip_unchanged=False)
    diary.beat()
    said = diary.say(DUE + DAY)
    first, second = diary.runs
    assert said == f"Started run {second.id}, which waits for run {first.id}."

    def take() -> UUID | None:
        with database.begin() as session:
            taken = claim_task(session, "trainer", lease_s=60)
            return taken.task_id if taken else None

    assert take() == first.id
    assert take() is None, "another trainer is idle, but has to wait"
    with database.begin() as session:
        alone = start_training(session, dataset=session.scalars(sa.select(Dataset)).one(), config=CONFIG).id
    assert take() == alone, "a run of no schedule waits for none"
    with database.begin() as session:
        ended = {"state": TaskState.FAILED, "lease_owner": None, "lease_expires_at": None}
        session.execute(sa.update(TrainingRun).where(TrainingRun.id == first.id).values(**ended))
    assert take() == second.id


def test_nothing_is_trained_twice_until_something_changes(diary: Diary, database: Database) -> None:
    gate = add_gate_set(database)
    diary.create(gate=gate)
    diary.beat()
    diary.end()
    (run,) = diary.runs
    nothing = f"Skipped: nothing changed since run {run.id}."
    assert diary.say(DUE + DAY) == nothing

    with database.begin() as session:
        add_dataset(session)  # imported again, and the same
    assert diary.say(DUE + 2 * DAY) == nothing

    def data() -> None:
        with database.begin() as session:
            add_dataset(session, content="second")

    changes: list[Callable[[], None]] = [
        data,
        lambda: diary.update(config=TrainingConfig(epochs=3)),
        lambda: diary.update(gate=gate.model_copy(update={"least_gain": 0.1})),
        lambda: diary.update(gate=None),
    ]
    for number, change in enumerate(changes):
        change()
        day = DUE + (3 + 2 * number) * DAY
        assert diary.say(day).startswith("Started"), number
        diary.end()
        assert diary.say(day + DAY).startswith("Skipped: nothing changed"), number


@pytest.mark.parametrize("state", [TaskState.FAILED, TaskState.CANCELLED])
def test_a_run_without_a_result_is_tried_again_unchanged(diary: Diary, state: TaskState) -> None:
    diary.create()
    diary.beat()
    diary.end(state)
    assert diary.say(DUE + DAY).startswith("Started")


def test_a_schedule_may_train_what_it_has_trained(diary: Diary) -> None:
    diary.create(skip_unchanged=False)
    diary.beat()
    diary.end()
    assert diary.say(DUE + DAY).startswith("Started")


def test_what_cannot_be_started_is_said_and_stops_no_other_schedule(diary: Diary, database: Database) -> None:
    with database.begin() as session:
        model_id = add_model(session).id
    diary.create(config=TrainingConfig(initial_weights=f"model:{model_id}"))
    with database.begin() as session:
        session.execute(sa.text("DELETE FROM model"))
        for name, next_at in (("unreadable", DUE - DAY), ("sound", DUE + timedelta(seconds=1))):
            other = create_schedule(
                session,
                project_id=home(session),
                name=name,
                cron="0 3 * * *",
                time_zone="UTC",
                dataset_name="films",
                config=CONFIG,
            )
            other.next_at = next_at
            other.config = other.config | ({"colour": "red"} if name == "unreadable" else {})
    unreadable, lacking, sound = diary.beat(DUE + timedelta(seconds=2))
    assert "cannot read the schedule's config" in unreadable.said
    assert lacking.said == f"Not started: There is no model '{model_id}'."
    assert sound.run_id is not None
    assert diary.schedule.next_at == DUE + DAY


# --- changing schedules ----------------------------------------------------------------------------------------------


def test_a_disabled_schedule_is_never_due_and_makes_up_for_nothing(diary: Diary, database: Database) -> None:
    diary.create()
    diary.update(enabled=False)
    assert diary.schedule.next_at is None
    assert diary.beat(DUE + 9 * DAY) == []
    diary.update(enabled=True)
    with database.begin() as session:
        assert diary.schedule.next_at > database_now(session)
    assert diary.runs == []


def test_only_a_new_time_moves_what_is_due(diary: Diary, database: Database) -> None:
    diary.create()
    diary.update(overlap=Overlap.QUEUE, enabled=True, dataset_name="others")
    assert diary.schedule.next_at == DUE
    diary.update(time_zone="Asia/Tokyo")
    with database.begin() as session:
        now = database_now(session)
    assert now < diary.schedule.next_at <= now + DAY
    assert diary.schedule.next_at.hour == 18


def test_deleting_a_schedule_keeps_its_runs(diary: Diary, database: Database) -> None:
    diary.create()
    diary.beat()
    with database.begin() as session:
        delete_schedule(session, find_schedule(session, home(session), NAME, to_change=True))
    (run,) = diary.runs
    assert (run.schedule_id, run.due_at, run.state) == (None, DUE, "queued")
    with database.begin() as session, pytest.raises(NotFound):
        find_schedule(session, home(session), NAME)


def test_a_run_by_hand_needs_no_reason_and_moves_nothing(diary: Diary, database: Database) -> None:
    diary.create()
    diary.beat()
    with database.begin() as session:
        run_id = run_now(session, find_schedule(session, home(session), NAME, to_change=True)).id
        now = database_now(session)
    assert [run.due_at for run in diary.runs] == [DUE, now]
    schedule = diary.schedule
    assert (schedule.last_at, schedule.next_at) == (now, DUE + DAY)
    assert schedule.last_outcome == f"Started by hand: run {run_id}."


def test_a_run_by_hand_needs_a_dataset(diary: Diary, database: Database) -> None:
    diary.create(dataset=False)
    with database.begin() as session, pytest.raises(NotReady, match="films"):
        run_now(session, find_schedule(session, home(session), NAME, to_change=True))


def test_a_name_is_taken_once(diary: Diary) -> None:
    diary.create()
    with pytest.raises(ScheduleExists):
        diary.create()


def test_what_could_never_run_is_refused_at_once(diary: Diary, database: Database) -> None:
    nowhere = new_id()
    with database.begin() as session:
        unfinished_id = add_dataset(session, state=TaskState.QUEUED).id
    no_resamples = add_gate_set(database, evaluation=EvaluationConfig(bootstrap_samples=0))
    for refused, changes in [
        (NotFound, {"config": TrainingConfig(initial_weights=f"model:{nowhere}")}),
        (InvalidRequest, {"config": TrainingConfig(initial_weights="model:" + "-" * 36)}),
        (NotFound, {"config": TrainingConfig(held_out=(HeldOut(dataset_id=nowhere, split="val"),))}),
        (NotFound, {"gate": GateConfig(evaluation_dataset_id=nowhere)}),
        (NotReady, {"gate": GateConfig(evaluation_dataset_id=unfinished_id)}),
        (InvalidRequest, {"gate": no_resamples}),
    ]:
        with pytest.raises(refused):
            diary.create(dataset=False, **changes)


def test_a_gate_on_what_the_schedule_trains_on_is_refused_at_once(diary: Diary, database: Database) -> None:
    with database.begin() as session:
        first = add_dataset(session, "films", content="first").id
        copy = add_dataset(session, "copy", content="second").id
        add_dataset(session, "films", content="second")
        other = add_dataset(session, "other", content="third").id
    on_training_images = EvaluationConfig(split="train")
    for dataset_id in (first, copy):  # an older version of the same name; the same content under another name
        gate = GateConfig(evaluation_dataset_id=dataset_id, evaluation=on_training_images)
        with pytest.raises(InvalidRequest, match="is trained on, so no gate can evaluate on it"):
            diary.create(dataset=False, dataset_name="films", gate=gate)
        held_out = TrainingConfig(held_out=(HeldOut(dataset_id=dataset_id, split="train"),))
        with pytest.raises(InvalidRequest, match="is trained on"):
            diary.create(dataset=False, dataset_name="films", config=held_out)
    gate = GateConfig(evaluation_dataset_id=other, evaluation=on_training_images)
    diary.create(dataset=False, dataset_name="films", gate=gate)
    with pytest.raises(InvalidRequest, match="is trained on"):
        diary.update(dataset_name="other")


def test_splits_that_hold_nothing_are_refused_at_once(database: Database) -> None:
    nothing = {"images": 0, "boxes": 0}
    with database.begin() as session:
        dataset, without_boxes = add_dataset(session), add_dataset(session, "normal")
        something = {"images": 3, "boxes": 2}
        dataset.summary = {"splits": {"train": something, "val": something, "test": nothing}}
        without_boxes.summary = {"splits": {"train": {"images": 3, "boxes": 0}, "val": something, "test": something}}
        gate = GateConfig(evaluation_dataset_id=dataset.id, evaluation=EvaluationConfig(split="test"))
        with pytest.raises(InvalidRequest, match="the split test of films, which holds no image"):
            start_training(session, dataset=dataset, config=CONFIG, gate=gate)
        with pytest.raises(InvalidRequest, match="has no box in its training split"):
            start_training(session, dataset=without_boxes, config=CONFIG)
        model_id = add_model(session).id
        with pytest.raises(InvalidRequest, match="The split test of films holds no image"):
            start_evaluation(session, model_id=model_id, dataset=dataset, config=EvaluationConfig(split="test"))
        start_training(session, dataset=dataset, config=CONFIG)


def test_a_base_model_of_another_network_is_refused_at_once(database: Database) -> None:
    with database.begin() as session:
        dataset, model = add_dataset(session), add_model(session)
        model.card = {"architecture": "fasterrcnn_mobilenet_v2_fpn", "categories": []}
        config = TrainingConfig(initial_weights=f"model:{model.id}")
        with pytest.raises(InvalidRequest, match="its weights do not fit fasterrcnn_resnet50_fpn"):
            start_training(session, dataset=dataset, config=config)
        kin = config.model_copy(update={"architecture": "carina_small"})  # of the same backbone
        start_training(session, dataset=dataset, config=kin)


def test_nothing_is_trained_on_what_is_held_out(database: Database) -> None:
    with database.begin() as session:
        dataset = add_dataset(session)
        gate = GateConfig(evaluation_dataset_id=dataset.id, evaluation=EvaluationConfig(split="train"))
        with pytest.raises(InvalidRequest, match="held out"):
            start_training(session, dataset=dataset, config=CONFIG, gate=gate)
        with pytest.raises(NotReady):
            start_training(session, dataset=add_dataset(session, state=TaskState.QUEUED), config=CONFIG)


# --- the beat itself -------------------------------------------------------------------------------------------------


def test_the_sweep_starts_what_is_due_and_takes_back_silent_tasks(
    diary: Diary, settings: Settings, database: Database, hints: Hints
) -> None:
    diary.create()
    sweep(settings, database, hints, "beat")
    (run,) = diary.runs
    with database.begin() as session:
        taken = claim_task(session, "trainer", lease_s=60)
        assert taken is not None
        assert taken.task_id == run.id
        session.execute(sa.update(TrainingRun).values(lease_expires_at=sa.func.now()))
    sweep(settings, database, hints, "beat")
    (run,) = diary.runs
    assert (run.state, run.losses, run.code) == ("interrupted", 1, "trainer_lost")


def test_a_step_of_the_sweep_that_fails_stops_no_other(
    diary: Diary, settings: Settings, database: Database, hints: Hints
) -> None:
    diary.create()
    with database.begin() as session:
        session.execute(sa.text("ALTER TABLE evaluation RENAME COLUMN losses TO lost"))
    sweep(settings, database, hints, "beat")
    assert len(diary.runs) == 1
