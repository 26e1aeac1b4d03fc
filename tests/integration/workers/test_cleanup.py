"""What the cleanup deletes, and what it leaves alone."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from shared.access.keys import create_key
from shared.database import Database
from shared.ids import new_id
from shared.object_store import checkpoint_key
from shared.object_store.incoming import Incoming
from shared.queue.hints import Hints
from shared.settings import Settings
from shared.submissions.progress import incoming_key
from shared.tables import ApiKey, AuditEvent, IdempotencyKey, TrainingRun
from shared.vocabulary.states import FileState, Scope, TaskState
from tests.integration.rows import add_dataset, home
from tests.integration.submitting import Desk
from workers.cleanup import Cleanup


@pytest.fixture
def incoming(settings: Settings) -> Incoming:
    return Incoming(settings)


def test_uploads_that_nobody_waits_for_are_removed_once_they_are_old(
    settings: Settings, database: Database, incoming: Incoming, hints: Hints
) -> None:
    desk = Desk(settings, database, hints)
    submission_id = desk.submit(b"open", b"final", b"open, in parts", b"final, in parts")
    for number in (1, 3):
        desk.set_file(submission_id, number, state=FileState.FAILED)
    stranger, stream = incoming_key(new_id(), 0), f"incoming/{new_id()}"
    for key in (stranger, stream, "originals/aa/aa"):
        incoming.put(key, b"!")
    for number in (2, 3):
        incoming.delete(incoming_key(submission_id, number))
        incoming.create_upload(incoming_key(submission_id, number))
    incoming.create_upload(f"incoming/{new_id()}")

    before = sorted(incoming.keys(""))
    Cleanup(settings, database, incoming).run()
    assert (sorted(incoming.keys("")), len(desk.multiparts())) == (before, 3)
    Cleanup(settings.model_copy(update={"upload_expires_h": 0}), database, incoming).run()
    assert sorted(incoming.keys("")) == sorted([incoming_key(submission_id, 0), "originals/aa/aa"])
    assert desk.multiparts() == [incoming_key(submission_id, 2)]


def test_checkpoints_stay_while_somebody_may_go_on_with_them(
    settings: Settings, database: Database, incoming: Incoming
) -> None:
    keys = {}
    now = datetime.now(UTC)
    for state in (TaskState.SUCCEEDED, TaskState.CANCELLED, TaskState.FAILED, TaskState.INTERRUPTED):
        with database.begin() as session:
            dataset = add_dataset(session, content=state)
            run = TrainingRun(
                project_id=home(session), name="run", dataset_id=dataset.id, config={}, config_digest="", state=state
            )
            run.finished_at, run.checkpoint_sha256 = now - timedelta(days=2), "0" * 64
            session.add(run)
            session.flush()
            keys[state] = checkpoint_key(run.id, "0" * 64)
        incoming.put(keys[state], b"!")
        incoming.put(keys[state].replace("0.pt", "1.pt"), b"stored, and never named by the row")
    Cleanup(settings, database, incoming).run()
    interrupted = keys.pop(TaskState.INTERRUPTED)
    running = {interrupted, interrupted.replace("0.pt", "1.pt")}
    assert set(incoming.keys("")) == running | {keys[TaskState.FAILED], keys[TaskState.CANCELLED]}
    Cleanup(settings.model_copy(update={"checkpoint_days": 1}), database, incoming).run()
    assert set(incoming.keys("")) == running
    with database.begin() as session:
        named = session.scalars(sa.select(TrainingRun.state).where(TrainingRun.checkpoint_sha256.is_not(None)))
        assert list(named) == [TaskState.INTERRUPTED]


def test_old_answers_go_and_audit_rows_only_where_that_is_wanted(
    settings: Settings, database: Database, incoming: Incoming
) -> None:
    now = datetime.now(UTC)
    with database.begin() as session:
        create_key(session, project_name="ward", name="any", scopes=[Scope.READ])
        session.flush()
        api_key_id = session.query(ApiKey.id).scalar()
        for hours in (1, 47, 49, 100):
            since = now - timedelta(hours=hours)
            session.add(IdempotencyKey(api_key_id=api_key_id, key=str(hours), locked_until=now, created_at=since))
            session.add(AuditEvent(action=str(hours), subject={}, created_at=since))

    def kept(**changed: object) -> tuple[set[str], set[str]]:
        cleanup = Cleanup(settings.model_copy(update=changed), database, incoming)
        cleanup.run_when_due()
        cleanup.run_when_due()  # not again within the hour
        with database.begin() as session:
            answers = {row.key for row in session.query(IdempotencyKey)}
            return answers, {row.action for row in session.query(AuditEvent)}

    assert kept() == ({"1", "47"}, {"1", "47", "49", "100"})
    assert kept(audit_days=2) == ({"1", "47"}, {"1", "47"})


def test_a_bucket_that_may_not_be_listed_keeps_no_other_step_from_its_work(
    settings: Settings, database: Database
) -> None:
    refused = Incoming(settings.model_copy(update={"s3_secret_access_key": SecretStr("wrong")}))
    with database.begin() as session:
        session.add(AuditEvent(action="old", subject={}, created_at=datetime.now(UTC) - timedelta(days=2)))
    Cleanup(settings.model_copy(update={"audit_days": 1}), database, refused).run()
    with database.begin() as session:
        assert session.query(AuditEvent).count() == 0
