"""The active model's result is the authoritative one in every view; other models' results are beside it by name."""

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any
from uuid import UUID

import cv2
import numpy as np
import PIL.Image
import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from pydantic import SecretStr

from shared.access.keys import verify_key
from shared.database import Database
from shared.imaging.overlay import draw_overlay
from shared.models import registry
from shared.object_store import ObjectStore, rendition_key
from shared.queue.top_scores import keep_top_scores
from shared.settings import Settings
from shared.tables import Detection, Image, Job, Model
from shared.vocabulary.states import JobState, ModelState
from tests.integration.conftest import Api, Keys
from tests.integration.console.test_viewer import data_of
from tests.integration.rows import add_image, add_job, add_model

Scores = Mapping[str, float]
WARNING = "It was made for a <demonstration>."


@dataclass(frozen=True)
class StoredImage:
    """An image and its study."""

    id: UUID
    study_id: UUID


class Ward:
    """Images, models and their results in the project of a key, and what the API says of these."""

    def __init__(self, api: Api, database: Database, key: str) -> None:
        self.api, self._database = api.as_(key), database
        with database.begin() as session:
            self._project_id = verify_key(session, key).project_id

    def model(self, name: str, state: ModelState = ModelState.CANDIDATE) -> UUID:
        with self._database.begin() as session:
            model = add_model(session, name)
            categories = [{"id": 1, "name": "Nodule"}, {"id": 2, "name": "Mass"}]
            model.card = {"categories": categories, "warnings": [WARNING]}
            if state is ModelState.ACTIVE:
                registry.promote(session, model.id)
            return model.id

    def promote(self, model_id: UUID) -> None:
        with self._database.begin() as session:
            registry.promote(session, model_id)

    def roll_back(self) -> None:
        with self._database.begin() as session:
            registry.roll_back(session)

    def add_image(self, **columns: object) -> StoredImage:
        with self._database.begin() as session:
            image = add_image(session, self._project_id, **columns)
            return StoredImage(image.id, image.study_id)

    def job(self, stored: StoredImage, state: JobState, **columns: object) -> UUID:
        with self._database.begin() as session:
            return add_job(session, session.get_one(Image, stored.id), state=state, **columns).id

    def result(self, stored: StoredImage, model_id: UUID, scores: Scores, **columns: object) -> UUID:
        """Have a model succeed with a box of each of these classes."""
        job_id = self.job(stored, JobState.SUCCEEDED, model_id=model_id, **columns)
        box = {"class_id": 1, "x_min_px": 10, "y_min_px": 10, "x_max_px": 30, "y_max_px": 30}
        with self._database.begin() as session:
            for rank, (name, score) in enumerate(scores.items()):
                found = {"class_name": name, "score": score}
                session.add(Detection(job_id=job_id, rank=rank, model_id=model_id, **found, **box))
            session.flush()
            keep_top_scores(session, {job_id: scores})
        return job_id

    def line(self, stored: StoredImage) -> dict[str, Any]:
        """The stored's study in the list."""
        lines = self.api.get("/v1/studies").get_json()["studies"]
        return next(line for line in lines if line["id"] == str(stored.study_id))

    def findings(self, stored: StoredImage, **query: object) -> dict[str, Any]:
        """What was found on the image."""
        (image,) = self.api.get(f"/v1/studies/{stored.study_id}/findings", **query).get_json()["images"]
        return image

    def finds(self, class_name: str) -> list[str]:
        """The studies that are found by a class."""
        return [line["id"] for line in self.api.get("/v1/studies", finding=class_name).get_json()["studies"]]

    def in_state(self, state: str) -> list[str]:
        """The studies that are found by a state."""
        return [line["id"] for line in self.api.get("/v1/studies", state=state).get_json()["studies"]]

    def reviewed_by_default(self, stored: StoredImage) -> str:
        """The job that a reader of the image is shown first."""
        return self.api.get(f"/v1/images/{stored.id}/reviews").get_json()["job_id"]


@pytest.fixture
def ward(api: Api, keys: Keys, database: Database) -> Ward:
    return Ward(api, database, keys.both)


@pytest.fixture
def browser(make_api: Callable[[Settings], Api], settings: Settings, keys: Keys) -> FlaskClient:
    """A browser that is signed in to the ward's project."""
    http = make_api(settings.model_copy(update={"session_secret": SecretStr("s" * 32)}))._http
    assert http.post("/console/sign-in", data={"key": keys.both}).status_code == 303
    return http


def others(answer: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """The other models' results: name, state and classes."""
    return [
        (one["model"]["name"], one["model"]["state"], [finding["class_name"] for finding in one["findings"]])
        for one in answer["other_results"]
    ]


def classes(answer: dict[str, Any]) -> list[str]:
    return [finding["class_name"] for finding in answer["findings"]]


def test_the_probability_of_a_finding_is_shown_for_each_result(ward: Ward) -> None:
    active, candidate = ward.model("active", ModelState.ACTIVE), ward.model("candidate")
    stored, waiting = ward.add_image(), ward.add_image()
    ward.result(stored, active, {"Nodule": 0.9}, abnormality=0.25)
    ward.result(stored, candidate, {}, abnormality=0.75)
    ward.job(waiting, JobState.QUEUED)
    with_one = ward.findings(stored)
    assert (with_one["abnormality"], with_one["other_results"][0]["abnormality"]) == (0.25, 0.75)
    assert ward.findings(stored, model_id=candidate)["abnormality"] == 0.75
    assert ward.findings(waiting)["abnormality"] is None
    assert (ward.line(stored)["abnormality"], ward.line(waiting)["abnormality"]) == (0.25, None)
    assert ward.line(stored)["other_results"][0]["abnormality"] == 0.75

    def export(form: str) -> str:
        return ward.api.get(f"/v1/studies/{stored.study_id}/findings", format=form).text

    rows = list(csv.DictReader(StringIO(export("csv"))))
    assert [(row["model"], row["abnormality"]) for row in rows] == [("active", "0.25"), ("candidate", "0.75")]
    assert json.loads(export("jsonl"))["images"][0]["abnormality"] == 0.25
    assert json.loads(export("coco"))["images"][0]["abnormality"] == 0.25
    # The candidate's number never counts as the active model's.
    ward.promote(ward.model("without a result"))
    assert (ward.findings(stored)["abnormality"], ward.line(stored)["abnormality"]) == (None, None)


def test_the_probability_of_a_study_is_the_highest_of_its_images(ward: Ward, database: Database) -> None:
    active = ward.model("active", ModelState.ACTIVE)
    images = [ward.add_image() for _ in range(3)]
    with database.begin() as session:
        together = [session.get_one(Image, image.id) for image in images]
        for image in together:
            image.study_id = images[0].study_id
    for image, abnormality in zip(images, (0.25, 0.5, None), strict=True):
        ward.result(image, active, {}, abnormality=abnormality)
    assert ward.line(images[0])["abnormality"] == 0.5


def test_a_candidates_newer_result_is_beside_the_active_models(ward: Ward, browser: FlaskClient) -> None:
    active, candidate = ward.model("active", ModelState.ACTIVE), ward.model("candidate")
    stored = ward.add_image()
    authoritative = ward.result(stored, active, {"Nodule": 0.9})
    ward.result(stored, candidate, {"Mass": 0.8})

    line = ward.line(stored)
    assert (classes(line), others(line)) == (["Nodule"], [("candidate", "candidate", ["Mass"])])
    assert (line["state"], line["authoritative_results"]) == ("succeeded", 1)
    image = ward.findings(stored)
    assert (image["job_id"], image["model"]["name"], image["is_authoritative"]) == (str(authoritative), "active", True)
    assert (classes(image), others(image)) == (["Nodule"], [("candidate", "candidate", ["Mass"])])
    assert (ward.finds("Nodule"), ward.finds("Mass")) == ([str(stored.study_id)], [])
    assert ward.reviewed_by_default(stored) == str(authoritative)
    (shown,) = data_of(browser.get(f"/console/studies/{stored.study_id}").text)["images"]
    assert shown["review"]["job_id"] == str(authoritative)
    assert [result["model"]["name"] for result in shown["results"]] == ["active", "candidate"]

    named = ward.findings(stored, model_id=candidate)
    assert (classes(named), named["is_authoritative"]) == (["Mass"], False)
    assert others(named) == [("active", "active", ["Nodule"])]


def test_a_result_of_the_model_that_was_active_before_is_under_its_name(ward: Ward, browser: FlaskClient) -> None:
    before, after = ward.model("before", ModelState.ACTIVE), ward.model("after")
    stored = ward.add_image()
    job_id = ward.result(stored, before, {"Nodule": 0.9})
    ward.promote(after)

    line = ward.line(stored)
    assert (classes(line), others(line)) == ([], [("before", "retired", ["Nodule"])])
    assert (line["state"], line["authoritative_results"]) == ("succeeded", 0)
    answer = ward.api.get(f"/v1/studies/{stored.study_id}/findings").get_json()
    assert answer["active_model"]["name"] == "after"
    (image,) = answer["images"]
    assert (image["job_id"], image["state"], image["findings"], image["is_authoritative"]) == (None, None, [], False)
    assert others(image) == [("before", "retired", ["Nodule"])]
    assert ward.finds("Nodule") == [str(stored.study_id)], "what is shown is found"
    assert ward.reviewed_by_default(stored) == str(job_id)
    page = data_of(browser.get(f"/console/studies/{stored.study_id}").text)
    assert page["active_model"]["name"] == "after"
    assert page["images"][0]["review"]["model"]["state"] == "retired"

    ward.result(stored, after, {"Mass": 0.4})
    line = ward.line(stored)
    assert (classes(line), others(line)) == (["Mass"], [("before", "retired", ["Nodule"])])
    assert (ward.finds("Nodule"), ward.finds("Mass")) == ([], [str(stored.study_id)])

    ward.roll_back()
    line = ward.line(stored)
    assert (classes(line), others(line)) == (["Nodule"], [("after", "candidate", ["Mass"])])
    assert (ward.finds("Nodule"), ward.finds("Mass")) == ([str(stored.study_id)], [])
    assert ward.findings(stored)["job_id"] == str(job_id)


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.READY, JobState.CANCELLED])
def test_a_candidates_result_says_nothing_of_the_active_models_job(ward: Ward, state: JobState) -> None:
    """It failed, or waits still, whether the candidate's job came before or after it."""
    active, candidate = ward.model("active", ModelState.ACTIVE), ward.model("candidate")
    for is_older in (True, False):
        stored = ward.add_image()
        if is_older:
            ward.result(stored, candidate, {"Mass": 0.8})
        why = {"code": "detection_failed", "reason": "The detector failed."} if state is JobState.FAILED else {}
        model = {"requested_model_id": active} if is_older else {}
        job_id = ward.job(stored, state, **model, **why)
        if not is_older:
            ward.result(stored, candidate, {"Mass": 0.8})

        line = ward.line(stored)
        assert (line["state"], classes(line), line["authoritative_results"]) == (state, [], 0)
        assert others(line) == [("candidate", "candidate", ["Mass"])]
        image = ward.findings(stored)
        assert (image["job_id"], image["state"], image["code"]) == (str(job_id), state, why.get("code"))
        assert (image["findings"], image["is_authoritative"]) == ([], False)
        assert others(image) == [("candidate", "candidate", ["Mass"])]
        assert str(stored.study_id) in ward.in_state(state)
        assert str(stored.study_id) not in ward.in_state("succeeded")


def test_another_try_of_a_candidate_hides_no_result_of_the_active_model(ward: Ward) -> None:
    active, candidate = ward.model("active", ModelState.ACTIVE), ward.model("candidate")
    stored = ward.add_image()
    ward.result(stored, active, {"Nodule": 0.9})
    for state in (JobState.FAILED, JobState.QUEUED):
        ward.job(stored, state, requested_model_id=candidate)
        line = ward.line(stored)
        assert (line["state"], classes(line), others(line)) == ("succeeded", ["Nodule"], [])
        assert ward.in_state(state) == []
    ward.job(stored, JobState.QUEUED)  # another try of a job that named no model and had failed
    assert (ward.line(stored)["state"], ward.findings(stored)["is_authoritative"]) == ("succeeded", True)


def test_models_that_were_active_last_come_first_among_the_others(ward: Ward) -> None:
    oldest, older, newest = (ward.model(name, ModelState.ACTIVE) for name in ("oldest", "older", "newest"))
    candidate = ward.model("candidate")
    stored = ward.add_image()
    for model_id in (older, oldest, candidate):
        ward.result(stored, model_id, {"Nodule": 0.9})
    expected = ["older", "oldest", "candidate"]
    assert [name for name, *_ in others(ward.line(stored))] == expected
    assert [name for name, *_ in others(ward.findings(stored))] == expected
    ward.result(stored, newest, {})
    assert (ward.line(stored)["findings"], ward.line(stored)["authoritative_results"]) == ([], 1)
    assert ward.finds("Nodule") == [], "the active model has found nothing"


def test_where_no_model_is_active_every_result_is_under_its_models_name(ward: Ward) -> None:
    stored = ward.add_image()
    ward.result(stored, ward.model("candidate"), {"Mass": 0.8})
    assert ward.api.get("/v1/studies").get_json()["active_model"] is None
    line, image = ward.line(stored), ward.findings(stored)
    for answer in (line, image):
        assert (answer["findings"], others(answer)) == ([], [("candidate", "candidate", ["Mass"])])
    assert line["state"] == "succeeded"
    waiting = ward.add_image()
    ward.job(waiting, JobState.READY)
    assert (ward.line(waiting)["state"], ward.findings(waiting)["state"]) == ("ready", "ready")


def test_a_study_has_an_authoritative_result_for_each_image(ward: Ward, database: Database) -> None:
    active, candidate = ward.model("active", ModelState.ACTIVE), ward.model("candidate")
    first, second = ward.add_image(), ward.add_image()
    with database.begin() as session:
        session.get_one(Image, second.id).study_id = first.study_id
    second = StoredImage(second.id, first.study_id)
    ward.result(first, active, {"Nodule": 0.5})
    ward.result(first, candidate, {"Nodule": 0.99})
    ward.result(second, candidate, {"Mass": 0.9})
    line = ward.line(first)
    assert line["findings"] == [{"class_name": "Nodule", "score": 0.5}]
    (other,) = line["other_results"]
    assert (other["results"], other["findings"]) == (
        2, [{"class_name": "Nodule", "score": 0.99}, {"class_name": "Mass", "score": 0.9}]
    )  # fmt: skip
    assert line["authoritative_results"] == 1
    assert ward.finds("Mass") == [str(first.study_id)], "the second image has no other result"
    ward.result(second, active, {})
    assert ward.finds("Mass") == []


def test_projects_share_the_active_model_and_no_result(ward: Ward, api: Api, keys: Keys, database: Database) -> None:
    stranger = Ward(api, database, keys.stranger)
    active, candidate = ward.model("active", ModelState.ACTIVE), ward.model("candidate")
    mine, theirs = ward.add_image(), stranger.add_image()
    ward.result(mine, active, {"Nodule": 0.9})
    ward.result(mine, candidate, {"Mass": 0.9})
    stranger.result(theirs, candidate, {"Mass": 0.8})
    assert (ward.finds("Nodule"), ward.finds("Mass")) == ([str(mine.study_id)], [])
    assert (stranger.finds("Nodule"), stranger.finds("Mass")) == ([], [str(theirs.study_id)])
    assert others(stranger.line(theirs)) == [("candidate", "candidate", ["Mass"])]
    assert stranger.api.get(f"/v1/studies/{mine.study_id}/findings").status_code == 404
    ward.promote(candidate)
    assert (classes(stranger.line(theirs)), others(stranger.line(theirs))) == (["Mass"], [])


def test_a_review_is_of_the_result_that_is_shown(ward: Ward) -> None:
    before, after = ward.model("before", ModelState.ACTIVE), ward.model("after")
    stored = ward.add_image()
    old = ward.result(stored, before, {"Nodule": 0.9})
    done = {"job_id": str(old), "after": 0, "event": {"action": "no_finding"}}
    assert ward.api.post(f"/v1/images/{stored.id}/reviews", done).status_code == 201
    ward.promote(after)
    assert (ward.line(stored)["review"], ward.reviewed_by_default(stored)) == ("done", str(old))
    new = ward.result(stored, after, {"Nodule": 0.8})
    assert (ward.line(stored)["review"], ward.reviewed_by_default(stored)) == (None, str(new))
    kept = ward.api.get(f"/v1/images/{stored.id}/reviews", job_id=old).get_json()
    assert kept["is_complete"], "what a reader said of the older result is there still"


def test_the_overlay_says_whose_findings_it_shows_and_what_the_card_warns_of(
    ward: Ward, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from api.studies import images as images_api

    notes: list[str] = []
    draw = draw_overlay

    def noting(rendition: Any, boxes: Any, note: str, colours: Any) -> bytes:
        notes.append(note)
        return draw(rendition, boxes, note, colours)

    monkeypatch.setattr(images_api, "draw_overlay", noting)
    png = cv2.imencode(".png", np.zeros((96, 80), np.uint8))[1].tobytes()
    sha256 = "a" * 64
    store.put(rendition_key(sha256), png)
    monkeypatch.setattr(ObjectStore, "get", lambda *_, **__: png)
    before, after = ward.model("before", ModelState.ACTIVE), ward.model("after")
    stored = ward.add_image(rendition_sha256=sha256, rendition_height_px=96, rendition_width_px=80)
    path = f"/v1/images/{stored.id}/overlay.png"
    ward.result(stored, before, {"Nodule": 0.9})
    ward.result(stored, after, {})

    def look(**query: object) -> str:
        answer = ward.api.get(path, **query)
        assert answer.status_code == 200
        with PIL.Image.open(BytesIO(answer.data)) as picture:
            assert picture.height > 96, "the strip is below the picture"
        return notes.pop()

    assert "Model before" in look()
    said = look(model_id=after)
    assert "Model after" in said
    assert "Not a result of the active model before" in said
    assert WARNING in said
    ward.promote(after)
    assert "Model after" in look()
    assert "Not a result" not in look()


def test_the_migration_brings_back_the_scores_of_earlier_results(ward: Ward, database: Database) -> None:
    from shared import migrations

    active, candidate = ward.model("active", ModelState.ACTIVE), ward.model("candidate")
    stored = ward.add_image()
    ward.result(stored, active, {"Nodule": 0.9, "Mass": 0.5})
    ward.result(stored, candidate, {})
    scores = sa.text("SELECT class_name, score, tenth FROM top_score ORDER BY class_name")
    with database.begin() as session:
        before = session.execute(scores).all()
        session.execute(sa.text("DELETE FROM top_score"))
    migrations.downgrade(database, "0011")
    migrations.upgrade(database)
    with database.begin() as session:
        assert session.execute(scores).all() == before
        assert session.scalar(sa.select(sa.func.count()).select_from(Job)) == 2
        assert {model.id for model in session.scalars(sa.select(Model))} == {active, candidate}
    assert ward.finds("Nodule") == [str(stored.study_id)]


def test_the_active_model_looks_again_at_what_it_has_no_result_of(ward: Ward, database: Database) -> None:
    path = "/v1/studies/{}/jobs"
    stored = ward.add_image()
    nobody = ward.api.post(path.format(stored.study_id))
    assert (nobody.status_code, nobody.get_json()["code"]) == (409, "no_active_model")
    before, after = ward.model("before", ModelState.ACTIVE), ward.model("after")
    old = ward.result(stored, before, {"Nodule": 0.9})
    (known,) = ward.api.post(path.format(stored.study_id)).get_json()["jobs"]
    assert (known["id"], known["state"]) == (str(old), "succeeded"), "the active model has looked at it"

    ward.promote(after)
    answer = ward.api.post(path.format(stored.study_id))
    (job,) = answer.get_json()["jobs"]
    assert (answer.status_code, job["state"], job["model_id"]) == (202, "queued", str(after))
    (again,) = ward.api.post(path.format(stored.study_id)).get_json()["jobs"]
    assert again == job
    assert (ward.line(stored)["state"], ward.findings(stored)["job_id"]) == ("queued", job["id"])
    with database.begin() as session:
        row = session.get_one(Job, UUID(job["id"]))
        row.state, row.code = JobState.FAILED, "detection_failed"
    (another,) = ward.api.post(path.format(stored.study_id)).get_json()["jobs"]
    assert another["id"] not in (job["id"], str(old)), "what failed is tried anew"

    unfit = ward.add_image()
    refused = ward.job(unfit, JobState.REJECTED, code="multi_frame")
    (job,) = ward.api.post(path.format(unfit.study_id)).get_json()["jobs"]
    assert job["id"] == str(refused)


def test_another_look_is_for_who_may_submit_to_the_project(ward: Ward, api: Api, keys: Keys) -> None:
    ward.model("active", ModelState.ACTIVE)
    stored = ward.add_image()
    path = f"/v1/studies/{stored.study_id}/jobs"
    assert api.as_(keys.read).post(path).status_code == 403
    assert api.as_(keys.stranger).post(path).status_code in (403, 404)
    assert ward.findings(stored)["job_id"] is None
