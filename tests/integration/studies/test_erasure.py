"""Studies that were erased: nothing of them is left anywhere, whatever happens at the same time."""

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import UUID

import pytest
import sqlalchemy as sa

from shared.access.keys import find_project
from shared.database import Database
from shared.erasure import (
    DatasetErased,
    ErasedMeanwhile,
    erase_study,
    finish_all,
    require_whole,
)
from shared.errors import NotFound, ObjectStoreUnavailable
from shared.imaging.isolation import DecoderPool
from shared.intake.receive import Intake
from shared.object_store import ObjectStore, dataset_key, original_key, rendition_key, result_key
from shared.queue.hints import Hints
from shared.queue.outcome import FoundBox, FoundImage, succeed
from shared.queue.stages import DETECT
from shared.settings import Settings
from shared.tables import (
    AuditEvent,
    Dataset,
    ErasedObject,
    Erasure,
    Evaluation,
    Image,
    Project,
    Rendition,
    Row,
    Study,
    TrainingRun,
)
from shared.vocabulary.states import TaskState
from tests.integration.conftest import Api, Keys, png
from tests.integration.rows import add_dataset, home
from tests.integration.workshop import Workshop, dicom


@pytest.fixture
def admin(api: Api, keys: Keys) -> Api:
    return api.as_(keys.admin)


def traces(database: Database, store: ObjectStore, words: list[str], data: bytes = b"") -> list[str]:
    """Where any of these words, or a file's bytes, are left: rows as text, keys and objects."""
    found = []
    with database.begin() as session:
        for table in Row.metadata.sorted_tables:
            if table.name != AuditEvent.__tablename__:
                rows = session.scalars(sa.text(f"SELECT t::text FROM {table.name} AS t")).all()
                found += [f"{table.name}: {row}" for row in rows if any(word in row for word in words)]
    for key in store.keys(""):
        content = store.read(key)
        if any(word in key or word.encode() in content for word in words) or (data and data in content):
            found.append(key)
    return found


def detect_all(workshop: Workshop, model_id: UUID) -> None:
    """Prepare what waits, and have the model find one box on each."""
    with workshop.preparing() as prepare:
        prepare.run()
    with workshop.database.begin() as session:
        claims = workshop.claim(DETECT)
        assert claims
        assert {claim.model_id for claim in claims} == {model_id}
        succeed(session, {claim: FoundImage([FoundBox(1, "nodule", 0.9, (1, 2, 30, 40))]) for claim in claims})


def test_nothing_of_an_erased_study_is_left(
    admin: Api, workshop: Workshop, database: Database, store: ObjectStore, tiny_model_id: UUID, keys: Keys
) -> None:
    file = dicom(1)
    mine = admin.as_(keys.admin)
    mine.post("/v1/webhooks", {"url": "https://ward.example/", "events": ["job.finished"]})
    announced = {"name": "Doe^Jane.dcm", "byte_count": len(file), "sha256": hashlib.sha256(file).hexdigest()}
    begun = mine._http.post(
        "/v1/submissions", headers=mine._headers | {"Idempotency-Key": "first"}, json={"files": [announced]}
    ).get_json()
    path = f"/v1/submissions/{begun['submission']['id']}"
    row = mine.put(f"{path}/files/0/content", file).get_json()
    sent = mine.send(("Doe^Jane again.dcm", file)).get_json()["files"][0]
    assert (sent["outcome"], sent["study_id"]) == ("duplicate", row["study_id"])
    detect_all(workshop, tiny_model_id)
    mine.post(f"{path}/complete")
    assert mine.get(path).get_json()["counts"]["succeeded"] == 1
    job_id, image_id, study_id = row["job_id"], row["image_id"], row["study_id"]
    said = {"job_id": job_id, "after": 0, "event": {"action": "accept", "finding_id": "model-0"}}
    assert mine.post(f"/v1/images/{image_id}/reviews", said).status_code == 201
    assert mine.get(f"/v1/images/{image_id}/rendition.png").status_code == 200
    words = [study_id, image_id, job_id, hashlib.sha256(file).hexdigest(), "Doe^Jane", "1.3.1"]
    assert len(traces(database, store, words, file)) >= 8

    answer = mine.delete(f"/v1/studies/{study_id}")
    assert (answer.status_code, answer.get_json()) == (
        200,
        {"study_id": study_id, "images": 1, "objects_left": 0, "learnt": []},
    )
    assert traces(database, store, words, file) == []
    assert list(store.keys("renditions/")) == list(store.keys("originals/")) == []

    # What counts stays.
    counted = mine.get(path).get_json()
    assert (counted["counts"]["erased"], counted["counts"]["succeeded"], counted["file_count"]) == (1, 0, 1)
    manifest = mine.get(f"{path}/manifest").get_json()["files"]
    assert [(each["outcome"], each["name"], each["sha256"], each["study_id"]) for each in manifest] == [
        ("erased", None, None, None)
    ]
    for gone in (f"/v1/studies/{study_id}", f"/v1/images/{image_id}/rendition.png", f"/v1/jobs/{job_id}"):
        assert mine.get(gone).status_code == 404
    assert mine.delete(f"/v1/studies/{study_id}").status_code == 404
    with database.begin() as session:
        events = sa.select(AuditEvent).where(AuditEvent.action == "studies.erase", AuditEvent.status == 200)
        assert session.scalars(events).one().subject["study_id"] == study_id
    # Sent again it is another study.
    again = mine.send(("again.dcm", file)).get_json()["files"][0]
    assert again["outcome"] == "accepted"
    assert again["study_id"] != study_id


def test_only_an_admin_of_the_project_erases(api: Api, keys: Keys, database: Database) -> None:
    study_id = api.send(("a.png", png())).get_json()["files"][0]["study_id"]
    for key in (keys.submit, keys.read, keys.both, keys.train):
        assert api.as_(key).delete(f"/v1/studies/{study_id}").status_code == 403
    assert api.as_(keys.stranger).delete(f"/v1/studies/{study_id}").status_code == 404
    assert api.get(f"/v1/studies/{study_id}").status_code == 200


def test_bytes_that_another_project_sent_too_stay_theirs(admin: Api, keys: Keys, store: ObjectStore) -> None:
    file, theirs = png(3), admin.as_(keys.stranger)
    first, second = (one.send(("a.png", file)).get_json()["files"][0]["study_id"] for one in (admin, theirs))
    key = original_key(hashlib.sha256(file).hexdigest())
    assert admin.delete(f"/v1/studies/{first}").get_json()["objects_left"] == 0
    assert store.has(key)
    assert theirs.delete(f"/v1/studies/{second}").status_code == 200
    assert not store.has(key)


class Refusing(ObjectStore):
    """An object store that removes nothing."""

    tries = 0

    def erase(self, key: str) -> None:
        """Fail as a server that is down."""
        self.tries += 1
        raise ObjectStoreUnavailable


def test_objects_that_could_not_be_removed_are_removed_later(
    admin: Api, settings: Settings, database: Database, store: ObjectStore, keys: Keys
) -> None:
    file = png(4)
    study_id = UUID(admin.send(("a.png", file)).get_json()["files"][0]["study_id"])
    with database.begin() as session:
        project_id = session.get_one(Study, study_id).project_id
    refusing = Refusing(settings)
    erased = erase_study(database, refusing, project_id, study_id)
    assert (erased.images, erased.objects_left) == (1, 1)
    assert erase_study(database, refusing, project_id, study_id).objects_left == 1
    refusing.close()
    assert store.has(original_key(hashlib.sha256(file).hexdigest()))
    finish_all(database, store)
    assert traces(database, store, [str(study_id), hashlib.sha256(file).hexdigest()], file) == []
    with pytest.raises(NotFound):
        erase_study(database, store, project_id, study_id)


def test_an_outage_costs_one_try_however_many_erasures_wait(
    admin: Api, settings: Settings, database: Database, store: ObjectStore
) -> None:
    study_ids = [admin.send(("a.png", png(seed))).get_json()["files"][0]["study_id"] for seed in (10, 11, 12)]
    with database.begin() as session:
        project_id = session.scalars(sa.select(Study.project_id).limit(1)).one()
    refusing = Refusing(settings)
    for study_id in study_ids:
        assert erase_study(database, refusing, project_id, UUID(study_id)).objects_left == 1
    refusing.tries = 0
    finish_all(database, refusing)
    assert refusing.tries == 1
    refusing.close()
    finish_all(database, store)
    assert list(store.keys("originals/")) == []


def test_a_worker_that_holds_a_job_of_the_study_writes_nothing(
    admin: Api, workshop: Workshop, database: Database, store: ObjectStore, tiny_model_id: UUID
) -> None:
    file = dicom(5)
    study_id = admin.send(("a.dcm", file)).get_json()["files"][0]["study_id"]

    class Erasing(DecoderPool):
        def render(self, *args, **kwargs):
            rendition = super().render(*args, **kwargs)
            assert admin.delete(f"/v1/studies/{study_id}").status_code == 200
            return rendition

    with Erasing(1, 30) as decoders, workshop.preparing(decoders) as prepare:
        prepare.run()
    finish_all(database, store)
    assert traces(database, store, [study_id, hashlib.sha256(file).hexdigest()], file) == []
    assert list(store.keys("renditions/")) == []

    study_id = admin.send(("a.dcm", file)).get_json()["files"][0]["study_id"]
    with workshop.preparing() as prepare:
        prepare.run()
    claims = workshop.claim(DETECT)
    assert admin.delete(f"/v1/studies/{study_id}").status_code == 200
    with database.begin() as session:
        assert (
            succeed(session, {claim: FoundImage([FoundBox(1, "nodule", 0.9, (1, 2, 30, 40))]) for claim in claims})
            == set()
        )
    assert traces(database, store, [study_id], file) == []


def test_a_file_that_is_stored_before_and_recorded_after_an_erasure_is_sent_again(
    admin: Api, settings: Settings, database: Database, store: ObjectStore, hints: Hints
) -> None:
    file = png(6)
    study_id = UUID(admin.send(("a.png", file)).get_json()["files"][0]["study_id"])
    with database.begin() as session:
        project_id = session.get_one(Study, study_id).project_id

    class Late(ObjectStore):
        def put(self, key: str, data: bytes) -> None:
            super().put(key, data)
            erase_study(database, store, project_id, study_id)

    late = Late(settings)
    with pytest.raises(ErasedMeanwhile):
        Intake(settings, database, late, hints, project_id).receive(iter([file]))
    late.close()
    received = Intake(settings, database, store, hints, project_id).receive(iter([file]))
    assert received.outcome == "accepted"
    assert store.get(original_key(received.sha256), sha256=received.sha256) == file


def test_uploads_and_erasures_at_once_leave_no_row_without_its_object(
    settings: Settings, database: Database, store: ObjectStore, hints: Hints, keys: Keys
) -> None:
    file, stopped = png(7), threading.Event()
    with database.begin() as session:
        project_id = session.scalars(sa.select(Project.id).where(Project.name == "ward")).one()

    def send() -> None:
        while not stopped.is_set():
            with suppress(ErasedMeanwhile):
                Intake(settings, database, store, hints, project_id).receive(iter([file]))

    def erase_one() -> int:
        with database.begin() as session:
            study_id = session.scalar(sa.select(Study.id).limit(1))
        with suppress(NotFound):
            return erase_study(database, store, project_id, study_id).images if study_id else 0
        return 0

    with ThreadPoolExecutor(3) as threads:
        senders = [threads.submit(send) for _ in range(3)]
        erased = 0
        while erased < 15 and not any(sender.done() for sender in senders):
            erased += erase_one()
        stopped.set()
    for sender in senders:
        sender.result()
    with database.begin() as session:
        images = session.scalars(sa.select(Image.sha256)).all()
    for sha256 in images:
        assert store.get(original_key(sha256), sha256=sha256) == file


def test_datasets_of_the_study_are_marked_and_refused(
    admin: Api, database: Database, store: ObjectStore, keys: Keys, tiny_model_id: UUID
) -> None:
    file = png(8)
    sha256 = hashlib.sha256(file).hexdigest()
    study_id = admin.send(("a.png", file)).get_json()["files"][0]["study_id"]
    store.put(rendition_key("ab" * 32), b"its rendition")
    page, boxes = b"<html>an image</html>", b"[]"
    shown = {"report_sha256": hashlib.sha256(page).hexdigest(), "detections_sha256": hashlib.sha256(boxes).hexdigest()}
    store.put(result_key(shown["report_sha256"], "html"), page)
    store.put(result_key(shown["detections_sha256"], "json"), boxes)
    document = json.dumps({"images": [{"sha256": sha256, "rendition_sha256": "ab" * 32}]}).encode()
    other = json.dumps({"images": [{"sha256": "cd" * 32, "rendition_sha256": "ef" * 32}]}).encode()
    with database.begin() as session:
        session.add(
            Rendition(
                sha256=sha256,
                version=1,
                rendition_px=512,
                rendition_sha256="ab" * 32,
                rendition_height_px=1,
                rendition_width_px=1,
                height_px=1,
                width_px=1,
            )
        )
        made = []
        for content in (document, other):
            dataset = add_dataset(session, content=hashlib.sha256(content).hexdigest())
            dataset.digest, dataset.state = hashlib.sha256(content).hexdigest(), TaskState.SUCCEEDED
            store.put(dataset_key(dataset.digest), content)
            made.append(dataset.id)
        of_dataset = {"project_id": home(session), "dataset_id": made[0]}
        run = TrainingRun(**of_dataset, name="run", config={}, config_digest="", state=TaskState.QUEUED)
        session.add(run)
        session.add(Evaluation(**of_dataset, model_id=tiny_model_id, config={}, state="succeeded", **shown))
        session.flush()
        run_id = run.id
    assert admin.delete(f"/v1/studies/{study_id}").status_code == 200
    assert list(store.keys("renditions/")) == list(store.keys("results/")) == list(store.keys("originals/")) == []
    with database.begin() as session:
        marked, whole = (session.get_one(Dataset, id_) for id_ in made)
        assert (marked.erased_count, whole.erased_count) == (1, 0)
        require_whole(whole)
        with pytest.raises(DatasetErased):
            require_whole(marked)
        ended = session.get_one(TrainingRun, run_id)
        assert (ended.state, ended.code) == ("failed", "dataset_has_erased_images")
        assert session.scalar(sa.select(sa.func.count()).select_from(Rendition)) == 0
        assert session.scalar(sa.select(sa.func.count()).select_from(Erasure)) == 0
    shown = admin.get(f"/v1/datasets/{made[0]}").get_json()
    assert shown["erased_count"] == 1
    for path in ("/v1/trainings", "/v1/evaluations"):
        refused = admin.post(path, {"dataset": str(made[0])})
        assert (refused.status_code, refused.get_json()["code"]) == (409, "dataset_has_erased_images")


def test_datasets_of_other_projects_keep_the_bytes_that_they_were_sent(
    admin: Api, database: Database, store: ObjectStore, keys: Keys
) -> None:
    file = png(8)
    sha256 = hashlib.sha256(file).hexdigest()
    study_id = admin.send(("a.png", file)).get_json()["files"][0]["study_id"]
    store.put(rendition_key("ab" * 32), b"its rendition")
    document = json.dumps({"images": [{"sha256": sha256, "rendition_sha256": "ab" * 32}]}).encode()
    digest = hashlib.sha256(document).hexdigest()
    store.put(dataset_key(digest), document)
    with database.begin() as session:
        size = dict.fromkeys(("rendition_height_px", "rendition_width_px", "height_px", "width_px"), 1)
        session.add(Rendition(sha256=sha256, version=1, rendition_px=512, rendition_sha256="ab" * 32, **size))
        made = []
        for project_id in (home(session), find_project(session, "elsewhere")):
            dataset = add_dataset(session)
            dataset.digest, dataset.project_id = digest, project_id
            made.append(dataset.id)
    assert admin.delete(f"/v1/studies/{study_id}").status_code == 200
    assert list(store.keys("originals/")) == []
    assert list(store.keys("renditions/")) == [rendition_key("ab" * 32)]
    with database.begin() as session:
        assert [session.get_one(Dataset, id_).erased_count for id_ in made] == [1, 0]
        assert session.scalar(sa.select(sa.func.count()).select_from(Erasure)) == 0


def test_datasets_of_other_projects_are_read_only_where_an_import_made_a_rendition(
    admin: Api, settings: Settings, database: Database
) -> None:
    study_id = UUID(admin.send(("a.png", png(8))).get_json()["files"][0]["study_id"])
    with database.begin() as session:
        project_id = session.get_one(Study, study_id).project_id
        theirs = add_dataset(session)
        theirs.project_id, theirs.digest = find_project(session, "elsewhere"), "ab" * 32

    class Unread(ObjectStore):
        def get(self, key: str, *, sha256: str) -> bytes:
            raise AssertionError(f"{key} was read")

    unread = Unread(settings)
    assert erase_study(database, unread, project_id, study_id).objects_left == 0
    unread.close()


def test_what_was_erased_is_forgotten_after_a_while(database: Database, store: ObjectStore) -> None:
    with database.begin() as session:
        session.add(ErasedObject(key_sha256="a", erased_at=sa.func.now() - sa.text("interval '2 hours'")))
        session.add(ErasedObject(key_sha256="b"))
    finish_all(database, store)
    with database.begin() as session:
        assert session.scalars(sa.select(ErasedObject.key_sha256)).all() == ["b"]
