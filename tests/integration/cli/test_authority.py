"""The command line shows the active model's findings first, names other models, and shows what cards warn of."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from shared.database import Database
from shared.tables import Job
from shared.vocabulary.states import JobState, ModelState
from tests.integration.conftest import Api, Keys, Server
from tests.integration.studies.test_authority import WARNING, StoredImage, Ward

Command = Callable[..., str]


@pytest.fixture
def ward(api: Api, keys: Keys, database: Database, server: Server, monkeypatch: pytest.MonkeyPatch) -> Ward:
    monkeypatch.setenv("CARINA_API_URL", server.url)
    monkeypatch.setenv("CARINA_API_KEY", keys.both)
    monkeypatch.setenv("COLUMNS", "200")
    return Ward(api, database, keys.both)


@pytest.fixture
def stored(ward: Ward) -> StoredImage:
    """An image of which an active model and, later, a candidate have a result."""
    active, candidate = ward.model("active", ModelState.ACTIVE), ward.model("candidate")
    stored = ward.add_image()
    ward.result(stored, active, {"Nodule": 0.9})
    ward.result(stored, candidate, {"Nodule": 0.7, "Mass": 0.6})
    return stored


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def pick(found: list[dict[str, str]], *columns: str) -> list[tuple[str, ...]]:
    return [tuple(row[column] for column in columns) for row in found]


def test_findings_are_the_active_models_and_others_are_named(carina: Command, ward: Ward, stored: StoredImage) -> None:
    study = str(stored.study_id)
    told = carina("findings", study)
    assert told.index("0.90") < told.index("0.70")
    assert "(candidate)" in told
    assert "(active)" not in told
    assert f"active {_digest(ward, 'active')} warns: {WARNING}" in told
    assert f"candidate {_digest(ward, 'candidate')} warns: {WARNING}" in told

    columns = ("class_name", "score", "model", "model_state", "is_authoritative", "model_warnings")
    assert pick(rows(carina("findings", study, "--format", "csv")), *columns) == [
        ("Nodule", "0.9", "active", "active", "true", WARNING),
        ("Nodule", "0.7", "candidate", "candidate", "false", WARNING),
        ("Mass", "0.6", "candidate", "candidate", "false", WARNING),
    ]
    (image,) = json.loads(carina("findings", study, "--json"))["images"]
    assert (image["model"]["warnings"], image["is_authoritative"]) == ([WARNING], True)
    assert [other["model"]["name"] for other in image["other_results"]] == ["candidate"]
    coco = json.loads(carina("findings", study, "--format", "coco"))
    assert [one["score"] for one in coco["annotations"]] == [0.9], "one result an image"
    assert (coco["images"][0]["model"], coco["images"][0]["is_authoritative"]) == ("active", True)
    assert list(coco["info"]["model_warnings"].values()) == [[WARNING]]


def test_findings_of_a_model_that_was_active_before_are_named(carina: Command, ward: Ward, stored: StoredImage) -> None:
    ward.promote(ward.model("after"))
    study = str(stored.study_id)
    told = carina("findings", study)
    assert "none (no result)" in told
    assert "(retired)" in told
    first, *others = rows(carina("findings", study, "--format", "csv"))
    assert (first["class_name"], first["state"], first["is_authoritative"]) == ("", "", "false")
    assert pick(others, "model", "model_state") == [("active", "retired"), *[("candidate", "candidate")] * 2]
    coco = json.loads(carina("findings", study, "--format", "coco"))
    (image,) = coco["images"]
    assert (image["model"], image["model_state"], image["is_authoritative"]) == ("active", "retired", False)
    assert [one["score"] for one in coco["annotations"]] == [0.9]


def test_the_list_of_studies_names_other_models(carina: Command, ward: Ward, stored: StoredImage) -> None:
    told = carina("studies")
    assert told.index("Nodule 0.90") < told.index("(candidate):") < told.index("Nodule 0.70")
    assert WARNING in told
    (row,) = rows(carina("studies", "--format", "csv"))
    assert pick([row], "findings", "model", "authoritative_results") == [("Nodule 0.9", "active", "1")]
    digest = _digest(ward, "candidate")
    assert row["other_results"] == f"candidate {digest} (candidate): Nodule 0.7; Mass 0.6"
    assert row["model_warnings"] == f"active: {WARNING} candidate: {WARNING}"
    ward.promote(ward.model("after"))
    assert "no result of the active model" in carina("studies")
    (line,) = json.loads(carina("studies", "--json"))
    assert (line["model"], line["findings"], len(line["other_results"])) == (None, [], 2)


def test_the_probability_of_any_finding_is_shown_where_a_model_estimates_it(carina: Command, ward: Ward) -> None:
    active, candidate = ward.model("active", ModelState.ACTIVE), ward.model("candidate")
    stored = ward.add_image()
    ward.result(stored, candidate, {"Mass": 0.6})
    commands = (("studies",), ("findings", str(stored.study_id)))
    assert not any("any finding" in carina(*command) for command in commands)
    ward.result(stored, active, {"Nodule": 0.9}, abnormality=0.8125)
    for command in commands:
        told = carina(*command)
        assert "any finding" in told
        assert "0.81" in told
    (row,) = rows(carina("studies", "--format", "csv"))
    assert row["abnormality"] == "0.8125"
    higher = ward.add_image()
    ward.result(higher, active, {}, abnormality=0.9375)
    ward.add_image()

    def listed(*options: str) -> list[str]:
        return [row["abnormality"] for row in rows(carina("studies", "--format", "csv", *options))]

    ward.result(ward.add_image(), active, {}, abnormality=0.125)
    assert listed() == ["0.125", "0.9375", "0.8125"]
    assert listed("--order", "abnormality") == ["0.9375", "0.8125", "0.125"]
    assert listed("--min-abnormality", "0.8") == ["0.9375", "0.8125"]


def test_reviews_name_the_model_and_what_its_card_warns_of(carina: Command, stored: StoredImage) -> None:
    told = carina("reviews", str(stored.id))
    assert "model active" in told
    assert WARNING in told


def test_a_study_is_given_to_the_active_model_again(
    carina: Command, ward: Ward, stored: StoredImage, database: Database
) -> None:
    after = ward.model("after")
    ward.promote(after)
    told = carina("rerun", str(stored.study_id), "--priority", "7")
    assert "queued" in told
    (job,) = json.loads(carina("rerun", str(stored.study_id)[:20], "--json"))
    assert job["id"][:13] in told
    with database.begin() as session:
        (row,) = session.scalars(sa.select(Job).where(Job.requested_model_id == after))
        assert (str(row.id), row.priority) == (job["id"], 7)


def test_a_candidates_later_job_hides_no_failure_of_the_active_models(
    carina: Command, ward: Ward, database: Database
) -> None:
    active, candidate = ward.model("active", ModelState.ACTIVE), ward.model("candidate")
    stored = ward.add_image()
    failed: dict[str, Any] = {"code": "detection_failed", "finished_at": sa.func.now()}
    ward.job(stored, JobState.FAILED, model_id=active, **failed)
    ward.job(stored, JobState.SUCCEEDED, model_id=candidate, requested_model_id=candidate)
    assert "1 jobs are tried again" in carina("retry", "--code", "detection_failed")
    assert ward.line(stored)["state"] == "queued"
    assert "0 jobs are tried again" in carina("retry", "--code", "detection_failed")


def _digest(ward: Ward, name: str) -> str:
    models = ward.api.get("/v1/models").get_json()["models"]
    return next(model["digest"] for model in models if model["name"] == name)[:8]
