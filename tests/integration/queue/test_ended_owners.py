"""The leases of a process that has ended go back at once, those of a process that is only stopped do not."""

import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from deploy.stack.components import _wake_sweep
from shared.leases import leased_tables, leased_values, list_owners
from shared.notifications.deliveries import expire_deliveries
from shared.processes.owners import make_owner
from shared.queue.outcome import StoredRendition, mark_ready
from shared.queue.stages import PREPARE
from shared.queue.workers import mark_seen, mark_stopped
from shared.redis_connection import connect
from shared.tables import ApiKey, Dataset, Job, Submission, SubmissionFile, Webhook, WebhookDelivery
from shared.tables.rows import Leased
from shared.vocabulary.states import DeliveryState, FileState, JobState, TaskState, WorkerKind
from tests.integration.workshop import Workshop
from workers.heartbeat import Heartbeat
from workers.sweep import sweep

LEASE_S = 3600
RENDITION = StoredRendition("0" * 64, 1, 96, 80, 960, 800)
LEASED = {Job: JobState.PREPARING, SubmissionFile: FileState.CHECKING, WebhookDelivery: DeliveryState.SENDING}


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as sleeping:
        yield sleeping
        sleeping.kill()


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def add_one_of_each(session: Session, project_id: UUID) -> None:
    session.add(submission := Submission(project_id=project_id))
    session.add(key := ApiKey(project_id=project_id, name="key", prefix="prefix", secret_sha256="", scopes=[]))
    session.flush()
    url = "http://127.0.0.1:9/"
    webhook = Webhook(project_id=project_id, api_key_id=key.id, url=url, secret="s", events=[])
    session.add(webhook)
    session.flush()
    session.add(SubmissionFile(submission_id=submission.id, number=1, priority=5, state=FileState.ARRIVED))
    session.add(WebhookDelivery(webhook_id=webhook.id, event="job.finished", payload={}))
    session.add(Dataset(project_id=project_id, name="any", source={}))


def lease_all(session: Session, owner: str) -> None:
    for table in leased_tables():
        state = LEASED.get(table, TaskState.RUNNING)
        session.execute(sa.update(table).values(**leased_values(table, state, owner, LEASE_S)))


def test_every_kind_of_lease_of_an_ended_process_goes_back(
    workshop: Workshop, process: subprocess.Popen[bytes]
) -> None:
    workshop.rows(1, JobState.QUEUED)
    with workshop.database.begin() as session:
        add_one_of_each(session, workshop.project_id)
    owner = make_owner("prepare", pid=process.pid)
    with workshop.database.begin() as session:
        lease_all(session, owner)
        assert list_owners(session) == {owner}

    def sweep_all() -> dict[type[Leased], str]:
        sweep(workshop.settings, workshop.database, workshop.hints, make_owner("sweep"))
        with workshop.database.begin() as session:
            expire_deliveries(session, retry_s=3600)
            tables = (Job, SubmissionFile, WebhookDelivery, Dataset)
            return {table: session.scalars(sa.select(table.state)).one() for table in tables}

    process.send_signal(signal.SIGSTOP)
    assert sweep_all() == {**LEASED, Dataset: TaskState.RUNNING}
    kill(process)
    assert sweep_all() == {
        Job: JobState.QUEUED,
        SubmissionFile: FileState.ARRIVED,
        WebhookDelivery: DeliveryState.PENDING,
        Dataset: TaskState.INTERRUPTED,
    }


def test_the_result_of_a_process_that_lives_after_all_is_dropped(workshop: Workshop) -> None:
    (job_id,) = workshop.rows(1, JobState.QUEUED)
    owner = make_owner("prepare")
    (late,) = workshop.claim(PREPARE, owner, lease_s=LEASE_S)
    with workshop.database.begin() as session:
        mark_seen(session, owner, WorkerKind.PREPARE)
        mark_stopped(session, owner)
    sweep(workshop.settings, workshop.database, workshop.hints, make_owner("sweep"))
    (second,) = workshop.claim(PREPARE, make_owner("prepare"), lease_s=LEASE_S)
    with workshop.database.begin() as session:
        assert not mark_ready(session, late, RENDITION)
        assert mark_ready(session, second, RENDITION)
    assert workshop.states([job_id]) == ["ready"]


def test_a_process_that_starts_ends_the_leases_of_its_predecessor(
    workshop: Workshop, process: subprocess.Popen[bytes]
) -> None:
    (job_id,) = workshop.rows(1, JobState.QUEUED)
    workshop.claim(PREPARE, make_owner("prepare", pid=process.pid), lease_s=LEASE_S)
    for ended in (0, 1):
        successor = Heartbeat(workshop.database, WorkerKind.PREPARE, lease_s=60, stuck_after_s=60)
        assert successor.start() == ended
        successor.stop()
        kill(process)
    expires_at = workshop.job(job_id).lease_expires_at
    assert expires_at is not None
    assert expires_at <= datetime.now(UTC)


def test_the_supervisor_wakes_the_sweep(workshop: Workshop, environ: dict[str, str]) -> None:
    _wake_sweep(environ)
    assert connect(workshop.settings).llen(str(WorkerKind.SWEEP)) == 1
