"""Reviews through the API: what readers add, what is refused, and what training gets of it."""

import json
from collections.abc import Callable
from uuid import UUID, uuid4

import numpy as np
import pytest
import sqlalchemy as sa

from shared.access.keys import create_key, verify_key
from shared.database import Database
from shared.imaging.rendition import read_rendition
from shared.object_store import ObjectStore, rendition_key
from shared.settings import Settings
from shared.tables import Dataset, Image, Job
from shared.training.config import Augmentation
from shared.vocabulary.review_actions import ReviewAction
from shared.vocabulary.states import Scope, TaskState
from tests.integration.conftest import Api, Keys
from tests.integration.rows import add_image, add_result
from tests.integration.trainers import trainer, wait_for_task
from tests.integration.workshop import HEIGHT_PX, WIDTH_PX, Workshop, dicom
from tests.tiny_model import CATEGORIES, make_tiny_model
from trainer.datasets.dataset import parse
from trainer.loader import Loader
from trainer.sampling import Share

BOX = [10.0, 20.0, 40.0, 60.0]


class Reader:
    """Somebody who reviews one image, and has always seen the last event."""

    def __init__(self, api: Api, image_id: str) -> None:
        self.api = api
        self.path = f"/v1/images/{image_id}/reviews"
        self.review = self.ask(self.api.get(self.path), 200)

    def ask(self, answer, status: int):
        assert answer.status_code == status, answer.get_json()
        return answer.get_json()

    def say(self, action: str, status: int = 201, **event: object):
        body = {**self._seen(), "event": {"action": action, **event}}
        return self._took(self.ask(self.api.post(self.path, body), status))

    def undo(self, status: int = 201):
        return self._took(self.ask(self.api.post(f"{self.path}/undo", self._seen()), status))

    def redo(self, status: int = 201):
        return self._took(self.ask(self.api.post(f"{self.path}/redo", self._seen()), status))

    def look(self) -> None:
        """See what others have said."""
        self.review = self.ask(self.api.get(self.path), 200)

    def verdicts(self) -> dict[str, str]:
        return {finding["id"]: finding["verdict"] for finding in self.review["findings"]}

    def _seen(self) -> dict[str, object]:
        return {"job_id": self.review["job_id"], "after": self.review["last_event"]}

    def _took(self, answer):
        self.review = answer if "findings" in answer else self.review
        return answer


@pytest.fixture
def image_id(database: Database, keys: Keys) -> str:
    """An image on which a model has found three boxes."""
    with database.begin() as session:
        image = add_image(session, verify_key(session, keys.both).project_id, height_px=HEIGHT_PX, width_px=WIDTH_PX)
        add_result(session, image, "first")
        return str(image.id)


@pytest.fixture
def reader(api: Api, image_id: str) -> Reader:
    return Reader(api, image_id)


@pytest.fixture
def other(api: Api, image_id: str, database: Database) -> Reader:
    """A second reader of the same image."""
    with database.begin() as session:
        key = create_key(session, project_name="ward", name="boris", scopes=(Scope.SUBMIT, Scope.READ))
    return Reader(api.as_(key), image_id)


def test_what_a_reader_says_is_kept_with_who_and_when(reader: Reader, keys: Keys, database: Database) -> None:
    assert set(reader.verdicts().values()) == {"undecided"}
    reader.say("accept", finding_id="model-0")
    reader.say("reject", finding_id="model-1")
    reader.say("change", finding_id="model-2", box_xyxy_px=BOX)
    reader.say("draw", class_id=7, box_xyxy_px=BOX)
    assert reader.verdicts() == {
        "model-0": "accepted",
        "model-1": "rejected",
        "model-2": "accepted",
        "drawn-4": "accepted",
    }
    changed, drawn = reader.review["findings"][2:]
    assert (changed["box_xyxy_px"], changed["is_changed"]) == (BOX, True)
    assert (drawn["class_name"], drawn["score"]) == ("Opacity", None)
    with database.begin() as session:
        key_id = str(verify_key(session, keys.both).key_id)
    events = reader.review["events"]
    assert [event["action"] for event in events] == ["accept", "reject", "change", "draw"]
    assert {event["api_key_id"] for event in events} == {key_id}
    assert events[0]["reader"] == "submit and read"
    assert events[0]["created_at"].endswith("Z")
    again = Reader(reader.api, reader.review["image_id"])
    assert again.review == reader.review


def test_every_change_is_audited_by_what_it_says(reader: Reader, keys: Keys) -> None:
    reader.say("accept", finding_id="model-0")
    (event,) = reader.api.as_(keys.admin).get("/v1/audit-events", action="reviews.add").get_json()["events"]
    assert event["subject"] == {
        "image_id": reader.review["image_id"],
        "job_id": reader.review["job_id"],
        "event": 1,
        "said": "accept",
    }


@pytest.mark.parametrize(
    "event",
    [
        {"action": "draw", "class_id": 7, "box_xyxy_px": [10, 20, WIDTH_PX + 1, 60]},
        {"action": "draw", "class_id": 7, "box_xyxy_px": [-1, 20, 40, HEIGHT_PX]},
        {"action": "draw", "class_id": 7, "box_xyxy_px": [40, 20, 40, 60]},
        {"action": "draw", "class_id": 7, "box_xyxy_px": ["nan", 20, 40, 60]},
        {"action": "draw", "class_id": 8, "box_xyxy_px": BOX},
        {"action": "change", "finding_id": "model-0", "class_id": 8},
        {"action": "change", "finding_id": "model-00", "class_id": 7},
        {"action": "praise", "finding_id": "model-0"},
        {"action": "accept"},
    ],
)
def test_what_cannot_be_is_refused_and_not_kept(reader: Reader, event: dict[str, object]) -> None:
    answer = reader.say(status=422, **event)
    assert answer["code"] == "invalid_request"
    reader.look()
    assert reader.review["last_event"] == 0


def test_a_box_may_be_as_large_as_the_image(reader: Reader) -> None:
    reader.say("draw", class_id=30, box_xyxy_px=[0, 0, WIDTH_PX, HEIGHT_PX])
    assert reader.review["findings"][-1]["box_xyxy_px"] == [0, 0, WIDTH_PX, HEIGHT_PX]


def test_a_finding_that_is_not_there_is_not_found(reader: Reader) -> None:
    assert reader.say("accept", 404, finding_id="model-3")["code"] == "not_found"
    assert reader.say("accept", 404, finding_id="drawn-1")["code"] == "not_found"


def test_an_image_without_a_result_cannot_be_reviewed(api: Api, image_id: str) -> None:
    (file,) = api.send(("later.dcm", dicom(9))).get_json()["files"]
    path = f"/v1/images/{file['image_id']}/reviews"
    assert api.get(path).get_json()["code"] == "not_ready"
    theirs = Reader(api, image_id).review["job_id"]
    answer = api.post(path, {"job_id": theirs, "after": 0, "event": {"action": "no_finding"}})
    assert (answer.status_code, answer.get_json()["code"]) == (409, "not_ready")


def test_two_readers_at_once_lose_nothing_and_overwrite_nothing(reader: Reader, other: Reader) -> None:
    reader.say("reject", finding_id="model-0")
    other.say("accept", finding_id="model-1")  # another finding: added behind
    assert other.verdicts() == {"model-0": "rejected", "model-1": "accepted", "model-2": "undecided"}
    reader.say("draw", class_id=7, box_xyxy_px=BOX)
    stale = other.review["last_event"] - 2
    body = {"job_id": other.review["job_id"], "after": stale, "event": {"action": "accept", "finding_id": "model-0"}}
    refused = other.api.post(other.path, body)
    assert (refused.status_code, refused.get_json()["code"]) == (409, "review_conflict")
    assert other.say("no_finding", 409)["code"] == "review_conflict"  # a box was drawn meanwhile
    other.look()
    other.say("accept", finding_id="model-0")
    assert other.verdicts()["model-0"] == "accepted"


def test_an_undo_takes_back_ones_own_last_word_and_a_redo_says_it_again(reader: Reader, other: Reader) -> None:
    reader.say("accept", finding_id="model-0")
    other.say("accept", finding_id="model-1")
    reader.say("reject", finding_id="model-2")
    reader.undo()
    assert reader.verdicts() == {"model-0": "accepted", "model-1": "accepted", "model-2": "undecided"}
    reader.undo()
    assert reader.verdicts() == {"model-0": "undecided", "model-1": "accepted", "model-2": "undecided"}
    assert (reader.review["may_undo"], reader.review["may_redo"]) == (False, True)
    assert reader.undo(409)["code"] == "nothing_to_take_back"
    reader.redo()
    reader.redo()
    assert reader.verdicts()["model-2"] == "rejected"
    assert reader.redo(409)["code"] == "nothing_to_take_back"
    assert len(reader.review["events"]) == 7  # nothing is ever taken out


def test_what_somebody_has_built_on_is_not_taken_back(reader: Reader, other: Reader) -> None:
    reader.say("draw", class_id=7, box_xyxy_px=BOX)
    other.look()
    other.say("change", finding_id="drawn-1", class_id=12)
    assert reader.undo(409)["code"] == "review_conflict"
    other.undo()
    reader.undo()
    assert "drawn-1" not in reader.verdicts()


def test_a_review_is_done_when_every_finding_that_was_looked_at_is_decided(reader: Reader) -> None:
    second = reader.review["findings"][1]["score"]
    reader.say("accept", finding_id="model-0")
    assert reader.say("complete", 409, min_score=second)["code"] == "review_incomplete"
    reader.say("reject", finding_id="model-1")
    reader.say("complete", min_score=second)
    assert (reader.review["is_complete"], reader.review["complete_from_score"]) == (True, second)
    reader.undo()
    assert not reader.review["is_complete"]
    reader.say("no_finding")
    assert reader.review["is_complete"]
    assert set(reader.verdicts().values()) == {"rejected"}


def test_a_list_of_studies_says_how_far_reviews_are(reader: Reader, database: Database) -> None:
    def told() -> str | None:
        (study,) = reader.api.get("/v1/studies").get_json()["studies"]
        return study["review"]

    assert told() is None
    reader.say("accept", finding_id="model-0")
    assert told() == "begun"
    reader.say("no_finding")
    assert told() == "done"
    with database.begin() as session:  # of which nothing is said yet
        add_result(session, session.get_one(Image, UUID(reader.review["image_id"])), "second")
    assert told() == "done"
    reader.undo()
    assert told() == "begun"
    reader.undo()
    assert told() is None


def test_each_result_has_a_review_of_its_own_and_the_last_one_reviewed_is_shown(
    reader: Reader, database: Database
) -> None:
    reader.say("accept", finding_id="model-0")
    with database.begin() as session:
        image = session.get_one(Image, UUID(reader.review["image_id"]))
        add_result(session, image, "second")
        jobs = set(session.scalars(sa.select(Job.id).where(Job.image_id == image.id)))
    assert Reader(reader.api, reader.review["image_id"]).review == reader.review
    (second,) = jobs - {UUID(reader.review["job_id"])}
    answer = reader.api.get(reader.path, job_id=second).get_json()
    assert (answer["model"]["name"], answer["last_event"]) == ("second", 0)
    assert {finding["verdict"] for finding in answer["findings"]} == {"undecided"}


def find_boxes(api: Api, workshop: Workshop, images: int) -> list[str]:
    """Have the tiny model find three boxes on each of so many images; return the images."""
    sent = api.send(*((f"{number}.dcm", dicom(number)) for number in range(images))).get_json()["files"]
    with workshop.preparing() as prepare:
        prepare.run()
    with workshop.detecting() as detect:
        detect.run()
    return [file["image_id"] for file in sent]


@pytest.mark.usefixtures("tiny_model_id", "operator")
def test_corrections_become_training_data(
    api: Api,
    workshop: Workshop,
    keys: Keys,
    settings: Settings,
    database: Database,
    store: ObjectStore,
    environ: dict[str, str],
    carina: Callable[..., str],
) -> None:
    """From the detection by way of the review to the batch that a training sees."""
    first, second, third = find_boxes(api, workshop, 3)
    reader = Reader(api, first)
    reader.say("change", finding_id="model-0", class_id=12, box_xyxy_px=[10.3, 20.7, 40.1, 60.9])
    reader.say("reject", finding_id="model-1")
    reader.say("reject", finding_id="model-2")
    reader.say("draw", class_id=7, box_xyxy_px=[1, 2, 33.25, 44])
    reader.say("complete")
    Reader(api, second).say("no_finding")
    Reader(api, third).say("accept", finding_id="model-0")  # not done

    training = api.as_(keys.admin)
    foreign = {"format": "reviews", "project_id": str(uuid4())}
    refused = training.post("/v1/datasets", {"name": "corrections", "source": foreign})
    assert (refused.status_code, refused.get_json()["code"]) == (422, "invalid_request")
    plan = {"train": 0.5, "val": 0.5, "test": 0}
    queued = training.post("/v1/datasets", {"name": "corrections", "source": {"format": "reviews", "splits": plan}})
    assert queued.status_code == 202
    dataset_id = UUID(queued.get_json()["id"])
    with trainer(environ):
        wait_for_task(database, Dataset, dataset_id, lambda row: TaskState(row.state).is_final, settings)
        said = carina("dataset", "reviews", "--name", "corrections", "--val-share", "0.5", "--test-share", "0")
    assert "corrections: 2 images, 2 boxes" in said

    answer = training.get(f"/v1/datasets/{dataset_id}").get_json()
    assert (answer["state"], answer["image_count"], answer["box_count"]) == ("succeeded", 2, 2), answer["reason"]
    assert answer["summary"]["noted"] == {"review_incomplete": 1}
    assert answer["summary"]["images_of_known_patients"] == 0
    document = training.get(f"/v1/datasets/{dataset_id}/coco").get_data()
    content = json.loads(document)
    assert content["info"]["provenance"] == {
        "reviewed_findings_of": [
            {"name": "tiny-0", "digest": reader.review["model"]["digest"], "images": 2},
        ],
        "review_events": 6,
    }
    dataset = parse(document)
    assert dataset.categories == tuple(sorted(CATEGORIES, key=lambda category: category.id))
    corrected, normal = sorted(dataset.images, key=lambda image: -len(image.category_ids))
    assert normal.category_ids.tolist() == []
    assert corrected.category_ids.tolist() == [7, 12]
    assert np.abs(corrected.boxes_xyxy_px - [[1, 2, 33.25, 44], [10.3, 20.7, 40.1, 60.9]]).max() < 0.5
    assert corrected.group.startswith("study-")

    def read(image):
        return read_rendition(store.get(rendition_key(image.rendition_sha256), sha256=image.rendition_sha256))

    loader = Loader((corrected, normal), read, make_tiny_model()[0], Augmentation(), 1)
    ((batch,),) = loader.batches([[Share(np.array([0, 1]), [(0, 0, 0), (0, 0, 1)], weight=1.0)]])
    loader.close()
    assert [labels.tolist() for labels in batch.labels] == [[2, 3], []]
    scale = 128 / HEIGHT_PX
    assert np.abs(batch.boxes[0].numpy() / scale - corrected.boxes_xyxy_px).max() < 0.5


def test_reviews_need_the_scope_to_change_and_are_not_there_for_strangers(reader: Reader, keys: Keys) -> None:
    body = {"job_id": reader.review["job_id"], "after": 0, "event": {"action": "no_finding"}}
    assert reader.api.as_(keys.read).get(reader.path).status_code == 200
    assert reader.api.as_(keys.read).post(reader.path, body).status_code == 403
    assert reader.api.as_(keys.stranger).get(reader.path).status_code == 404
    assert reader.api.as_(keys.stranger).post(reader.path, body).status_code == 404


def test_every_action_that_there_is_can_be_said(reader: Reader) -> None:
    described = reader.api.get("/openapi.json").get_json()["components"]["schemas"]
    actions = {
        schema["properties"]["action"]["const"]
        for name, schema in described.items()
        if name in ("Accept", "Reject", "Change", "Draw", "NoFinding", "Complete")
    }
    assert actions | {"undo", "redo"} == set(ReviewAction)
