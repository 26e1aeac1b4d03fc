"""Trainings and evaluations over HTTP: asking for them, where they stand, what came of them."""

import hashlib
import json
from datetime import timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa

from shared.database import Database
from shared.ids import new_id
from shared.object_store import ObjectStore, dataset_key, result_key, weights_key
from shared.tables import Evaluation, TrainingRun
from shared.training.config import TrainingConfig
from shared.training.recipes import RECIPES
from shared.training.tasks import claim_task
from shared.vocabulary.states import ModelState, TaskState
from tests.integration.conftest import Api, Keys
from tests.integration.rows import add_dataset, add_model


@pytest.fixture
def trainer(api: Api, keys: Keys, database: Database) -> Api:
    """The API under a key that may do everything, with a dataset `images`."""
    with database.begin() as session:
        add_dataset(session)
    return api.as_(keys.system)


def train(api: Api, **body: object) -> UUID:
    answer = api.post("/v1/trainings", {"dataset": "films", "config": {"initial_weights": "none"}} | body)
    assert answer.status_code == 202, answer.get_json()
    return UUID(answer.get_json()["id"])


def change(database: Database, row: type[TrainingRun] | type[Evaluation], id_: UUID, **values: object) -> None:
    with database.begin() as session:
        session.execute(sa.update(row).where(row.id == id_).values(**values))


def keep(store: ObjectStore, content: bytes, suffix: str) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    store.put(result_key(sha256, suffix), content)
    return sha256


def test_a_training_is_its_recipe_with_what_is_to_differ(trainer: Api, database: Database) -> None:
    changes = {"initial_weights": "none", "epochs": 2, "augmentation": {"rotate_deg": 5}}
    training_id = train(trainer, recipe="reference", config=changes, name="my model")
    answer = trainer.get(f"/v1/trainings/{training_id}").get_json()
    assert (answer["state"], answer["name"], answer["progress"]) == ("queued", "my model", {})
    config = TrainingConfig.model_validate(answer["config"])
    reference = RECIPES["reference"]
    augmentation = reference.augmentation.model_copy(update={"rotate_deg": 5})
    expected = {"initial_weights": "none", "epochs": 2, "augmentation": augmentation}
    assert config == reference.model_copy(update=expected)
    assert answer["config_digest"] == config.digest

    change(database, TrainingRun, training_id, state=TaskState.QUEUED, progress={"epoch": 1, "loss": 0.5, "eta_s": 60})
    assert trainer.get(f"/v1/trainings/{training_id}").get_json()["progress"]["eta_s"] == 60


def test_a_gate_is_held_out_of_the_training(trainer: Api, database: Database) -> None:
    with database.begin() as session:
        met = add_dataset(session, "held out").id
    gate = {"evaluation_dataset_id": str(met), "least_gain": 0.01}
    answer = trainer.get(f"/v1/trainings/{train(trainer, gate=gate)}").get_json()
    assert answer["gate"]["least_gain"] == 0.01
    assert answer["config"]["held_out"] == [{"dataset_id": str(met), "split": "val"}]


def test_what_cannot_be_trained_is_refused_with_a_reason(trainer: Api, database: Database) -> None:
    with database.begin() as session:
        add_dataset(session, "half-made", state=TaskState.FAILED)
    nobody, nowhere = f"model:{new_id()}", f"object:{'0' * 64}"
    for body, status, code, detail in (
        ({"dataset": "x-rays"}, 404, "not_found", "'x-rays'"),
        ({"dataset": "half-made"}, 409, "not_ready", "half-made"),
        ({"recipe": "cake"}, 422, "invalid_request", "there are default, reference"),
        ({"config": {"epochs": 0}}, 422, "invalid_request", "epochs: Input should be greater than or equal to 1"),
        ({"config": {"epoch": 3}}, 422, "invalid_request", "epoch: Extra inputs are not permitted"),
        ({"config": {"initial_weights": "/etc/passwd"}}, 422, "invalid_request", "initial_weights"),
        ({"config": {"initial_weights": nobody}}, 404, "not_found", "There is no model"),
        ({"config": {"initial_weights": nowhere}}, 404, "not_found", "The object store holds no models/00"),
        ({"config": {"evaluate_split": "train"}}, 422, "invalid_request", "not evaluated on what it was trained on"),
        ({"gate": {"evaluation_dataset_id": str(new_id())}}, 404, "not_found", "There is no dataset"),
        ({"gate": {"least_gain": 0.1}}, 422, "invalid_request", "not valid"),
        ({"data_set": "films"}, 422, "invalid_request", "not valid"),
    ):
        answer = trainer.post("/v1/trainings", {"dataset": "films", "config": {"initial_weights": "none"}} | body)
        problem = answer.get_json()
        assert (answer.status_code, problem["code"]) == (status, code), problem
        assert detail in problem["detail"]
        if status == 422 and "recipe" not in body:
            assert problem["errors"], body
    assert trainer.get("/v1/trainings").get_json()["trainings"] == []


def test_a_body_that_is_no_json_or_too_large_is_refused(trainer: Api) -> None:
    assert trainer.post("/v1/trainings").get_json()["code"] == "invalid_request"
    too_large = trainer.post("/v1/trainings", {"dataset": "x" * 2_000_000})
    assert (too_large.status_code, too_large.get_json()["code"]) == (413, "request_entity_too_large")


def test_weights_that_the_store_holds_may_be_started_from(trainer: Api, store: ObjectStore) -> None:
    sha256 = hashlib.sha256(b"weights").hexdigest()
    store.put(weights_key(sha256), b"weights")
    training_id = train(trainer, config={"initial_weights": f"object:{sha256}"})
    assert trainer.get(f"/v1/trainings/{training_id}").get_json()["config"]["initial_weights"] == f"object:{sha256}"


def test_trainings_are_listed_newest_first_page_by_page(trainer: Api) -> None:
    ids = [str(train(trainer)) for _ in range(5)]
    seen: list[str] = []
    query: dict[str, object] = {}
    sizes = []
    while True:
        page = trainer.get("/v1/trainings", limit=2, **query).get_json()
        seen += [training["id"] for training in page["trainings"]]
        sizes.append(len(page["trainings"]))
        if page["next"] is None:
            break
        query = {"before": page["next"]}
        train(trainer)  # what is added meanwhile shifts nothing
    assert seen == ids[::-1]
    assert sizes == [2, 2, 1]


def test_a_waiting_training_is_cancelled_once(trainer: Api) -> None:
    training_id = train(trainer)
    cancelled = trainer.post(f"/v1/trainings/{training_id}/cancel").get_json()
    assert cancelled["state"] == "cancelled"
    assert cancelled["finished_at"]
    again = trainer.post(f"/v1/trainings/{training_id}/cancel")
    assert (again.status_code, again.get_json()["code"]) == (409, "task_is_final")
    assert trainer.post(f"/v1/trainings/{new_id()}/cancel").status_code == 404


def test_a_training_that_failed_or_was_cancelled_is_resumed_before_later_ones(trainer: Api, database: Database) -> None:
    first, later = train(trainer), train(trainer)
    path = f"/v1/trainings/{first}/resume"
    refused = trainer.post(path)
    assert (refused.status_code, refused.get_json()["code"]) == (409, "task_not_resumable"), "it waits already"
    old = {"epoch": 3, "eta_s": 60, "ap40": 0.25}
    for state in (TaskState.CANCELLED, TaskState.FAILED):
        loss = {"losses": 4, "code": "trainer_process_lost", "reason": "It ended."} if state == TaskState.FAILED else {}
        change(database, TrainingRun, first, state=state, attempt=4, finished_at=sa.func.now(), progress=old, **loss)
        answer = trainer.post(path)
        assert answer.status_code == 202, answer.get_json()
        resumed = answer.get_json()
        assert (resumed["state"], resumed["finished_at"]) == ("interrupted", None)
        assert (resumed["progress"], resumed["code"]) == ({"ap40": 0.25}, loss.get("code"))
    with database.begin() as session:
        claims = [claim_task(session, "trainer", lease_s=60) for _ in range(2)]
        assert [claim.task_id for claim in claims if claim] == [first, later]
        assert session.get_one(TrainingRun, first).losses == 0
        session.get_one(TrainingRun, first).state = TaskState.SUCCEEDED
        session.get_one(TrainingRun, first).lease_owner = session.get_one(TrainingRun, first).lease_expires_at = None
    assert trainer.post(path).status_code == 409
    assert trainer.post(f"/v1/trainings/{new_id()}/resume").status_code == 404


def test_log_and_event_files_can_be_read(trainer: Api, database: Database, store: ObjectStore) -> None:
    training_id = train(trainer)
    sha256 = keep(store, b"events", "tfevents")
    change(database, TrainingRun, training_id, log_tail="one\ntwo <2>", events={"1": sha256, "10": sha256})
    log = trainer.get(f"/v1/trainings/{training_id}/log")
    assert (log.mimetype, log.get_data(as_text=True)) == ("text/plain", "one\ntwo <2>")
    assert trainer.get(f"/v1/trainings/{training_id}").get_json()["events"] == [1, 10]
    assert trainer.get(f"/v1/trainings/{training_id}/events/10").data == b"events"
    assert trainer.get(f"/v1/trainings/{training_id}/events/2").status_code == 404


def test_a_run_of_a_schedule_says_how_late_it_was(trainer: Api, database: Database) -> None:
    training_id = train(trainer)
    assert trainer.get(f"/v1/trainings/{training_id}").get_json()["late_s"] is None
    change(database, TrainingRun, training_id, due_at=TrainingRun.created_at - timedelta(hours=2))
    assert trainer.get(f"/v1/trainings/{training_id}").get_json()["late_s"] == 7200


def test_the_active_model_or_a_named_one_is_evaluated(trainer: Api, database: Database) -> None:
    missing = trainer.post("/v1/evaluations", {"dataset": "films"})
    assert (missing.status_code, missing.get_json()["detail"]) == (404, "No model is active.")
    with database.begin() as session:
        active = add_model(session, "active", ModelState.ACTIVE).id
        other = add_model(session, "other").id
    first = trainer.post("/v1/evaluations", {"dataset": "films"}).get_json()
    assert (first["model_id"], first["state"], first["config"]["split"]) == (str(active), "queued", "val")
    body = {"dataset": "films", "model": str(other), "config": {"split": "test", "bootstrap_samples": 10}}
    second = trainer.post("/v1/evaluations", body).get_json()
    assert (second["model_id"], second["config"]["split"]) == (str(other), "test")
    listed = trainer.get("/v1/evaluations").get_json()
    assert [each["id"] for each in listed["evaluations"]] == [second["id"], first["id"]]
    for wrong in ({"model": "newest"}, {"config": {"split": "all"}}, {"dataset": 3}):
        assert trainer.post("/v1/evaluations", {"dataset": "films"} | wrong).status_code == 422
    assert trainer.post("/v1/evaluations", {"dataset": "films", "model": str(new_id())}).status_code == 404
    assert trainer.post(f"/v1/evaluations/{first['id']}/cancel").get_json()["state"] == "cancelled"


def test_a_report_is_shown_that_may_run_nothing(trainer: Api, database: Database, store: ObjectStore) -> None:
    with database.begin() as session:
        add_model(session, state=ModelState.ACTIVE)
    evaluation = trainer.post("/v1/evaluations", {"dataset": "films"}).get_json()
    path = f"/v1/evaluations/{evaluation['id']}"
    for what in ("report", "detections"):
        early = trainer.get(f"{path}/{what}")
        assert (early.status_code, early.get_json()["code"]) == (409, "not_ready")
    change(
        database,
        Evaluation,
        UUID(evaluation["id"]),
        state=TaskState.SUCCEEDED,
        metrics={"images": 3},
        report_sha256=keep(store, b"<h1>report</h1>", "html"),
        detections_sha256=keep(store, b'{"1": []}', "json"),
    )
    assert trainer.get(path).get_json()["metrics"] == {"images": 3}
    assert trainer.get(f"{path}/detections").get_json() == {"1": []}
    report = trainer.get(f"{path}/report")
    assert (report.mimetype, report.data) == ("text/html", b"<h1>report</h1>")
    policy = dict(part.strip().split(" ", 1) for part in report.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == "data:"
    assert "script-src" not in policy
    assert report.headers["X-Content-Type-Options"] == "nosniff"


def test_detections_are_shown_in_every_format(trainer: Api, database: Database, store: ObjectStore) -> None:
    """Images of other splits and classes that only the model knows are left out."""
    document = json.dumps({"images": [{"id": id_, "file_name": f"{id_}.png", "split": split} for id_, split in SPLITS]})
    with database.begin() as session:
        add_model(session, state=ModelState.ACTIVE)
        add_dataset(session, "named", content=document)
    store.put(dataset_key(hashlib.sha256(document.encode()).hexdigest()), document.encode())
    body = {"dataset": "named", "config": {"split": "test"}}
    evaluation_id = trainer.post("/v1/evaluations", body).get_json()["id"]
    box = {"category_ids": [3, 15], "boxes_xyxy": [[1, 2, 30, 40.5], [1, 1, 9, 9]], "scores": [0.25, 0.75]}
    stored = {"format": "carina.boxes.1", "precision": "double", "images": [{"image_id": 2} | box]}
    metrics = {"categories": [{"id": 3, "name": "Cardiomegaly"}], "score_threshold": 0.001}
    detections_sha256 = keep(store, json.dumps(stored).encode(), "json")
    change(
        database,
        Evaluation,
        UUID(evaluation_id),
        state=TaskState.SUCCEEDED,
        metrics=metrics,
        detections_sha256=detections_sha256,
    )
    path = f"/v1/evaluations/{evaluation_id}/detections"
    assert trainer.get(path).get_json() == stored
    kaggle = trainer.get(path, format="kaggle")
    assert kaggle.mimetype == "text/csv"
    assert kaggle.text.splitlines() == [
        "image_id,PredictionString",
        "2.png,3 0.25 1.0 2.0 30.0 40.5 14 0.75 0 0 1 1",
        "3.png,14 1.0 0 0 1 1",
    ]
    found = trainer.get(path, format="coco").get_json()
    assert found == [{"image_id": 2, "category_id": 3, "bbox": [1, 2, 29, 38.5], "score": 0.25}]
    metrics["categories"] = [{"id": 14, "name": "Edema"}]
    change(database, Evaluation, UUID(evaluation_id), metrics=metrics)
    refused = trainer.get(path, format="kaggle")
    assert (refused.status_code, refused.get_json()["code"]) == (409, "no_finding_id_taken")
    assert trainer.get(path, format="voc").status_code == 422


SPLITS = ((1, "train"), (2, "test"), (3, "test"))
