"""`carina backup` while others work, and `carina restore` into an empty installation."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from deploy.backup import BackupFolder
from shared.database import Database
from shared.erasure import erase_study
from shared.erasure.reconciliation import PARTS, Missing, Reconciliation
from shared.ids import new_id
from shared.intake.receive import Intake
from shared.object_store import ObjectStore
from shared.queue.hints import Hints
from shared.queue.stages import PREPARE
from shared.settings import Settings
from shared.tables import AuditEvent, Image, Job, TrainingRun, Worker
from shared.vocabulary.states import JobState, TaskState
from tests.integration.conftest import png
from tests.integration.rows import add_dataset, home
from tests.integration.workshop import Workshop, dicom
from tests.waiting import wait_for
from workers.sweep import sweep

Command = Callable[..., str]


@pytest.fixture
def empty(environ: dict[str, str], servers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Another installation on the same servers, without tables and bucket."""
    name = f"restored_{new_id().hex}"
    base = servers["CARINA_DATABASE_URL"].rpartition("/")[0]
    with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        told = {"CARINA_DATABASE_URL": f"{base}/{name}", "CARINA_S3_BUCKET": name.replace("_", "-")}
        yield Settings.from_env(environ | told)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Settings], None]:
    """Let commands work on another installation."""

    def point(settings: Settings) -> None:
        monkeypatch.setenv("CARINA_DATABASE_URL", settings.database_url.get_secret_value())
        monkeypatch.setenv("CARINA_S3_BUCKET", settings.s3_bucket)

    return point


@contextmanager
def under_way(workshop: Workshop, settings: Settings, hints: Hints) -> Iterator[None]:
    """Send files and prepare them all the time, as clients and workers do."""
    stop, failures = threading.Event(), []

    def repeat(step: Callable[[int], object]) -> None:
        number = 0
        while not stop.is_set():
            try:
                step(number := number + 1)
            except Exception as exc:  # noqa: BLE001 - shown at the end
                failures.append(exc)
                return

    def send(number: int) -> None:
        intake = Intake(settings, workshop.database, workshop.store, hints, workshop.project_id)
        intake.receive(iter([png(1000 + number)]))

    with workshop.preparing() as prepare:
        threads = [threading.Thread(target=repeat, args=[step]) for step in (send, lambda _: prepare.run())]
        for thread in threads:
            thread.start()
        yield
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def rows(database: Database) -> set[tuple[str, str]]:
    """All rows of tables that only grow while files are sent, without what workers change."""
    stable = {"project": "id", "study": "id", "image": "sha256", "job": "id", "detection": "t", "model": "digest"}
    with database.begin() as session:
        return {
            (table, row)
            for table, column in stable.items()
            for row in session.scalars(sa.text(f"SELECT {column}::text FROM {table} AS t"))
        }


def missing(database: Database, settings: Settings) -> list[Missing]:
    store = ObjectStore(settings)
    work = Reconciliation(database, store)
    found = [row for part in PARTS for row in work.check(part).missing]
    store.close()
    return found


def test_what_was_committed_before_a_backup_under_load_is_restored_and_work_goes_on(
    workshop: Workshop,
    settings: Settings,
    database: Database,
    hints: Hints,
    tiny_model_id: UUID,
    carina: Command,
    empty: Settings,
    at: Callable[[Settings], None],
    tmp_path: Path,
) -> None:
    done = workshop.queue(*(dicom(number) for number in range(3)))
    with workshop.preparing() as prepare:
        prepare.run()
    with workshop.detecting() as detect:
        detect.run()
    waiting = workshop.queue(*(dicom(number) for number in range(3, 7)))
    (held,) = workshop.claim(PREPARE, "a worker that will be gone", limit=1)
    with database.begin() as session:
        run_ids = []
        for sha256 in ("1" * 64, "2" * 64):  # the second one has been replaced since
            project_id, dataset_id = home(session), add_dataset(session, content=sha256).id
            run = TrainingRun(project_id=project_id, name="run", dataset_id=dataset_id, config={}, config_digest="")
            run.state, run.checkpoint_sha256, run.checkpoint_steps = TaskState.INTERRUPTED, sha256, 5
            run.best_checkpoint = {"sha256": sha256, "steps": 5, "ap40": 0.5}
            session.add(run)
            session.flush()
            run_ids.append(run.id)
    workshop.store.put(f"incoming/{new_id()}/0", b"an upload that waits for intake")
    before = rows(database)
    with under_way(workshop, settings, hints):
        carina("backup", str(tmp_path / "backup"))
        wait_for(lambda: workshop.job(waiting[1]).state != JobState.QUEUED)
    assert workshop.states(done) == [JobState.SUCCEEDED] * 3

    at(empty)
    told = carina("restore", str(tmp_path / "backup"), "--json")
    restored = Database.from_settings(empty)
    try:
        assert before - rows(restored) == set()
        absent = {row.table for row in missing(restored, empty)}
        assert absent <= {"dataset"}, "the rows of datasets without a document are this test's own"
        other = Workshop.__new__(Workshop)
        other.settings, other.database, other.store, other.hints = empty, restored, ObjectStore(empty), hints
        assert json.loads(told[told.index("{\n") :])["leases_returned"] >= 1
        assert other.job(held.job_id).attempt == 0
        sweep(empty, restored, hints, "beat")
        with restored.begin() as session:
            assert session.scalar(sa.select(sa.func.count()).where(Job.lease_owner.is_not(None))) == 0
            assert session.scalar(sa.select(sa.func.count()).where(Worker.stopped_at.is_(None))) == 0
            forgotten = session.get_one(TrainingRun, run_ids[0])
            assert (forgotten.checkpoint_sha256, forgotten.best_checkpoint) == (None, None)
            session.execute(sa.update(Job).values(available_at=sa.func.now()))
        with other.preparing() as prepare:
            prepare.run()
        with other.detecting() as detect:
            detect.run()
        assert other.states(done + waiting) == [JobState.SUCCEEDED] * 7
        assert [other.found(job_id) == [] for job_id in done] == [workshop.found(job_id) == [] for job_id in done]
        assert [key.startswith("incoming/") for key in other.store.keys("incoming/")] == [True]
        with restored.begin() as session:
            actions = session.scalars(sa.select(AuditEvent.action).where(AuditEvent.actor == "cli")).all()
        assert "restore" in actions
        other.store.close()
    finally:
        restored.close()


def test_a_second_backup_copies_what_is_new_and_drops_what_was_erased(
    workshop: Workshop, database: Database, store: ObjectStore, carina: Command, tmp_path: Path
) -> None:
    workshop.queue(dicom(1), dicom(2))
    first, second = sorted(store.keys("originals/"))
    store.put("films/A Ä.dcm", b"an image that a project may import")
    carina("backup", str(tmp_path))
    copies = {path: path.stat().st_ino for path in (tmp_path / "objects").rglob("*") if path.is_file()}
    assert len(copies) == 3
    with database.begin() as session:
        image = session.scalars(sa.select(Image).where(Image.sha256 == first.rpartition("/")[2])).one()
        project_id, study_id = image.project_id, image.study_id
    erase_study(database, store, project_id, study_id)
    workshop.queue(dicom(3))
    carina("backup", str(tmp_path))
    now = {path: path.stat().st_ino for path in (tmp_path / "objects").rglob("*") if path.is_file()}
    kept = tmp_path / "objects" / second
    assert now[kept] == copies[kept], "it is not copied again"
    names = {str(path.relative_to(tmp_path / "objects")) for path in now}
    assert names == {quote(key) for key in store.keys("")}
    assert len(list(tmp_path.glob("database-*"))) == len(list(tmp_path.glob("objects-*"))) == 1


def test_an_interrupted_backup_leaves_the_previous_one_whole(
    workshop: Workshop,
    carina: Command,
    empty: Settings,
    at: Callable[[Settings], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    first = workshop.queue(dicom(1))
    carina("backup", str(tmp_path))
    workshop.queue(dicom(2))
    with monkeypatch.context() as patched:
        patched.setattr(BackupFolder, "complete", fail)
        carina("backup", str(tmp_path), code=1)
    at(empty)
    carina("restore", str(tmp_path))
    restored = Database.from_settings(empty)
    with restored.begin() as session:
        assert session.scalars(sa.select(Job.id)).all() == first
    restored.close()


def test_a_restore_refuses_what_is_not_empty_or_not_whole_and_can_be_started_again(
    workshop: Workshop,
    store: ObjectStore,
    carina: Command,
    empty: Settings,
    at: Callable[[Settings], None],
    tmp_path: Path,
) -> None:
    assert "no_backup" in carina("restore", str(tmp_path / "none"), code=1)
    assert "no_backup" in carina("restore", str(tmp_path), code=1)
    workshop.queue(dicom(1), dicom(2))
    carina("backup", str(tmp_path))
    assert "installation_not_empty" in carina("restore", str(tmp_path), code=1)

    at(empty)
    target = ObjectStore(empty)
    target.ensure_bucket()
    target.put("originals/aa/other", b"!")
    assert "installation_not_empty: The bucket has 1 other objects" in carina("restore", str(tmp_path), code=1)
    target.delete("originals/aa/other")
    damaged = tmp_path / "objects" / next(store.keys("originals/"))
    whole = damaged.read_bytes()
    damaged.write_bytes(b"!" * len(whole))
    assert "backup_damaged" in carina("restore", str(tmp_path), code=1)
    damaged.write_bytes(whole)
    manifest = tmp_path / "backup.json"
    old = manifest.read_text()
    manifest.write_text(json.dumps(json.loads(old) | {"revision": "9999"}))
    assert "backup_newer" in carina("restore", str(tmp_path), code=1)
    manifest.write_text(old)
    carina("restore", str(tmp_path))  # the bucket has a part of it by now
    assert set(target.keys("")) == set(store.keys(""))
    target.close()
