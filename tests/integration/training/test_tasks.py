"""A task is held by one trainer at a time, and comes to one end."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa

from shared.database import Database
from shared.errors import NotFound
from shared.ids import new_id
from shared.tables import Dataset, Evaluation, Model, TrainingRun
from shared.training.groups import Membership, machines_of, mark_machine, take_place
from shared.training.tasks import (
    TaskClaim,
    TaskIsFinal,
    cancel_task,
    claim_task,
    expire_tasks,
    finish_task,
    interrupt_task,
    lose_task,
    renew_task,
    update_task,
)
from shared.vocabulary.states import TaskState
from tests.integration.rows import home


def add_dataset(database: Database) -> UUID:
    with database.begin() as session:
        row = Dataset(project_id=home(session), name="any", source={})
        session.add(row)
        session.flush()
        return row.id


def claim(database: Database, owner: str = "one", lease_s: float = 60) -> TaskClaim | None:
    with database.begin() as session:
        return claim_task(session, owner, lease_s=lease_s)


def row_of(database: Database, task_id: UUID) -> Dataset:
    with database.begin() as session:
        row = session.get_one(Dataset, task_id)
        session.expunge(row)
        return row


def test_a_task_is_claimed_once_and_the_oldest_first(database: Database) -> None:
    tasks = [add_dataset(database) for _ in range(2)]
    claims = [claim(database, owner) for owner in ("one", "two", "three")]
    assert [c and c.task_id for c in claims] == [*tasks, None]
    assert row_of(database, tasks[0]).state == TaskState.RUNNING
    assert row_of(database, tasks[0]).started_at is not None


def test_quick_kinds_come_before_a_training(database: Database) -> None:
    dataset_id = add_dataset(database)
    with database.begin() as session:
        session.add(
            TrainingRun(project_id=home(session), name="run", dataset_id=dataset_id, config={}, config_digest="")
        )
        model = Model(name="any", digest="d", card={}, weights_sha256="")
        session.add(model)
        session.flush()
        session.add(Evaluation(project_id=home(session), model_id=model.id, dataset_id=dataset_id, config={}))
    assert [c.kind for c in (claim(database), claim(database), claim(database)) if c] == [
        "evaluation",
        "dataset",
        "training",
    ]


@pytest.mark.parametrize("change", ["owner", "attempt", "expired", "cancelled"])
def test_who_does_not_hold_the_task_changes_nothing(database: Database, change: str) -> None:
    task_id = add_dataset(database)
    held = claim(database, lease_s=-1 if change == "expired" else 60)
    assert held is not None
    owner = "other" if change == "owner" else held.owner
    attempt = held.attempt + (change == "attempt")
    stale = replace(held, owner=owner, attempt=attempt)
    with database.begin() as session:
        if change == "cancelled":
            cancel_task(session, Dataset, task_id)
    before = row_of(database, task_id)
    with database.begin() as session:
        assert not renew_task(session, stale, lease_s=60)
        assert not update_task(session, stale, progress={"step": 1})
        assert not finish_task(session, stale, TaskState.SUCCEEDED)
        assert not interrupt_task(session, stale)
        assert not lose_task(session, stale, code="lost", reason="", max_attempts=2, pause_s=0)
    after = row_of(database, task_id)
    assert (after.state, after.progress, after.losses, after.lease_expires_at) == (
        before.state,
        {},
        0,
        before.lease_expires_at,
    )


def test_an_interrupted_task_goes_on_and_only_what_was_lost_counts(database: Database) -> None:
    task_id = add_dataset(database)
    for attempt, lost in enumerate((False, True, False, True), start=1):
        held = claim(database)
        assert held is not None
        assert held.attempt == attempt
        with database.begin() as session:
            if lost:
                assert lose_task(session, held, code="lost", reason="It went down.", max_attempts=2, pause_s=0)
            else:
                assert interrupt_task(session, held)
        row = row_of(database, task_id)
        assert row.lease_owner is None
    assert (row.state, row.losses, row.code) == (TaskState.FAILED, 2, "lost")


def test_the_tasks_of_silent_trainers_go_back_until_there_were_too_many(database: Database) -> None:
    task_id = add_dataset(database)
    for losses in (1, 2):
        assert claim(database, lease_s=-1) is not None
        with database.begin() as session:
            assert expire_tasks(session, max_attempts=2) == 1
            assert expire_tasks(session, max_attempts=2) == 0
        row = row_of(database, task_id)
        assert (row.losses, row.code) == (losses, "trainer_lost")
    assert row.state == TaskState.FAILED
    assert row.finished_at is not None


def test_a_task_is_cancelled_once(database: Database) -> None:
    task_id = add_dataset(database)
    with database.begin() as session:
        cancel_task(session, Dataset, task_id)
    with database.begin() as session, pytest.raises(TaskIsFinal):
        cancel_task(session, Dataset, task_id)
    with database.begin() as session, pytest.raises(NotFound):
        cancel_task(session, Dataset, new_id())
    assert claim(database) is None
    with database.begin() as session:
        assert session.scalar(sa.select(Dataset.state)) == TaskState.CANCELLED


@pytest.fixture
def runs(database: Database) -> list[UUID]:
    """Three trainings, the oldest first."""
    dataset_id = add_dataset(database)
    with database.begin() as session:
        session.get_one(Dataset, dataset_id).state = TaskState.SUCCEEDED
        rows = [
            TrainingRun(project_id=home(session), name=name, dataset_id=dataset_id, config={}, config_digest="")
            for name in ("first", "second", "third")
        ]
        for row in rows:
            session.add(row)
            session.flush()
        return [row.id for row in rows]


def test_a_lost_training_keeps_its_place_while_it_pauses(database: Database, runs: list[UUID]) -> None:
    held = claim(database)
    assert held is not None
    with database.begin() as session:
        assert lose_task(session, held, code="lost", reason="It went down.", max_attempts=4, pause_s=3600)
    assert claim(database) is None, "no later one is begun meanwhile"
    with database.begin() as session:
        session.get_one(TrainingRun, runs[0]).available_at = sa.func.now()
    assert [c and c.task_id for c in (claim(database), claim(database))] == runs[:2]


@pytest.mark.parametrize("lost", [True, False], ids=["pauses", "silent"])
def test_evaluations_do_not_wait_for_the_trainer_of_an_older_one(database: Database, lost: bool) -> None:
    dataset_id = add_dataset(database)
    with database.begin() as session:
        session.get_one(Dataset, dataset_id).state = TaskState.SUCCEEDED
        session.add(model := Model(name="any", digest="d", card={}, weights_sha256=""))
        session.flush()
        for _ in range(2):
            session.add(Evaluation(project_id=home(session), model_id=model.id, dataset_id=dataset_id, config={}))
            session.flush()
    first = claim(database, "leader")
    assert first is not None
    with database.begin() as session:
        if lost:
            assert lose_task(session, first, code="lost", reason="It went down.", max_attempts=4, pause_s=3600)
        else:
            assert renew_task(session, first, lease_s=30)  # as if 30 s of 60 had gone by without a word
    second = claim(database, "idle")
    assert second is not None
    assert second.kind == "evaluation"
    assert second.task_id > first.task_id


def test_a_training_keeps_its_place_while_its_trainer_is_silent(database: Database, runs: list[UUID]) -> None:
    held = claim(database)
    assert held is not None
    with database.begin() as session:
        assert renew_task(session, held, lease_s=30)  # as if 30 s of 60 had gone by without a word
    assert claim(database, "two") is None
    with database.begin() as session:
        assert renew_task(session, held, lease_s=60)
    other = claim(database, "two")
    assert other is not None
    assert other.task_id == runs[1], "beside one that is looked after the next one may begin"
    with database.begin() as session:
        session.get_one(TrainingRun, runs[0]).lease_expires_at = sa.func.now() - sa.text("interval '1 s'")
    assert claim(database, "three") is None
    with database.begin() as session:
        assert expire_tasks(session, max_attempts=4) == 1
    again = claim(database, "three")
    assert again is not None
    assert again.task_id == runs[0]


def test_where_nothing_sweeps_later_trainings_begin_all_the_same(database: Database, runs: list[UUID]) -> None:
    claim(database)
    with database.begin() as session:
        session.get_one(TrainingRun, runs[0]).lease_expires_at = sa.func.now() - sa.text("interval '1 h'")
    later = claim(database, "two")
    assert later is not None
    assert later.task_id == runs[1]


def test_a_training_stays_in_its_group_while_the_leader_is_alive(database: Database, runs: list[UUID]) -> None:
    leader = Membership("a", 0, "leader", "127.0.0.1")

    def claim_in(group: str | None, owner: str) -> TaskClaim | None:
        with database.begin() as session:
            return claim_task(session, owner, lease_s=60, group=group)

    with database.begin() as session:
        take_place(session, leader)
        mark_machine(session, leader, seen_at=sa.func.now() + timedelta(hours=1))
    for _ in range(2):
        held = claim_in("a", "leader")
        assert held is not None
        assert held.task_id == runs[0]
        with database.begin() as session:
            assert session.get_one(TrainingRun, runs[0]).trainer_group == "a"
            assert interrupt_task(session, held)
    others = [claim_in(None, "single"), claim_in("b", "another leader"), claim_in(None, "second")]
    assert [other and other.task_id for other in others] == [runs[1], runs[2], None]
    with database.begin() as session:
        mark_machine(session, leader, seen_at=sa.func.now() - timedelta(hours=1))
    taken = claim_in(None, "second")
    assert taken is not None
    with database.begin() as session:
        run = session.get_one(TrainingRun, runs[0])
        assert (taken.task_id, run.trainer_group, run.machines) == (runs[0], None, [])


def test_a_machine_that_starts_again_takes_the_place_of_its_old_process(database: Database) -> None:
    old, new = (Membership("a", 1, owner, "127.0.0.1") for owner in ("old", "new"))
    with database.begin() as session:
        take_place(session, old)
        take_place(session, new)
        assert not mark_machine(session, old)
        assert mark_machine(session, new)
        assert [row.owner for row in machines_of(session, "a")] == ["new"]
        assert machines_of(session, "b") == []
