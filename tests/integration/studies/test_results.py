"""What the API shows of jobs, studies, findings, pictures, models, and of itself."""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import PIL.Image
import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from api.contract.findings import NOTICE
from api.studies import images
from shared.database import Database
from shared.imaging.overlay import draw_overlay
from shared.object_store import ObjectStore, rendition_key
from shared.queue.claim import Claim, claim
from shared.queue.outcome import FoundBox, FoundImage, StoredRendition, mark_ready, succeed
from shared.queue.stages import DETECT, PREPARE, Stage
from shared.settings import Settings
from shared.tables import Dataset, Image, Job, Model, Worker
from shared.version import RENDITION_VERSION, code_version
from shared.vocabulary.flags import Flag
from shared.vocabulary.states import ModelState, WorkerKind
from tests.integration.conftest import Api, png
from tests.integration.rows import add_dataset, home
from tests.waiting import DEADLINE_S, wait_for

#: The sides of the original and of its rendition.
ORIGINAL_PX, RENDITION_PX = 400, 200
BOXES = (
    FoundBox(7, "Lung Opacity", 0.9, (100, 200, 300, 360)),
    FoundBox(3, "Cardiomegaly", 0.4, (0, 0, 400, 400)),
    FoundBox(3, "Cardiomegaly", 0.1, (5, 5, 9, 9)),
)


def add_model(database: Database, name: str, state: ModelState = ModelState.CANDIDATE) -> str:
    with database.begin() as session:
        card = {"categories": [], "code_version": "abc123"}
        model = Model(name=name, digest=name * 16, card=card, weights_sha256="0" * 64, state=state)
        session.add(model)
        session.flush()
        return str(model.id)


def take(database: Database, stage: Stage) -> Claim:
    with database.begin() as session:
        (taken,) = claim(session, stage, "test-worker", limit=1, lease_s=60)
        return taken


def prepare(database: Database, store: ObjectStore) -> bytes:
    """Do what a prepare worker does, with one job; return the rendition."""
    taken = take(database, PREPARE)
    content = png(99, RENDITION_PX)
    sha256 = hashlib.sha256(content).hexdigest()
    store.put(rendition_key(sha256), content)
    rendition = StoredRendition(sha256, RENDITION_VERSION, RENDITION_PX, RENDITION_PX, ORIGINAL_PX, ORIGINAL_PX)
    with database.begin() as session:
        assert mark_ready(session, taken, rendition)
    return content


def detect(database: Database, boxes: tuple[FoundBox, ...] = BOXES) -> None:
    """Do what a detect worker does, with one job."""
    taken = take(database, DETECT)
    with database.begin() as session:
        assert succeed(session, {taken: FoundImage(boxes)}) == {taken.job_id}


def send_one(api: Api, seed: int = 0) -> dict[str, str]:
    (file,) = api.send(("image.png", png(seed, ORIGINAL_PX))).get_json()["files"]
    return file


def test_a_job_tells_its_way(api: Api, database: Database, store: ObjectStore) -> None:
    model = add_model(database, "active", ModelState.ACTIVE)
    file = send_one(api)
    job = api.get(f"/v1/jobs/{file['job_id']}").get_json()
    assert {name: job[name] for name in ("id", "study_id", "image_id")} == {
        "id": file["job_id"],
        "study_id": file["study_id"],
        "image_id": file["image_id"],
    }
    assert (job["state"], job["attempt"], job["priority"], job["model_id"]) == ("queued", 0, 5, None)
    assert job["created_at"].endswith("Z")
    assert job["ready_at"] is job["finished_at"] is job["code"] is job["reason"] is None
    prepare(database, store)
    detect(database)
    job = api.get(f"/v1/jobs/{file['job_id']}").get_json()
    assert (job["state"], job["model_id"]) == ("succeeded", model)
    assert job["created_at"] < job["ready_at"] < job["finished_at"]


def test_a_long_poll_returns_when_the_job_is_final(api: Api, database: Database) -> None:
    file = send_one(api)
    path = f"/v1/jobs/{file['job_id']}"
    began = time.monotonic()
    assert api.get(path, wait=0.3).get_json()["state"] == "queued"
    assert time.monotonic() - began >= 0.3

    canceller = threading.Timer(0.5, lambda: api.post(f"{path}/cancel"))
    canceller.start()
    began = time.monotonic()
    assert api.get(path, wait=60).get_json()["state"] == "cancelled"
    assert time.monotonic() - began < 60
    canceller.join()
    assert api.get(path, wait=60).get_json()["state"] == "cancelled"


def test_long_polls_leave_threads_for_others(make_api: Callable[[Settings], Api], settings: Settings) -> None:
    """Half the threads may wait; the next one is answered at once."""
    api = make_api(settings.model_copy(update={"api_threads": 2}))
    path = f"/v1/jobs/{send_one(api)['job_id']}"
    waiting = threading.Thread(target=lambda: api.get(path, wait=60))
    waiting.start()
    api.wait_for_poll()
    began = time.monotonic()
    assert api.get(path, wait=60).get_json()["state"] == "queued"
    assert time.monotonic() - began < 60
    api.post(f"{path}/cancel")
    waiting.join()


def test_a_job_is_cancelled_once(api: Api, database: Database) -> None:
    path = f"/v1/jobs/{send_one(api)['job_id']}/cancel"
    first, second = api.post(path), api.post(path)
    assert (first.status_code, first.get_json()["state"]) == (200, "cancelled")
    assert first.get_json()["finished_at"]
    assert (second.status_code, second.get_json()["code"]) == (409, "job_is_final")
    with database.begin() as session:
        assert claim(session, PREPARE, "test-worker", limit=1, lease_s=60) == []


def test_a_study_shows_its_images_and_their_jobs(api: Api, database: Database) -> None:
    model = add_model(database, "named")
    file = send_one(api)
    (again,) = api.send(("image.png", png(0, ORIGINAL_PX)), model_id=model).get_json()["files"]
    study = api.get(f"/v1/studies/{file['study_id']}").get_json()
    assert (study["id"], study["study_instance_uid"]) == (file["study_id"], None)
    (image,) = study["images"]
    assert (image["id"], image["media_type"], image["byte_count"]) == (
        file["image_id"],
        "image/png",
        len(png(0, ORIGINAL_PX)),
    )
    assert (image["height_px"], image["width_px"], image["rendition_version"]) == (ORIGINAL_PX, ORIGINAL_PX, None)
    assert [job["id"] for job in image["jobs"]] == [file["job_id"], again["job_id"]]
    assert [job["model_id"] for job in image["jobs"]] == [None, model]


def test_findings_explain_themselves(api: Api, database: Database, store: ObjectStore) -> None:
    model = add_model(database, "active", ModelState.ACTIVE)
    file = send_one(api)
    path = f"/v1/studies/{file['study_id']}/findings"
    (before,) = api.get(path).get_json()["images"]
    assert (before["state"], before["findings"], before["model"]) == ("queued", [], None)
    prepare(database, store)
    detect(database)
    answer = api.get(path).get_json()
    assert (answer["study_id"], answer["notice"]) == (file["study_id"], NOTICE)
    (image,) = answer["images"]
    assert (image["image_id"], image["job_id"], image["state"]) == (file["image_id"], file["job_id"], "succeeded")
    named = {"id": model, "name": "active", "digest": "active" * 16, "state": "active"}
    assert image["model"] == named | {"trained_on": "", "warnings": []}
    assert (image["rendition_version"], image["code_version"]) == (RENDITION_VERSION, code_version())
    assert (image["height_px"], image["width_px"]) == (ORIGINAL_PX, ORIGINAL_PX)
    assert image["findings"] == [
        {
            "class_id": box.class_id,
            "class_name": box.class_name,
            "score": box.score,
            "box_xyxy_px": list(box.box_xyxy_px),
            "box_xyxy_mm": None,
        }
        for box in BOXES
    ]
    (image,) = api.get(path, min_score=0.4).get_json()["images"]
    assert [finding["score"] for finding in image["findings"]] == [0.9, 0.4]


def test_findings_are_of_the_active_model_or_of_the_one_that_is_named(
    api: Api, database: Database, store: ObjectStore
) -> None:
    add_model(database, "active", ModelState.ACTIVE)
    other, third = add_model(database, "other"), add_model(database, "third")
    file = send_one(api)
    prepare(database, store)
    detect(database)
    (second,) = api.send(("image.png", png(0, ORIGINAL_PX)), model_id=other).get_json()["files"]
    detect(database, BOXES[:1])
    path = f"/v1/studies/{file['study_id']}/findings"
    (image,) = api.get(path).get_json()["images"]
    assert (image["job_id"], len(image["findings"])) == (file["job_id"], 3)
    (named,) = api.get(path, model_id=other).get_json()["images"]
    assert (named["job_id"], len(named["findings"])) == (second["job_id"], 1)
    (none,) = api.get(path, model_id=third).get_json()["images"]
    assert none["job_id"] is none["state"] is None


def test_a_job_that_gave_way_to_another_hides_no_findings(api: Api, database: Database, store: ObjectStore) -> None:
    """One job names the active model, one does not; whichever ends last is cancelled."""
    model = add_model(database, "active", ModelState.ACTIVE)
    file = send_one(api)
    (named,) = api.send(("image.png", png(0, ORIGINAL_PX)), model_id=model).get_json()["files"]
    assert named["outcome"] == "accepted"
    for _ in range(2):
        prepare(database, store)
    first = take(database, DETECT)
    second = take(database, DETECT)
    for taken in (first, second):
        with database.begin() as session:
            succeed(session, {taken: FoundImage(BOXES)})
    assert api.get(f"/v1/jobs/{second.job_id}").get_json()["code"] == "duplicate"
    (image,) = api.get(f"/v1/studies/{file['study_id']}/findings").get_json()["images"]
    assert (image["job_id"], len(image["findings"])) == (str(first.job_id), 3)
    (again,) = api.send(("image.png", png(0, ORIGINAL_PX))).get_json()["files"]
    assert (again["outcome"], again["job_id"]) == ("duplicate", str(first.job_id))


def test_the_rendition_is_shown_as_it_is_stored(api: Api, database: Database, store: ObjectStore) -> None:
    path = f"/v1/images/{send_one(api)['image_id']}/rendition.png"
    early = api.get(path)
    assert (early.status_code, early.get_json()["code"]) == (409, "not_ready")
    content = prepare(database, store)
    response = api.get(path)
    assert (response.status_code, response.content_type, response.data) == (200, "image/png", content)


def test_the_overlay_draws_boxes_where_they_are_on_the_rendition(
    api: Api, database: Database, store: ObjectStore
) -> None:
    add_model(database, "active", ModelState.ACTIVE)
    path = f"/v1/images/{send_one(api)['image_id']}/overlay.png"
    assert api.get(path).get_json()["code"] == "not_ready"
    content = prepare(database, store)
    assert api.get(path).get_json()["code"] == "not_ready"
    detect(database, BOXES[:1])
    with PIL.Image.open(BytesIO(content)) as picture:
        plain = np.asarray(picture.convert("RGB")).astype(int)

    def changed(**query: float):
        response = api.get(path, **query)
        assert (response.status_code, response.content_type) == (200, "image/png")
        with PIL.Image.open(BytesIO(response.data)) as picture:
            drawn = np.asarray(picture.convert("RGB")).astype(int)
        return np.abs(drawn[:RENDITION_PX, :RENDITION_PX] - plain).max(axis=2) > 8

    assert not changed(min_score=0.95).any()
    marked = changed()
    # On the rendition the box is (50, 100)–(150, 180), its label above it.
    assert marked[102:179, 50].all()
    assert marked[102:179, 149].all()
    assert marked[179, 50:150].all()
    assert not marked[110:170, 60:140].any()
    assert not marked[:60].any()


def test_an_overlay_is_drawn_again_only_when_it_would_look_different(
    api: Api, database: Database, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_model(database, "active", ModelState.ACTIVE)
    path = f"/v1/images/{send_one(api)['image_id']}/overlay.png"
    prepare(database, store)
    detect(database, BOXES[:1])
    first = api.get(path)
    assert first.headers["Cache-Control"] == "private, no-cache"
    monkeypatch.setattr(images, "draw_overlay", lambda *_: pytest.fail("It was drawn although it is known."))
    known = {"If-None-Match": first.headers["ETag"]}
    again = api._http.get(path, headers=api._headers | known)
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    monkeypatch.undo()
    other = api._http.get(path, headers=api._headers | known, query_string={"min_score": 0.95})
    assert other.status_code == 200
    assert other.headers["ETag"] != first.headers["ETag"]


def test_no_more_overlays_are_drawn_at_once_than_there_are_cores(
    api: Api, database: Database, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_model(database, "active", ModelState.ACTIVE)
    path = f"/v1/images/{send_one(api)['image_id']}/overlay.png"
    prepare(database, store)
    detect(database, BOXES[:1])
    draw, lock, cores = draw_overlay, threading.Lock(), len(os.sched_getaffinity(0))
    at_once: list[int] = []
    drawing = 0

    def count(*arguments: Any) -> bytes:
        nonlocal drawing
        with lock:
            drawing += 1
            at_once.append(drawing)
        try:
            return draw(*arguments)
        finally:
            with lock:
                drawing -= 1

    monkeypatch.setattr(images, "draw_overlay", count)
    with ThreadPoolExecutor(4 * cores) as threads:
        answers = [threads.submit(api.get, path) for _ in range(4 * cores)]
        assert {answer.result(DEADLINE_S).status_code for answer in answers} == {200}
    assert max(at_once) <= cores


def test_a_rendition_that_the_store_has_lost_is_a_503(api: Api, database: Database, store: ObjectStore) -> None:
    path = f"/v1/images/{send_one(api)['image_id']}/rendition.png"
    prepare(database, store)
    with database.begin() as session:
        session.execute(sa.text("UPDATE image SET rendition_sha256 = repeat('0', 64)"))
    response = api.get(path)
    assert (response.status_code, response.get_json()["code"]) == (503, "object_missing")


def test_models_are_listed_newest_first(api: Api, database: Database) -> None:
    old, new = add_model(database, "old", ModelState.ACTIVE), add_model(database, "new")
    models = api.get("/v1/models").get_json()["models"]
    assert [(model["id"], model["state"]) for model in models] == [(new, "candidate"), (old, "active")]
    assert models[0]["card"]["code_version"] == "abc123"


def metrics_of(api: Api) -> dict[tuple[str, str], float]:
    """Every sample by its name and its label's value."""
    response = api.get("/metrics")
    assert response.status_code == 200
    families = text_string_to_metric_families(response.get_data(as_text=True))
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_metrics_count_jobs_waiting_and_work(api: Api, database: Database, store: ObjectStore) -> None:
    assert metrics_of(api)["carina_jobs", "queued"] == 0
    add_model(database, "active", ModelState.ACTIVE)
    send_one(api, 0)
    prepare(database, store)
    detect(database)
    send_one(api, 1)
    prepare(database, store)
    send_one(api, 2)
    with database.begin() as session:
        hour, minute = sa.text("now() - interval '1 hour'"), sa.text("now() - interval '1 minute'")
        session.execute(sa.update(Job).values(created_at=hour))
        session.execute(sa.update(Job).where(Job.ready_at.is_not(None)).values(ready_at=minute))
        work = {"batches": 4, "images": 10, "step_s": 2.5}
        session.add(Worker(id="a", stage=WorkerKind.DETECT, **work))
        session.add(Worker(id="b", stage=WorkerKind.DETECT, **work, stopped_at=sa.func.now()))
        session.add(Worker(id="c", stage=WorkerKind.SWEEP, expired_leases=3))
        session.add(Worker(id="d", stage=WorkerKind.TRAIN))
        doubtful = sa.select(sa.func.min(sa.cast(Image.id, sa.Text)).cast(sa.Uuid)).scalar_subquery()
        session.execute(sa.update(Image).where(Image.id == doubtful).values(flags=[Flag.ROTATED, Flag.LATERAL_VIEW]))
        add_dataset(session)
        session.add(Dataset(project_id=home(session), name="films", source={}, created_at=hour))
    wait_for(lambda: metrics_of(api)["carina_jobs", "queued"])  # the numbers are kept for a moment
    found = metrics_of(api)
    assert [found["carina_jobs", state] for state in ("queued", "ready", "succeeded", "failed")] == [1, 1, 1, 0]
    flagged = [found["carina_flagged_images", flag] for flag in (Flag.ROTATED, Flag.LATERAL_VIEW, Flag.NOT_A_CHEST)]
    assert flagged == [1, 1, 0]
    assert found["carina_oldest_waiting_seconds", "prepare"] == pytest.approx(3600, abs=60)
    assert found["carina_oldest_waiting_seconds", "detect"] == pytest.approx(60, abs=50)
    assert (found["carina_batch_size_sum", "detect"], found["carina_batch_size_count", "detect"]) == (20, 8)
    assert (found["carina_step_seconds_sum", "detect"], found["carina_step_seconds_count", "detect"]) == (5.0, 8)
    assert found["carina_workers", "detect"] == 1
    assert found["carina_workers", "train"] == 1
    assert found[("carina_lease_expiries_total",)] == 3
    assert found["carina_tasks", "dataset", "queued"] == found["carina_tasks", "dataset", "succeeded"] == 1
    assert found["carina_tasks", "training", "queued"] == 0
    assert found["carina_oldest_waiting_task_seconds", "dataset"] == pytest.approx(3600, abs=60)


def test_ready_names_each_server_that_does_not_answer_in_bounded_time(
    make_api: Callable[[Settings], Api], settings: Settings
) -> None:
    assert make_api(settings).get("/readyz").get_json()["status"] == "ready"
    with socket.socket() as silent:  # takes connections, and never says a word
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        nowhere = {
            "database_url": settings.database_url.__class__(f"postgresql://x@127.0.0.1:{port}/x"),
            "redis_url": settings.redis_url.__class__(f"redis://127.0.0.1:{port}/0"),
            "s3_endpoint_url": "http://127.0.0.1:1",
        }
        api = make_api(settings.model_copy(update=nowhere))
        for _ in range(2):
            began = time.monotonic()
            response = api.get("/readyz")
            assert time.monotonic() - began < 60
            assert response.status_code == 503
            answer = response.get_json()
            assert answer["status"] == "not_ready"
            states = answer["dependencies"]
            assert {name: state["ok"] for name, state in states.items()} == dict.fromkeys(states, False)
            assert states["object_store"]["code"] == "object_store_unavailable"
            assert states["database"]["code"] == "no_answer_in_time"
        assert api.get("/healthz").status_code == 200
