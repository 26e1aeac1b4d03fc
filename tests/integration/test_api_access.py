"""Who may call what, for every route that there is."""

import time

import pytest
import sqlalchemy as sa

from api.keyring import Keyring
from shared.database import Database
from shared.errors import Unauthorized
from shared.ids import new_id
from shared.keys import revoke_key
from tests.integration.conftest import Api, Keys, png

READ = [
    "/v1/jobs/{job_id}",
    "/v1/studies/{study_id}",
    "/v1/studies/{study_id}/findings",
    "/v1/images/{image_id}/rendition.png",
    "/v1/images/{image_id}/overlay.png",
    "/v1/models",
    "/metrics",
]
SUBMIT = ["/v1/studies", "/v1/jobs/{job_id}/cancel"]
PUBLIC = ["/healthz", "/readyz", "/openapi.json"]
OF_A_PROJECT = [path for path in [*READ, *SUBMIT] if "{" in path]


@pytest.fixture
def ids(api: Api) -> dict[str, str]:
    """The ids of an image that was sent in."""
    (file,) = api.send(("film.png", png())).get_json()["files"]
    return {name: file[name] for name in ("study_id", "image_id", "job_id")}


def call(api: Api, path: str, ids: dict[str, str]):
    return (api.post if path in SUBMIT else api.get)(path.format(**ids))


def problem_of(response) -> str:
    """Check that an answer is a problem document; return its code."""
    assert response.content_type == "application/problem+json"
    problem = response.get_json()
    assert problem["status"] == response.status_code
    assert problem["type"] == "about:blank"
    assert problem["title"]
    assert problem["detail"]
    return problem["code"]


def test_the_routes_of_this_test_are_all_routes(api: Api) -> None:
    described = set(api.get("/openapi.json").get_json()["paths"])
    assert described | {"/openapi.json"} == {*READ, *SUBMIT, *PUBLIC}


def test_no_or_a_wrong_key_is_refused(api: Api, keys: Keys, ids: dict[str, str]) -> None:
    wrong = keys.both[:-3] + "abc"
    for path in [*READ, *SUBMIT]:
        for key in (None, "nonsense", "carina_", wrong):
            response = call(api.as_(key), path, ids)
            assert (response.status_code, problem_of(response)) == (401, "unauthorized"), (path, key)
            assert response.headers["WWW-Authenticate"] == "Bearer"


def test_each_scope_opens_its_own_routes(api: Api, keys: Keys, ids: dict[str, str]) -> None:
    for path in [*READ, *SUBMIT]:
        right, wrong = (keys.submit, keys.read) if path in SUBMIT else (keys.read, keys.submit)
        refused = call(api.as_(wrong), path, ids)
        assert (refused.status_code, problem_of(refused)) == (403, "forbidden"), path
        for key in (right, keys.admin):
            assert call(api.as_(key), path, ids).status_code not in (401, 403, 404), path


def test_what_another_project_owns_is_not_there(api: Api, keys: Keys, ids: dict[str, str]) -> None:
    for path in OF_A_PROJECT:
        theirs = call(api.as_(keys.stranger), path, ids)
        nobodys = call(api, path, {name: str(new_id()) for name in ids})
        for response in (theirs, nobodys):
            assert (response.status_code, problem_of(response)) == (404, "not_found"), path
        assert theirs.get_json() == nobodys.get_json()
    assert call(api, "/v1/jobs/{job_id}", ids).get_json()["state"] == "queued"


def test_health_and_description_need_no_key(api: Api) -> None:
    for path in PUBLIC:
        assert api.as_(None).get(path).status_code == 200


def test_a_key_is_checked_before_anything_else_of_a_request(api: Api) -> None:
    """A stranger learns of no parameter what is wrong with it, and gets no file parsed."""
    assert api.as_(None).get(f"/v1/jobs/{new_id()}", wait=-1).status_code == 401
    assert api.as_(None).send(("a", b"no image")).status_code == 401


def test_errors_of_routing_are_problems(api: Api) -> None:
    response = api.get("/v1/nowhere")
    assert (response.status_code, problem_of(response)) == (404, "not_found")
    response = api.get("/v1/jobs/not-an-id")
    assert (response.status_code, problem_of(response)) == (404, "not_found")
    response = api.post("/v1/models")
    assert (response.status_code, problem_of(response)) == (405, "method_not_allowed")
    assert "GET" in response.headers["Allow"]


def test_an_invalid_parameter_is_named(api: Api, ids: dict[str, str]) -> None:
    for path, name, value in [
        ("/v1/jobs/{job_id}", "wait", "-1"),
        ("/v1/jobs/{job_id}", "wait", "61"),
        ("/v1/jobs/{job_id}", "wait", "nan"),
        ("/v1/jobs/{job_id}", "weight", "1"),
        ("/v1/studies/{study_id}/findings", "min_score", "1.1"),
        ("/v1/studies/{study_id}/findings", "model_id", "newest"),
        ("/v1/images/{image_id}/overlay.png", "min_score", "high"),
    ]:
        response = api.get(path.format(**ids), **{name: value})
        assert (response.status_code, problem_of(response)) == (422, "invalid_request"), (path, name)
        assert [error["name"] for error in response.get_json()["errors"]] == [name]


def test_an_unexpected_error_is_a_problem_that_gives_nothing_away(api: Api, keys: Keys, database: Database) -> None:
    assert api.get("/v1/models").status_code == 200  # the key is known from here on
    with database.begin() as session:
        session.execute(sa.text("ALTER TABLE model RENAME COLUMN card TO lost"))
    response = api.get("/v1/models")
    assert (response.status_code, problem_of(response)) == (500, "internal_error")
    assert "card" not in response.get_data(as_text=True)


def test_a_revoked_key_ends_when_the_keyring_forgets_it(keys: Keys, database: Database) -> None:
    keyring = Keyring(database, kept_s=0.5)
    keyring.identify(keys.read)
    with database.begin() as session:
        revoke_key(session, keys.read.split("_")[1])
    time.sleep(0.5)
    with pytest.raises(Unauthorized):
        keyring.identify(keys.read)
