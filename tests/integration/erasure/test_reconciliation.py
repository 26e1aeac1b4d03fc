"""What `carina fsck` finds after real faults, in both directions, and what it does about it."""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
import sqlalchemy as sa

from shared.database import Database
from shared.erasure import finish_all
from shared.erasure.reconciliation import PARTS, Reconciliation
from shared.object_store import ObjectStore, dataset_key, original_key, rendition_key, result_key
from shared.object_store.incoming import Incoming
from shared.queue.outcome import cancel
from shared.settings import Settings
from shared.tables import AuditEvent, Image, Job
from shared.training.trainings import start_training
from shared.vocabulary.states import JobState
from tests.integration.conftest import Api, Keys, Server, png
from tests.integration.rows import add_dataset
from tests.integration.workshop import Workshop, dicom
from tests.tiny_images import tiny_config
from tests.waiting import wait_for
from workers import cleanup

NOW = timedelta(0)
#: The process is killed after it has stored a file, and before it writes the file's rows.
KILLED_BEFORE_ITS_ROWS = (
    "import os, signal; from shared.intake.receive import Intake; "
    "Intake._record = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
)


def fsck(carina: Callable[..., str], *options: str, code: int = 0) -> dict[str, Any]:
    printed = carina("fsck", "--json", *options, code=code)
    return json.loads(printed[printed.index("{\n") :])  # after the log of what went before


@pytest.mark.parametrize("server", [KILLED_BEFORE_ITS_ROWS], indirect=True)
def test_the_file_of_an_upload_that_was_killed_before_its_rows_is_removed(
    server: Server,
    keys: Keys,
    api: Api,
    database: Database,
    store: ObjectStore,
    carina: Callable[..., str],
) -> None:
    kept, lost = png(1), png(2)
    api.send(("kept.png", kept))
    with suppress(httpx.TransportError):
        headers = {"Authorization": f"Bearer {keys.both}"}
        httpx.post(f"{server.url}/v1/studies", files={"files": lost}, headers=headers, timeout=60)
    key = original_key(hashlib.sha256(lost).hexdigest())
    wait_for(lambda: store.has(key))

    assert fsck(carina)["unused"] == [], "it may belong to an upload that is under way"
    found = fsck(carina, "--older-than", "0", code=1)
    assert found["unused"] == [{"key": key, "byte_count": len(lost)}]
    assert (found["missing"], found["deleted"]) == ([], 0)
    assert store.has(key), "nothing is changed by default"
    assert fsck(carina, "--older-than", "0", "--delete")["deleted"] == 1
    assert list(store.keys("originals/")) == [original_key(hashlib.sha256(kept).hexdigest())]
    assert fsck(carina, "--older-than", "0")["unused"] == []
    with database.begin() as session:
        event = session.scalars(sa.select(AuditEvent).where(AuditEvent.action == "fsck")).one()
        assert (event.actor, event.subject) == ("cli", {"deleted": 1, "repaired": 0})


def test_an_upload_under_way_survives_a_check_without_any_age(
    api: Api, settings: Settings, database: Database, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Reconciliation(database, store, NOW)
    put = ObjectStore.put
    removed = []

    def put_and_check(self: ObjectStore, key: str, data: bytes) -> None:
        put(self, key, data)
        if not removed:
            removed.extend(work.find_unused(key))
            for found in removed:
                work.remove(found.key)

    monkeypatch.setattr(ObjectStore, "put", put_and_check)
    assert api.send(("a.png", png(3))).status_code == 503
    assert len(removed) == 1
    assert api.send(("a.png", png(3))).get_json()["files"][0]["outcome"] == "accepted"
    assert [found for part in PARTS for found in work.check(part).missing] == []


def test_a_missing_rendition_is_made_again_and_a_missing_original_is_reported(
    workshop: Workshop, database: Database, store: ObjectStore, tiny_model_id: UUID, carina: Callable[..., str]
) -> None:
    jobs = workshop.queue(dicom(1), dicom(2), dicom(3))
    with workshop.preparing() as prepare:
        prepare.run()
    with workshop.detecting() as detect:
        workshop.set(jobs[2], available_at=sa.func.now() + timedelta(days=1))  # stays ready
        detect.run()
    with database.begin() as session:
        images = [session.get_one(Image, session.get_one(Job, job_id).image_id) for job_id in jobs]
        session.expunge_all()
    renditions = [rendition_key(image.rendition_sha256 or "") for image in images]
    assert fsck(carina)["missing"] == []
    for key in (renditions[0], renditions[2], original_key(images[1].sha256)):
        store.delete(key)
    found = fsck(carina, code=1)["missing"]
    told = {(row["table"], row["id"], row["key"], row["repairable"]) for row in found}
    assert told == {
        ("image", str(images[0].id), renditions[0], True),
        ("image", str(images[2].id), renditions[2], True),
        ("image", str(images[1].id), original_key(images[1].sha256), False),
    }
    assert not store.has(renditions[0]), "nothing is changed by default"

    repaired = fsck(carina, "--repair", code=1)
    assert repaired["repaired"] == 2
    assert workshop.job(jobs[2]).state == JobState.QUEUED
    with workshop.preparing() as prepare:
        prepare.run()
    workshop.set(jobs[2], available_at=sa.func.now())
    with workshop.detecting() as detect:
        detect.run()
    assert store.has(renditions[0])
    assert workshop.states(jobs) == [JobState.SUCCEEDED] * 3
    assert [row["key"] for row in fsck(carina, code=1)["missing"]] == [original_key(images[1].sha256)]
    text = carina("fsck", code=1)
    assert f"missing  {original_key(images[1].sha256)} of image {images[1].id}" in text
    assert "from a backup" in text


def test_the_rendition_of_a_job_that_was_cancelled_while_it_was_prepared_goes(
    workshop: Workshop, database: Database, store: ObjectStore, tiny_model_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = workshop.queue(dicom(4))
    put = ObjectStore.put

    def put_and_cancel(self: ObjectStore, key: str, data: bytes) -> None:
        put(self, key, data)
        with database.begin() as session:
            assert cancel(session, workshop.project_id, job_id)

    monkeypatch.setattr(ObjectStore, "put", put_and_cancel)
    with workshop.preparing() as prepare:
        prepare.run()
    assert workshop.states([job_id]) == [JobState.CANCELLED]
    assert len(list(store.keys("renditions/"))) == 1
    finish_all(database, store)
    assert list(store.keys("renditions/")) == []


def test_the_cleanup_removes_unused_objects_within_a_day_and_keeps_what_datasets_need(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = Incoming(settings)
    objects = [hashlib.sha256(bytes([number])).hexdigest() for number in range(4)]
    for sha256 in objects:
        incoming.put(original_key(sha256), b"!")
        incoming.put(rendition_key(sha256), b"!")
        incoming.put(result_key(sha256, "tfevents"), b"!")
    batch = result_key(objects[0], "pt")
    incoming.put(batch, b"kept for inspection")
    document = json.dumps({"images": [{"sha256": "0" * 64, "rendition_sha256": objects[0]}]})
    with database.begin() as session:
        dataset = add_dataset(session, content=document)
        incoming.put(dataset_key(dataset.digest or ""), document.encode())
        run = start_training(session, dataset=dataset, config=tiny_config())
        run.events = {"1": objects[1], "2": objects[2]}

    def after(hours: int) -> set[str]:
        for hour in range(hours):
            monkeypatch.setattr(time, "time", lambda hour=hour: hour * cleanup.INTERVAL_S)
            cleanup.Cleanup(settings, database, incoming).run()
        return {key for folder in ("originals/", "renditions/", "results/") for key in incoming.keys(folder)}

    assert len(after(24)) == 13, "they are not a day old"
    monkeypatch.setattr(Reconciliation.__init__, "__defaults__", (NOW,))
    assert len(after(1)) <= 13
    assert after(24) == {rendition_key(objects[0]), batch, *(result_key(objects[n], "tfevents") for n in (1, 2))}


def test_objects_of_models_datasets_and_evaluations_are_reported(
    workshop: Workshop, database: Database, store: ObjectStore, tiny_model_id: UUID, carina: Callable[..., str]
) -> None:
    assert fsck(carina)["missing"] == []
    with database.begin() as session:
        dataset_id = add_dataset(session).id
    (weights,) = store.keys("models/")
    store.delete(weights)
    found = fsck(carina, "--repair", "--delete", code=1)["missing"]
    assert {(row["table"], row["id"]) for row in found} == {
        ("model", str(tiny_model_id)),
        ("dataset", str(dataset_id)),
    }
