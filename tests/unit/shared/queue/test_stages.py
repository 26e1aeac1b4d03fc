"""The table of stages agrees with the states of jobs and the kinds of worker."""

from importlib import import_module

import sqlalchemy as sa

from deploy.needs import NEEDS
from shared.leases import leased_tables, pause_after
from shared.queue.retry import NOT_INHERITED
from shared.queue.stages import STAGES
from shared.settings import Settings
from shared.tables import Job
from shared.vocabulary.states import SERVED, JobState, Phase, WorkerKind


def test_every_open_state_belongs_to_one_stage() -> None:
    assert [stage.waiting for stage in STAGES] == list(JobState.in_phase(Phase.WAITING))
    assert [stage.leased for stage in STAGES] == list(JobState.in_phase(Phase.LEASED))


def test_each_stage_hands_jobs_on_to_the_next_one() -> None:
    following = [stage.waiting for stage in STAGES[1:]]
    assert [stage.done for stage in STAGES] == [*following, JobState.SUCCEEDED]


def test_every_stage_has_a_batch_size_and_workers_that_can_be_started() -> None:
    settings = Settings.model_construct(prepare_threads=3, batch_size=7)
    for stage in STAGES:
        assert stage.batch_size(settings) in (3, 7)
        assert stage.worker in SERVED
    for kind in (*SERVED, WorkerKind.SWEEP):
        assert callable(import_module(f"workers.{kind}").run)
    assert {*SERVED} <= {*NEEDS}


def test_all_kinds_of_leased_rows_are_known() -> None:
    assert [sa.inspect(table).local_table.name for table in leased_tables()] == [
        *("dataset", "evaluation", "gate_decision", "job", "submission_file", "training_run", "webhook_delivery")
    ]


def test_a_pause_doubles_up_to_its_bound() -> None:
    pauses = [pause_after(attempt, first_s=2, max_s=10) for attempt in range(1, 6)]
    assert pauses == [2, 4, 8, 10, 10]


def test_a_successor_inherits_what_the_request_asked_for_and_nothing_of_the_attempts() -> None:
    columns = {column.name for column in Job.__table__.columns}
    assert columns >= NOT_INHERITED
    assert columns - NOT_INHERITED >= {"project_id", "study_id", "image_id", "requested_model_id", "priority"}
