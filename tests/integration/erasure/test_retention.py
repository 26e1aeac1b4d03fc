"""Data goes when its time has passed, by setting and by project, and nothing else does."""

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from shared.database import Database
from shared.erasure import finish_all
from shared.erasure.reconciliation import PARTS, Reconciliation
from shared.object_store import ObjectStore, dataset_key, original_key, rendition_key
from shared.object_store.incoming import Incoming
from shared.queue.numbers import sum_work
from shared.settings import Settings
from shared.tables import (
    AuditEvent,
    Detection,
    Image,
    Job,
    Project,
    QueueSample,
    ReviewEvent,
    Submission,
    SubmissionFile,
    Webhook,
    WebhookDelivery,
    Worker,
)
from shared.vocabulary.states import DeliveryState, FileState, JobState, SubmissionState, WorkerKind
from tests.integration.conftest import Api, Keys, Server
from tests.integration.rows import add_dataset, home
from tests.integration.workshop import Workshop, dicom
from workers import retention
from workers.cleanup import Cleanup


def read(printed: str) -> Any:
    """The JSON that a command has printed, after the log of what went before."""
    found = re.search(r"^[\[{]$", printed, re.MULTILINE)
    assert found, printed
    return json.loads(printed[found.start() :])


OLD = datetime.now(UTC) - timedelta(days=10)
Run = Callable[..., None]


@pytest.fixture
def clean(settings: Settings, database: Database, store: ObjectStore) -> Iterator[Run]:
    """Run the hourly cleanup and the erasures under changed settings."""
    incoming = Incoming(settings)

    def run(**changed: object) -> None:
        Cleanup(settings.model_copy(update=changed), database, incoming).run()
        finish_all(database, store)

    yield run
    incoming.close()


@pytest.fixture
def jobs(workshop: Workshop, database: Database, tiny_model_id: UUID) -> list[UUID]:
    """Three results, of which the first two are old."""
    made = workshop.queue(*(dicom(number) for number in range(3)))
    with workshop.preparing() as prepare:
        prepare.run()
    with workshop.detecting() as detect:
        detect.run()
    with database.begin() as session:
        for job_id in made[:2]:
            job = session.get_one(Job, job_id)
            job.finished_at = session.get_one(Image, job.image_id).created_at = OLD
    return made


def images(database: Database, jobs: list[UUID]) -> list[Image]:
    with database.begin() as session:
        found = [session.get_one(Image, session.get_one(Job, job_id).image_id) for job_id in jobs]
        session.expunge_all()
        return found


def test_old_originals_and_renditions_go_and_come_back(
    clean: Run, jobs: list[UUID], workshop: Workshop, database: Database, store: ObjectStore
) -> None:
    before = set(store.keys(""))
    clean()
    clean(originals_days=11, renditions_days=11)
    assert set(store.keys("")) == before, "nothing goes by default, or before its time"

    first, second, third = images(database, jobs)
    document = json.dumps({"images": [{"sha256": second.sha256, "rendition_sha256": second.rendition_sha256}]})
    with database.begin() as session:
        digest = add_dataset(session, content=document).digest or ""
    store.put(dataset_key(digest), document.encode())
    workshop.set(jobs[0], state=JobState.READY, finished_at=None)
    clean(originals_days=9, renditions_days=9)
    assert store.has(original_key(first.sha256)), "its job is not final"
    workshop.set(jobs[0], state=JobState.SUCCEEDED, finished_at=OLD)
    clean(originals_days=9, renditions_days=9)
    assert set(store.keys("originals/")) == {original_key(third.sha256)}
    kept = {rendition_key(image.rendition_sha256 or "") for image in (second, third)}
    assert set(store.keys("renditions/")) == kept, "the dataset contains the second one"
    first, second, third = images(database, jobs)
    assert (first.rendition_sha256, first.original_deleted_at is None) == (None, False)
    assert workshop.states(jobs) == [JobState.SUCCEEDED] * 3, "the results stay"
    assert [row for part in PARTS for row in Reconciliation(database, store).check(part).missing] == []


def test_a_file_that_is_sent_again_is_there_again(clean: Run, api: Api, database: Database, store: ObjectStore) -> None:
    file = dicom(9)
    (sent,) = api.send(("a.dcm", file)).get_json()["files"]
    with database.begin() as session:
        session.execute(sa.update(Job).values(state=JobState.CANCELLED, finished_at=OLD))
        session.execute(sa.update(Image).values(created_at=OLD))
    clean(originals_days=9)
    assert list(store.keys("originals/")) == []
    (again,) = api.send(("a.dcm", file)).get_json()["files"]
    assert again["image_id"] == sent["image_id"]
    clean(originals_days=9)
    assert len(list(store.keys("originals/"))) == 1, "its job is not final"


def test_old_results_go_with_their_reviews_and_files(
    clean: Run, jobs: list[UUID], workshop: Workshop, api: Api, keys: Keys, database: Database
) -> None:
    with database.begin() as session:
        submission = Submission(project_id=workshop.project_id, state=SubmissionState.COMPLETED, file_count=1)
        submission.finished_at = datetime.now(UTC)
        session.add(submission)
        session.flush()
        job = session.get_one(Job, jobs[0])
        file = {"name": "Doe.dcm", "state": FileState.ACCEPTED, "job_id": job.id, "image_id": job.image_id}
        session.add(SubmissionFile(submission_id=submission.id, number=0, **file))
        detection = {"class_id": 1, "class_name": "Mass", "score": 0.9, "x_min_px": 1, "y_min_px": 1}
        box = {"x_max_px": 9, "y_max_px": 9}
        session.execute(sa.delete(Detection).where(Detection.job_id == job.id))
        session.add(Detection(job_id=job.id, rank=0, model_id=job.model_id, **detection, **box))
    clean(results_days=9)
    with database.begin() as session:
        assert session.scalars(sa.select(Job.id)).all() == [jobs[2]]
        assert set(session.scalars(sa.select(Detection.job_id))) <= {jobs[2]}
        assert session.scalars(sa.select(ReviewEvent)).all() == []
        row = session.scalars(sa.select(SubmissionFile)).one()
        assert (row.state, row.name, row.job_id, row.image_id) == (FileState.ERASED, None, None, None)
        assert session.scalar(sa.select(sa.func.count()).select_from(Image)) == 3
    clean(submissions_days=1)
    with database.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Submission)) == 1
        session.execute(sa.update(Submission).values(finished_at=OLD))
        session.execute(sa.update(Job).values(submission_id=session.scalar(sa.select(Submission.id))))
    clean(submissions_days=9)
    with database.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Submission)) == 0
        assert session.scalars(sa.select(Job.id)).all() == [jobs[2]]


def test_a_project_has_retention_times_of_its_own(
    operator: None, server: Server, carina: Callable[..., str], clean: Run, api: Api, keys: Keys, database: Database
) -> None:
    with database.begin() as session:
        ward, elsewhere = (
            session.scalars(sa.select(Project).where(Project.name == name)).one() for name in ("ward", "elsewhere")
        )
        for project in (ward, elsewhere, None):
            session.add(AuditEvent(project_id=project and project.id, action="old", subject={}, created_at=OLD))
        key_id = session.scalar(sa.text("SELECT id FROM api_key LIMIT 1"))
        hook = Webhook(project_id=ward.id, api_key_id=key_id, url="https://x.example", secret="s", events=[])
        session.add(hook)
        session.flush()
        for state in (DeliveryState.DELIVERED, DeliveryState.DEAD, DeliveryState.PENDING):
            ended = None if state is DeliveryState.PENDING else OLD
            session.add(
                WebhookDelivery(
                    webhook_id=hook.id, event="x", payload={}, state=state, created_at=OLD, finished_at=ended
                )
            )

    def old() -> set[str | None]:
        with database.begin() as session:
            names = sa.select(Project.name).select_from(AuditEvent).join(Project, isouter=True)
            return set(session.scalars(names.where(AuditEvent.action == "old")))

    clean()
    assert old() == {"ward", "elsewhere", None}
    shown = read(carina("project", "retention", "audit=9", "deliveries=9", "--yes", "--json"))
    assert {row["kind"]: (row["days"], row["is_own"]) for row in shown["retention"]}["audit"] == (9, True)
    clean()
    assert old() == {"elsewhere", None}
    with database.begin() as session:
        assert session.scalars(sa.select(WebhookDelivery.state)).all() == [DeliveryState.PENDING]
    carina("project", "retention", "audit=0")
    with database.begin() as session:
        session.add(AuditEvent(project_id=home(session), action="old", subject={}, created_at=OLD))
    clean(audit_days=9)
    assert old() == {"ward"}, "it keeps them for ever, whatever the settings say"
    carina("project", "retention", "audit=default")
    clean(audit_days=9)
    assert old() == set()
    assert "is not one of" in carina("project", "retention", "audits=9", code=2)
    assert "invalid_retention" in carina("project", "retention", "audit=99999", "--yes", code=1)


def test_samples_and_rows_of_ended_processes_go_and_their_counts_stay(clean: Run, database: Database) -> None:
    now = datetime.now(UTC)
    zero = dict.fromkeys((column.key for column in QueueSample.__table__.columns), 0)
    work = {"stage": WorkerKind.DETECT, "batches": 2, "images": 8, "step_s": 1.5, "expired_leases": 1}
    with database.begin() as session:
        for at in (OLD, now):
            session.add(QueueSample(**{**zero, "at": at}))
        session.add(Worker(id="stopped", started_at=OLD, seen_at=OLD, stopped_at=OLD, **work))
        session.add(Worker(id="killed", started_at=OLD, seen_at=OLD, **work))
        session.add(Worker(id="alive", started_at=OLD, **work))
        before = sum_work(session)
    clean()
    clean()
    with database.begin() as session:
        assert session.scalars(sa.select(QueueSample.at)).all() == [now]
        assert set(session.scalars(sa.select(Worker.id))) == {"alive", "past@detect"}
        assert sum_work(session) == before


def test_a_run_ends_in_time_and_the_next_one_goes_on(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = Incoming(settings)
    cleanup = Cleanup(settings.model_copy(update={"audit_days": 9}), database, incoming)

    def left() -> int | None:
        with database.begin() as session:
            return session.scalar(sa.select(sa.func.count()).where(AuditEvent.action == "old"))

    with database.begin() as session:
        for _ in range(5):
            session.add(AuditEvent(action="old", subject={}, created_at=OLD))
    monkeypatch.setattr(retention, "AT_A_TIME", 2)
    with monkeypatch.context() as patched:
        patched.setattr(retention, "MAX_RUN_S", 0.0)
        cleanup.run_when_due()
    assert left() == 5
    assert cleanup._next_at - time.monotonic() <= 60, "it is not left for an hour"
    cleanup.run()
    incoming.close()
    assert left() == 0


def test_bytes_of_projects_are_shown(
    operator: None, server: Server, carina: Callable[..., str], clean: Run, api: Api, keys: Keys, jobs: list[UUID]
) -> None:
    file = dicom(20)
    api.send(("a.dcm", file))
    shown = read(carina("project", "show", "--json"))
    assert (shown["name"], shown["images"], shown["original_bytes"]) == ("ward", 1, len(file))
    listed = {row["name"]: row for row in read(carina("project", "list", "--json"))}
    assert listed["workshop"]["rendition_bytes"] > 0
    assert listed["elsewhere"]["images"] == 0
    assert api.get("/v1/projects").status_code == 403
    clean()
    total = sum(row["original_bytes"] for row in listed.values())
    assert f'carina_stored_bytes{{kind="original"}} {float(total)}' in api.get("/metrics").get_data(as_text=True)
