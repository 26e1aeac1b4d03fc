"""Names, codes and ids that there are not are errors that say what was meant, and show nothing of another project."""

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr
from werkzeug.test import TestResponse

from shared.access.keys import create_key
from shared.database import Database
from shared.ids import new_id
from shared.settings import Settings
from shared.tables import Project, Study
from shared.vocabulary.states import JobState, Scope
from tests.integration.conftest import Api, Keys
from tests.integration.rows import add_dataset, add_model
from tests.integration.workshop import Workshop

CLASSES = ["Aortic enlargement", "Cardiomegaly", "Pleural effusion"]


@pytest.fixture
def model_id(database: Database) -> UUID:
    with database.begin() as session:
        model = add_model(session)
        model.card = {"categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]}
        return model.id


@pytest.fixture
def key(workshop: Workshop, model_id: UUID) -> str:
    with workshop.database.begin() as session:
        return create_key(session, project_name="workshop", name="all", scopes=[Scope.ADMIN])


@pytest.fixture
def mine(api: Api, key: str) -> Api:
    return api.as_(key)


def problem(answer: TestResponse) -> tuple[int, str, str]:
    said = answer.get_json()
    return answer.status_code, said["code"], said["detail"]


def test_a_class_that_no_model_finds_is_refused_with_the_one_that_was_meant(mine: Api) -> None:
    refused = mine.get("/v1/studies", finding="Cardiomegally")
    assert problem(refused) == (
        422,
        "unknown_class",
        "There is no class 'Cardiomegally'. Did you mean Cardiomegaly?",
    )
    assert [each["name"] for each in refused.get_json()["errors"]] == ["finding"]
    assert "Did you mean Cardiomegaly?" in mine.get("/v1/studies", finding="cardiomegaly").get_json()["detail"]
    assert mine.get("/v1/studies", finding="Cardiomegaly").get_json()["studies"] == []


def test_the_worklist_says_the_same(make_api: Callable[[Settings], Api], settings: Settings, key: str) -> None:
    page: FlaskClient = make_api(settings.model_copy(update={"session_secret": SecretStr("s" * 32)}))._http
    assert page.post("/console/sign-in", data={"key": key}).status_code == 303
    answer = page.get("/console/studies?finding=Cardiomegally")
    assert (answer.status_code, "Did you mean Cardiomegaly?" in answer.text) == (422, True)
    answer = page.get("/console/studies?state=faild")
    assert (answer.status_code, "Did you mean failed?" in answer.text) == (422, True)


@pytest.mark.parametrize(
    ("path", "query", "meant"),
    [
        ("/v1/studies", {"state": "faild"}, "failed"),
        ("/v1/studies", {"flag": "rotatd"}, "rotated"),
        (f"/v1/webhooks/{UUID(int=1)}/deliveries", {"state": "ded"}, "dead"),
        (f"/v1/submissions/{UUID(int=1)}/manifest", {"format": "jsonn"}, "json"),
        ("/v1/audit-events", {"action": "studys.erase"}, "studies.erase"),
    ],
)
def test_a_word_that_is_none_of_a_list_is_refused_with_the_nearest(
    mine: Api, path: str, query: dict[str, str], meant: str
) -> None:
    status, _, detail = problem(mine.get(path, **query))
    assert (status, f"Did you mean {meant}?" in detail) == (422, True), detail


def test_a_code_that_no_job_can_have_is_refused(mine: Api, workshop: Workshop) -> None:
    status, code, detail = problem(mine.post("/v1/jobs/retry", {"code": "detection_faild"}))
    assert (status, code) == (422, "unknown_code")
    assert detail.endswith("Did you mean detection_failed?")
    assert mine.post("/v1/jobs/retry", {"code": "detection_failed"}).get_json() == {"to_prepare": 0, "to_detect": 0}
    assert mine.post("/v1/jobs/retry", {"code": "of_a_newer_worker"}).status_code == 422
    (job_id,) = workshop.rows(1)
    workshop.set(job_id, state=JobState.FAILED, code="of_a_newer_worker", finished_at=datetime.now(UTC))
    assert mine.post("/v1/jobs/retry", {"code": "of_a_newer_worker"}).get_json()["to_prepare"] == 1


def test_a_dataset_is_named_by_its_name_its_id_or_its_beginning(mine: Api, workshop: Workshop) -> None:
    with workshop.database.begin() as session:
        dataset = add_dataset(session)
        dataset.project_id = workshop.project_id
        name, dataset_id = dataset.name, dataset.id
    misspelt = {"dataset": name[:-1] + "x"}
    status, code, detail = problem(mine.post("/v1/trainings", misspelt))
    assert (status, code) == (404, "not_found")
    assert detail.endswith(f"Did you mean {name}?")
    gate = {"evaluation_dataset_id": str(UUID(int=dataset_id.int ^ 1)), "promote": False}
    refused = mine.post("/v1/trainings", {"dataset": name, "gate": gate}).get_json()
    assert (refused["code"], refused["errors"][0]["name"]) == ("not_found", "gate.evaluation_dataset_id")
    assert f"Did you mean {dataset_id}?" in refused["detail"]
    base = mine.post("/v1/trainings", {"dataset": name, "recipe": "fine_tun"}).get_json()
    assert "Did you mean fine_tune?" in base["detail"]
    for named in (name, str(dataset_id), str(dataset_id)[:23]):
        assert (
            mine.post("/v1/evaluations", {"dataset": named, "model": str(new_id())})
            .get_json()["detail"]
            .startswith("There is no model")
        ), named


def test_a_model_that_there_is_not_is_an_error_not_an_empty_list(mine: Api, workshop: Workshop, model_id: UUID) -> None:
    (job_id,) = workshop.rows(1)
    study = workshop.job(job_id).study_id
    wrong = UUID(int=model_id.int ^ 1)
    for path in (f"/v1/studies/{study}/findings", f"/v1/images/{workshop.job(job_id).image_id}/overlay.png"):
        status, code, detail = problem(mine.get(path, model_id=str(wrong)))
        assert (status, code) == (404, "not_found"), path
        assert detail.endswith(f"Did you mean {model_id}?")


def test_the_beginning_of_an_id_is_answered_with_the_id(mine: Api, api: Api, keys: Keys, workshop: Workshop) -> None:
    (job_id,) = workshop.rows(1)
    study_id = workshop.job(job_id).study_id
    for kind, id_ in (("studies", study_id), ("jobs", job_id)):
        one = {"studies": "study", "jobs": "job"}[kind]
        for text in (str(id_)[:23], id_.hex[:20].upper(), str(UUID(int=id_.int ^ 3))):
            answer = mine.get(f"/v1/{kind}/{text}")
            assert problem(answer) == (
                404,
                "not_found",
                f"There is no {one} {text!r}. Did you mean {id_}?",
            )
            assert answer.get_json()["candidates"] == [str(id_)]
            strangers = api.as_(keys.stranger).get(f"/v1/{kind}/{text}")
            assert strangers.status_code == 404
            assert str(id_) not in strangers.text
    assert api.as_(None).get(f"/v1/studies/{str(study_id)[:23]}").status_code == 401
    assert mine.delete(f"/v1/studies/{str(study_id)[:23]}").status_code == 404, "only a whole id erases"


def test_the_beginning_of_several_ids_is_refused_and_lists_them(
    mine: Api, database: Database, workshop: Workshop
) -> None:
    twins = [UUID(f"01a208a2-02e6-797b-8890-00000000000{number}") for number in range(7)]
    with database.begin() as session:
        session.add_all(Study(id=id_, project_id=workshop.project_id) for id_ in twins)
        session.add(other := Project(name="other"))
        session.flush()
        theirs = UUID("01a208a2-02e7-797b-8890-000000000009")
        session.add(Study(id=theirs, project_id=other.id))
    answer = mine.get("/v1/studies/01a208a2-02e6")
    status, code, detail = problem(answer)
    assert (status, code) == (409, "ambiguous_name")
    assert answer.get_json()["candidates"] == [str(id_) for id_ in twins[:5]]
    assert f"{twins[4]} and others." in detail
    assert mine.get(f"/v1/studies/{str(twins[3])[:-2]}").status_code == 409
    answer = mine.get("/v1/studies/01a208a2-02e7")
    assert problem(answer) == (404, "not_found", "There is no study '01a208a2-02e7'.")
    assert str(theirs) not in answer.text
