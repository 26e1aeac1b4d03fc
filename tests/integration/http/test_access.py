"""Who may call what, for every route that there is."""

import re
import time

import pytest
import sqlalchemy as sa

from api.http.keyring import Keyring
from api.http.services import NAME
from shared.access.keys import create_key, prefix_of, revoke_key, verify_key
from shared.database import Database
from shared.errors import Unauthorized
from shared.ids import new_id
from shared.tables import (
    Evaluation,
    GateDecision,
    Submission,
    SubmissionFile,
    TrainingRun,
    Webhook,
    WebhookDelivery,
)
from shared.training.config import TrainingConfig
from shared.training.schedules import create_schedule
from shared.vocabulary.states import FileState, Scope, SubmissionState
from tests.integration.conftest import Api, Keys, png
from tests.integration.rows import add_dataset, add_model, home
from tests.synthetic_dicom import make_dicom, make_image

_STUDY = "/dicom-web/studies/{study_uid}"
_SERIES = _STUDY + "/series/{series_uid}"
_INSTANCE = _SERIES + "/instances/{instance_uid}"
#: Of every route that needs a key, the scope that opens it.
SCOPES = {
    ("GET", "/v1/jobs/{job_id}"): Scope.READ,
    ("GET", "/v1/jobs"): Scope.READ,
    ("GET", "/v1/studies"): Scope.READ,
    ("GET", "/v1/studies/{study_id}"): Scope.READ,
    ("GET", "/v1/studies/{study_id}/findings"): Scope.READ,
    ("GET", "/v1/submissions/{submission_id}/findings"): Scope.READ,
    ("GET", "/v1/images/{image_id}/rendition.png"): Scope.READ,
    ("GET", "/v1/images/{image_id}/overlay.png"): Scope.READ,
    ("GET", "/v1/images/{image_id}/reviews"): Scope.READ,
    ("POST", "/v1/images/{image_id}/reviews"): Scope.SUBMIT,
    ("POST", "/v1/images/{image_id}/reviews/undo"): Scope.SUBMIT,
    ("POST", "/v1/images/{image_id}/reviews/redo"): Scope.SUBMIT,
    ("GET", "/v1/models"): Scope.READ,
    ("POST", "/v1/models"): Scope.SYSTEM,
    ("GET", "/v1/models/{model_id}/weights"): Scope.SYSTEM,
    ("PUT", "/v1/weights/{sha256}"): Scope.TRAIN,
    ("GET", "/v1/keys"): Scope.ADMIN,
    ("GET", "/v1/project"): Scope.READ,
    ("GET", "/v1/projects"): Scope.SYSTEM,
    ("PUT", "/v1/project/retention"): Scope.ADMIN,
    ("POST", "/v1/patients/erase"): Scope.ADMIN,
    ("POST", "/v1/keys"): Scope.ADMIN,
    ("POST", "/v1/keys/{prefix}/revoke"): Scope.ADMIN,
    ("GET", "/metrics"): Scope.READ,
    ("GET", "/v1/queue"): Scope.READ,
    ("GET", "/v1/queue/history"): Scope.READ,
    ("GET", "/v1/queue/events"): Scope.READ,
    ("POST", "/v1/jobs/retry"): Scope.SUBMIT,
    ("POST", "/v1/jobs/priority"): Scope.SUBMIT,
    ("POST", "/v1/studies"): Scope.SUBMIT,
    ("POST", "/v1/studies/{study_id}/jobs"): Scope.SUBMIT,
    ("POST", "/v1/jobs/{job_id}/cancel"): Scope.SUBMIT,
    ("GET", "/v1/datasets"): Scope.READ,
    ("GET", "/v1/datasets/{dataset_id}"): Scope.READ,
    ("POST", "/v1/datasets"): Scope.TRAIN,
    ("GET", "/v1/datasets/{dataset_id}/coco"): Scope.TRAIN,
    ("GET", "/v1/datasets/{dataset_id}/failures"): Scope.TRAIN,
    ("POST", "/v1/datasets/{dataset_id}/cancel"): Scope.TRAIN,
    ("GET", "/v1/trainings"): Scope.READ,
    ("GET", "/v1/trainings/{training_id}"): Scope.READ,
    ("POST", "/v1/trainings"): Scope.TRAIN,
    ("GET", "/v1/trainings/{training_id}/points"): Scope.READ,
    ("GET", "/v1/trainings/{training_id}/log"): Scope.TRAIN,
    ("GET", "/v1/trainings/{training_id}/events/{attempt}"): Scope.TRAIN,
    ("POST", "/v1/trainings/{training_id}/cancel"): Scope.TRAIN,
    ("POST", "/v1/trainings/{training_id}/resume"): Scope.TRAIN,
    ("GET", "/v1/evaluations"): Scope.READ,
    ("GET", "/v1/evaluations/{evaluation_id}"): Scope.READ,
    ("POST", "/v1/evaluations"): Scope.TRAIN,
    ("GET", "/v1/evaluations/{evaluation_id}/report"): Scope.TRAIN,
    ("GET", "/v1/evaluations/{evaluation_id}/detections"): Scope.TRAIN,
    ("POST", "/v1/evaluations/{evaluation_id}/cancel"): Scope.TRAIN,
    ("GET", "/v1/schedules"): Scope.READ,
    ("GET", "/v1/schedules/{schedule_id}"): Scope.READ,
    ("POST", "/v1/schedules"): Scope.TRAIN,
    ("PATCH", "/v1/schedules/{schedule_id}"): Scope.TRAIN,
    ("POST", "/v1/schedules/{schedule_id}/run"): Scope.TRAIN,
    ("DELETE", "/v1/schedules/{schedule_id}"): Scope.TRAIN,
    ("GET", "/v1/gate-decisions"): Scope.READ,
    ("GET", "/v1/gate-decisions/{decision_id}"): Scope.READ,
    ("POST", "/v1/gate-decisions"): Scope.TRAIN,
    ("GET", "/v1/audit-events"): Scope.ADMIN,
    ("GET", "/v1/webhooks"): Scope.READ,
    ("GET", "/v1/webhooks/{webhook_id}"): Scope.READ,
    ("GET", "/v1/webhooks/{webhook_id}/deliveries"): Scope.READ,
    ("POST", "/v1/webhooks"): Scope.SUBMIT,
    ("PATCH", "/v1/webhooks/{webhook_id}"): Scope.SUBMIT,
    ("POST", "/v1/webhooks/{webhook_id}/test"): Scope.SUBMIT,
    ("POST", "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"): Scope.SUBMIT,
    ("DELETE", "/v1/webhooks/{webhook_id}"): Scope.SUBMIT,
    ("GET", "/v1/submissions"): Scope.READ,
    ("POST", "/v1/submissions"): Scope.SUBMIT,
    ("GET", "/v1/submissions/{submission_id}"): Scope.READ,
    ("GET", "/v1/submissions/{submission_id}/events"): Scope.READ,
    ("GET", "/v1/submissions/{submission_id}/manifest"): Scope.READ,
    ("GET", "/v1/submissions/{submission_id}/uploads"): Scope.SUBMIT,
    ("POST", "/v1/submissions/{submission_id}/files"): Scope.SUBMIT,
    ("PUT", "/v1/submissions/{submission_id}/files/{number}/content"): Scope.SUBMIT,
    ("POST", "/v1/submissions/{submission_id}/arrived"): Scope.SUBMIT,
    ("POST", "/v1/submissions/{submission_id}/complete"): Scope.SUBMIT,
    ("POST", "/v1/submissions/{submission_id}/retry"): Scope.SUBMIT,
    ("POST", "/v1/submissions/{submission_id}/cancel"): Scope.SUBMIT,
    ("POST", "/v1/models/{model_id}/promote"): Scope.SYSTEM,
    ("POST", "/v1/models/rollback"): Scope.SYSTEM,
    ("POST", "/dicom-web/studies"): Scope.SUBMIT,
    ("POST", "/dicom-web/studies/{study_uid}"): Scope.SUBMIT,
    ("GET", "/dicom-web/studies"): Scope.READ,
    ("GET", "/dicom-web/series"): Scope.READ,
    ("GET", "/dicom-web/instances"): Scope.READ,
    ("GET", f"{_STUDY}"): Scope.READ,
    ("GET", f"{_STUDY}/metadata"): Scope.READ,
    ("GET", f"{_STUDY}/series"): Scope.READ,
    ("GET", f"{_STUDY}/instances"): Scope.READ,
    ("GET", f"{_SERIES}"): Scope.READ,
    ("GET", f"{_SERIES}/metadata"): Scope.READ,
    ("GET", f"{_SERIES}/instances"): Scope.READ,
    ("GET", f"{_INSTANCE}"): Scope.READ,
    ("GET", f"{_INSTANCE}/metadata"): Scope.READ,
    ("GET", f"{_INSTANCE}/frames/{{frames}}"): Scope.READ,
    ("GET", f"{_INSTANCE}/bulkdata"): Scope.READ,
    **{
        ("GET", f"{thing}/{picture}"): Scope.READ
        for thing in (_STUDY, _SERIES, _INSTANCE, f"{_INSTANCE}/frames/{{frames}}")
        for picture in ("rendered", "thumbnail")
    },
    # Last, for nothing is left of the study.
    ("DELETE", "/v1/studies/{study_id}"): Scope.ADMIN,
}
PUBLIC = [("GET", path) for path in ("/healthz", "/readyz", "/openapi.json", "/docs", "/docs/{name}")]
#: The console's pages. They answer people, with a page or the way to the sign-in, never with a problem document.
PAGES = {
    ("GET", "/console/studies"): Scope.READ,
    ("GET", "/console/studies/{study_id}"): Scope.READ,
    ("GET", "/console/queue"): Scope.READ,
    ("GET", "/console/training"): Scope.READ,
    ("GET", "/console/training/{training_id}"): Scope.READ,
    ("GET", "/console/models"): Scope.READ,
    ("GET", "/console/models/compare"): Scope.READ,
    ("GET", "/console/schedules"): Scope.READ,
    ("GET", "/console/{_}"): Scope.READ,
}
PUBLIC_PAGES = [
    *(("GET", path) for path in ("/", "/console/", "/console/sign-in", "/console/static/{digest}/{path}")),
    *(("POST", path) for path in ("/console/sign-in", "/console/sign-out")),
]
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LOOKED_AT = {"job_id": str(new_id()), "after": 0}
#: What a request says where it would be refused without before anybody looks at whose it is.
BODIES = {
    "/v1/images/{image_id}/reviews": {**_LOOKED_AT, "event": {"action": "no_finding"}},
    "/v1/images/{image_id}/reviews/undo": _LOOKED_AT,
    "/v1/images/{image_id}/reviews/redo": _LOOKED_AT,
    "/v1/submissions/{submission_id}/files": {"files": [{"byte_count": 1, "sha256": "0" * 64}]},
    "/v1/submissions/{submission_id}/arrived": {"numbers": [0]},
    "/v1/jobs/retry": {"code": "worker_lost"},
    "/v1/jobs/priority": {"id": "{job_id}", "priority": 9},
}
_OWNED = ("{study_id}", "{image_id}", "{job_id}", "{webhook_id}", "{instance_uid}", "{submission_id}")
OF_A_PROJECT = [route for route in SCOPES if any(name in route[1] for name in _OWNED)]


@pytest.fixture(autouse=True)
def _streams_end_at_once(api: Api) -> None:
    api._http.application.extensions[NAME].stopping.set()


@pytest.fixture
def ids(api: Api, keys: Keys, database: Database) -> dict[str, object]:
    """The ids of an image that was sent in, and of a row of every other kind."""
    image = make_dicom(make_image(), SeriesInstanceUID="1.2.3.1")
    file, _ = api.send(("image.png", png()), ("image.dcm", image)).get_json()["files"]
    digest = "0" * 64
    with database.begin() as session:
        dataset, model = add_dataset(session), add_model(session)
        training = TrainingRun(
            project_id=home(session),
            name="films",
            dataset_id=dataset.id,
            config={},
            config_digest=digest,
            events={"1": digest},
        )
        evaluation = Evaluation(
            project_id=home(session),
            model_id=model.id,
            dataset_id=dataset.id,
            config={},
            report_sha256=digest,
            detections_sha256=digest,
        )
        decision = GateDecision(project_id=home(session), candidate_model_id=model.id, config={})
        schedule = create_schedule(
            session,
            project_id=home(session),
            name="nights",
            cron="0 3 * * *",
            time_zone="UTC",
            dataset_name="films",
            config=TrainingConfig(),
        )
        owner = verify_key(session, keys.submit)
        webhook = Webhook(
            project_id=owner.project_id, api_key_id=owner.key_id, url="https://ward.example/", secret="", events=[]
        )
        submission = Submission(project_id=owner.project_id, state=SubmissionState.CANCELLED, file_count=1)
        session.add_all((training, evaluation, decision, webhook, submission))
        session.flush()
        session.add(delivery := WebhookDelivery(webhook_id=webhook.id, event="ping", payload={}))
        session.add(SubmissionFile(submission_id=submission.id, number=0, state=FileState.CANCELLED))
        session.flush()
        rows = {"training_id": training.id, "attempt": 1, "evaluation_id": evaluation.id, "model_id": model.id}
        rows |= {"dataset_id": dataset.id, "schedule_id": schedule.id, "decision_id": decision.id}
        spare = create_key(session, project_name="ward", name="spare", scopes=[Scope.READ])
        rows |= {"prefix": prefix_of(spare), "sha256": digest}
        rows |= {"webhook_id": webhook.id, "delivery_id": delivery.id}
        rows |= {"submission_id": submission.id, "number": 0}
        rows |= {"study_uid": "1.2.3", "series_uid": "1.2.3.1", "instance_uid": "1.2.3.4", "frames": "1"}
    return rows | {name: file[name] for name in ("study_id", "image_id", "job_id")}


def call(api: Api, route: tuple[str, str], ids: dict[str, object]):
    method, path = route
    body = BODIES.get(path, {} if method == "PATCH" else None)
    if isinstance(body, dict) and body.get("id") == "{job_id}":
        body = body | {"id": str(ids["job_id"])}
    return api.call(method, path.format(**ids), body)


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
    served = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in api._http.application.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert served == {*SCOPES, *PUBLIC, *PAGES, *PUBLIC_PAGES}


def test_no_or_a_wrong_key_is_refused(api: Api, keys: Keys, ids: dict[str, object]) -> None:
    wrong = keys.both[:-3] + "abc"
    for route in SCOPES:
        for key in (None, "nonsense", "carina_", wrong):
            response = call(api.as_(key), route, ids)
            assert (response.status_code, problem_of(response)) == (401, "unauthorized"), (route, key)
            assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_page_shows_itself_to_nobody_without_its_scope(api: Api, keys: Keys, ids: dict[str, object]) -> None:
    key_of = {Scope.READ: keys.submit, Scope.SUBMIT: keys.read, Scope.TRAIN: keys.read, Scope.ADMIN: keys.train}
    for route, scope in PAGES.items():
        stranger = call(api.as_(None), route, ids | {"_": "nowhere"})
        assert stranger.status_code == 302, route
        assert stranger.location.startswith("/console/sign-in?next=/console/"), route
        assert call(api.as_(key_of[scope]), route, ids | {"_": "nowhere"}).status_code == 403, route


def test_each_scope_opens_its_own_routes(api: Api, keys: Keys, ids: dict[str, object]) -> None:
    by_scope = {Scope.SUBMIT: keys.submit, Scope.READ: keys.read, Scope.TRAIN: keys.train}
    for route, scope in SCOPES.items():
        for other in by_scope.keys() - {scope}:
            refused = call(api.as_(by_scope[other]), route, ids)
            assert (refused.status_code, problem_of(refused)) == (403, "forbidden"), (route, other)
        # What is deleted is not there for the next key.
        if scope is Scope.SYSTEM:
            assert call(api.as_(keys.admin), route, ids).status_code == 403, route
        for key in {keys.admin} if route[0] == "DELETE" else {by_scope.get(scope, keys.system), keys.system}:
            assert call(api.as_(key), route, ids).status_code not in (401, 403, 404), route


def test_what_another_project_owns_is_not_there(api: Api, keys: Keys, ids: dict[str, object]) -> None:
    uids = {"study_uid": "1.9", "series_uid": "1.9", "instance_uid": "1.9"}
    for route in OF_A_PROJECT:
        theirs = call(api.as_(keys.stranger), route, ids)
        nobodys = call(
            api.as_(keys.admin), route, ids | {name: new_id() for name in ids if name.endswith("_id")} | uids
        )
        for response in (theirs, nobodys):
            assert (response.status_code, problem_of(response)) == (404, "not_found"), route
        assert _UUID.sub("ID", theirs.get_data(as_text=True)) == _UUID.sub("ID", nobodys.get_data(as_text=True))
    assert call(api, ("GET", "/v1/jobs/{job_id}"), ids).get_json()["state"] == "queued"


def test_health_and_description_need_no_key(api: Api) -> None:
    for _, path in PUBLIC:
        assert api.as_(None).get(path.format(name="start.js")).status_code == 200


def test_a_key_is_checked_before_anything_else_of_a_request(api: Api) -> None:
    """A stranger learns of no parameter what is wrong with it, and gets no file parsed."""
    assert api.as_(None).get(f"/v1/jobs/{new_id()}", wait=-1).status_code == 401
    assert api.as_(None).send(("a", b"no image")).status_code == 401


def test_errors_of_routing_are_problems(api: Api) -> None:
    response = api.get("/v1/nowhere")
    assert (response.status_code, problem_of(response)) == (404, "not_found")
    response = api.get("/v1/jobs/not-an-id")
    assert (response.status_code, problem_of(response)) == (404, "not_found")
    response = api.post("/v1/queue")
    assert (response.status_code, problem_of(response)) == (405, "method_not_allowed")
    assert "GET" in response.headers["Allow"]


def test_an_invalid_parameter_is_named(api: Api, ids: dict[str, object]) -> None:
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
        raising = "RETURNS boolean STABLE LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'lost'; END $$"
        session.execute(sa.text(f"CREATE FUNCTION break_down() {raising}"))
        session.execute(sa.text("ALTER TABLE model RENAME TO models"))
        session.execute(sa.text("CREATE VIEW model AS SELECT * FROM models WHERE break_down()"))
    response = api.get("/v1/models")
    assert (response.status_code, problem_of(response)) == (500, "internal_error")
    assert "lost" not in response.get_data(as_text=True)


def test_a_revoked_key_ends_when_the_keyring_forgets_it(keys: Keys, database: Database) -> None:
    keyring = Keyring(database, kept_s=0.5)
    keyring.identify(keys.read)
    with database.begin() as session:
        revoke_key(session, keys.read.split("_")[1])
    time.sleep(0.5)
    with pytest.raises(Unauthorized):
        keyring.identify(keys.read)
