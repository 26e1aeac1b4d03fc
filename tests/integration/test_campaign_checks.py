"""The checks of a campaign: nothing is found where nothing is wrong, and each planted violation is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.access.keys import FIRST_PROJECT, create_key
from shared.database import Database
from shared.ids import new_id
from shared.tables import ApiKey, Detection, Image, Job, Model, TrainingRun, Webhook, WebhookDelivery
from shared.vocabulary.states import DeliveryState, JobState, Scope, TaskState
from shared.vocabulary.webhook_events import WebhookEvent
from tests.chaos import invariants
from tests.chaos.invariants import Check, Evidence
from tests.chaos.ledger import Ledger, Routes
from tests.chaos.samples import SESSIONS, Sample, life_of
from tests.e2e.conftest import Stack
from tests.integration.receiver import Message
from tests.integration.rows import add_dataset, add_image, add_job, add_model, home

DESCRIPTION = {"paths": {"/v1/jobs/{job_id}": {"get": {"responses": {"200": {}, "503": {}}}}}}
#: Those that need nothing but rows and the ledger.
CHECKS: tuple[Check, ...] = (
    invariants.every_file_has_one_end,
    invariants.one_result_for_each_image_and_model,
    invariants.cancelled_jobs_have_no_result,
    invariants.webhooks_arrived,
    invariants.messages_have_rows,
    invariants.trainings_ended_alike,
    invariants.no_lease_is_left,
    invariants.only_documented_answers,
    invariants.clients_met_no_error,
)


class Campaign:
    """A campaign of one file and two trainings after which nothing is wrong."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.ledger = Ledger()
        stack = Stack(Path(), Path(), {})
        stack.database = database
        self.messages: list[Message] = []
        nothing = cast(Any, None)
        self.evidence = Evidence(stack, nothing, self.ledger, nothing, Routes(DESCRIPTION), self.messages)
        with database.begin() as session:
            create_key(session, project_name=FIRST_PROJECT, name="key", scopes=[Scope.SUBMIT])
            self.image = add_image(session, home(session))
            self.model = add_model(session)
            self.job = add_job(session, self.image, model_id=self.model.id, state=JobState.SUCCEEDED)
            key_id = session.scalars(sa.select(ApiKey.id)).one()
            owned = {"project_id": self.image.project_id, "api_key_id": key_id}
            hook = Webhook(**owned, url="http://127.0.0.1/", secret="whsec_", events=list(WebhookEvent))
            session.add(hook)
            session.flush()
            self.hook_id = hook.id
            dataset = add_dataset(session)
            of = {"project_id": dataset.project_id, "dataset_id": dataset.id, "model_id": self.model.id}
            what = {"name": "run", "config": {}, "config_digest": "", "state": TaskState.SUCCEEDED}
            runs = [TrainingRun(**of, **what) for _ in range(2)]
            session.add_all(runs)
            session.flush()
            self.run_id = runs[0].id
            self.deliver(session)
            session.expunge_all()
        self.ledger.accept("single", self.image.sha256)
        self.ledger.answers["GET", "/v1/jobs/{job_id}", 200] = 1

    def deliver(self, session: Session) -> None:
        """Announce the end of the job."""
        data = {"job_id": str(self.job.id), "state": str(JobState.SUCCEEDED)}
        common = {"webhook_id": self.hook_id, "event": WebhookEvent.JOB_FINISHED, "payload": data}
        session.add(row := WebhookDelivery(**common, state=DeliveryState.DELIVERED))
        session.flush()
        self.hear(row.id, data)

    def hear(self, message_id: object, data: dict[str, str]) -> None:
        """Receive a message."""
        body = json.dumps({"data": data}).encode()
        self.messages.append(Message(0.0, "/hook", {"webhook-id": str(message_id)}, body))

    def change(self, table: type[Any], **values: object) -> None:
        """Change all rows of a table."""
        with self.database.begin() as session:
            session.execute(sa.update(table).values(**values).execution_options(synchronize_session=False))

    def add(self, plant: Callable[[Session], object]) -> None:
        with self.database.begin() as session:
            plant(session)

    def found(self) -> dict[str, list[str]]:
        """The violations by the name of their check."""
        return {check.__name__: sentences for check in CHECKS if (sentences := list(check(self.evidence)))}


@pytest.fixture
def campaign(database: Database) -> Campaign:
    return Campaign(database)


def test_nothing_is_found_where_nothing_is_wrong(campaign: Campaign) -> None:
    assert campaign.found() == {}


def lose_the_job(campaign: Campaign) -> None:
    campaign.add(lambda session: session.execute(sa.delete(Job)))


def accept_another_file(campaign: Campaign) -> None:
    campaign.ledger.accept("STOW-RS", "0" * 64)


def leave_the_job_open(campaign: Campaign) -> None:
    campaign.change(Job, state=JobState.READY)


def lease_the_job(campaign: Campaign) -> None:
    campaign.change(Job, state=JobState.DETECTING, lease_owner="x", lease_expires_at=sa.func.now())


def cancel_the_job_unasked(campaign: Campaign) -> None:
    campaign.change(Job, state=JobState.CANCELLED)


def detect_unfit_pixels(campaign: Campaign) -> None:
    campaign.ledger.unfit.add(campaign.image.sha256)


def keep_boxes_of_a_cancelled_job(campaign: Campaign) -> None:
    image, model = campaign.image, campaign.model
    corners = {"x_min_px": 0.0, "y_min_px": 0.0, "x_max_px": 1.0, "y_max_px": 1.0}

    def plant(session: Session) -> None:
        job = add_job(session, image, model_id=model.id, state=JobState.CANCELLED)
        found = {"class_id": 1, "class_name": "Mass", "score": 0.5, "model_id": model.id}
        session.add(Detection(job_id=job.id, rank=0, **found, **corners))

    campaign.add(plant)


def report_a_cancelled_job(campaign: Campaign) -> None:
    campaign.ledger.cancels.add(campaign.job.id)
    campaign.ledger.cancelled.add(campaign.job.id)
    campaign.change(Job, state=JobState.CANCELLED)


def confirm_a_cancel_in_vain(campaign: Campaign) -> None:
    campaign.ledger.cancelled.add(campaign.job.id)


def lose_the_message(campaign: Campaign) -> None:
    campaign.messages.clear()


def send_two_messages(campaign: Campaign) -> None:
    campaign.add(campaign.deliver)


def hear_of_an_unknown_job(campaign: Campaign) -> None:
    campaign.hear(campaign.messages[0].id, {"job_id": str(new_id()), "state": "succeeded"})


def leave_a_message_unsent(campaign: Campaign) -> None:
    campaign.change(WebhookDelivery, state=DeliveryState.DEAD)


def fail_a_training(campaign: Campaign) -> None:
    campaign.change(TrainingRun, state=TaskState.FAILED)


def end_with_other_weights(campaign: Campaign) -> None:
    def plant(session: Session) -> None:
        model = add_model(session, "other")
        model.weights_sha256 = "1" * 64
        session.flush()
        run = session.get_one(TrainingRun, campaign.run_id)
        run.model_id = model.id

    campaign.add(plant)


def answer_500(campaign: Campaign) -> None:
    campaign.ledger.answers["GET", "/v1/jobs/{job_id}", 500] = 1


def give_up(campaign: Campaign) -> None:
    campaign.ledger.fail("single: ApiUnavailable")


@pytest.mark.parametrize(
    ("plant", "check"),
    [
        (accept_another_file, invariants.every_file_has_one_end),
        (lose_the_job, invariants.every_file_has_one_end),
        (leave_the_job_open, invariants.every_file_has_one_end),
        (cancel_the_job_unasked, invariants.every_file_has_one_end),
        (detect_unfit_pixels, invariants.every_file_has_one_end),
        (keep_boxes_of_a_cancelled_job, invariants.one_result_for_each_image_and_model),
        (report_a_cancelled_job, invariants.cancelled_jobs_have_no_result),
        (confirm_a_cancel_in_vain, invariants.cancelled_jobs_have_no_result),
        (lose_the_message, invariants.webhooks_arrived),
        (send_two_messages, invariants.webhooks_arrived),
        (send_two_messages, invariants.messages_have_rows),
        (hear_of_an_unknown_job, invariants.webhooks_arrived),
        (leave_a_message_unsent, invariants.messages_have_rows),
        (fail_a_training, invariants.trainings_ended_alike),
        (end_with_other_weights, invariants.trainings_ended_alike),
        (lease_the_job, invariants.no_lease_is_left),
        (answer_500, invariants.only_documented_answers),
        (give_up, invariants.clients_met_no_error),
    ],
)
def test_a_planted_violation_is_found(campaign: Campaign, plant: Callable[[Campaign], None], check: Check) -> None:
    plant(campaign)
    assert check.__name__ in campaign.found()


def test_an_image_with_two_results_of_a_model_is_found(campaign: Campaign) -> None:
    """As if the index that forbids it were gone."""

    def plant(session: Session) -> None:
        session.execute(sa.text("DROP INDEX job_result"))
        image = session.get_one(Image, campaign.image.id)
        add_job(session, image, model_id=session.scalars(sa.select(Model.id)).one(), state=JobState.SUCCEEDED)

    campaign.add(plant)
    assert "has two results" in campaign.found()["one_result_for_each_image_and_model"][0]


def test_growth_is_found_and_noise_is_not() -> None:
    def life(memory: Callable[[int], float], descriptors: Callable[[int], float], name: str = "api") -> list[str]:
        samples = [Sample(15.0 * number, memory(number), descriptors(number), 4) for number in range(60)]
        found = life_of(name, samples)
        assert found is not None
        return found.growth

    assert life(lambda number: 100 + number % 7, lambda number: 20 + number % 3) == []
    assert life(lambda number: 100 + min(number, 4) * 50, lambda _: 20) == [], "the first minute does not count"
    assert len(life(lambda number: 100 + number, lambda _: 20)) == 1
    assert len(life(lambda _: 100, lambda number: 20 + number // 3)) == 1
    assert life(lambda _: 100, lambda number: 20 + number // 3, SESSIONS) == [], "files of tables stay open"
