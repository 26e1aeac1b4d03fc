"""Another project's key: every operation and every page is called with a project's ids, and shows and changes nothing.

Whoever adds a route says here how its rows are named: in its path, in its query or body, in a list, or not at all.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from api.http.services import NAME
from shared.access.keys import prefix_of, verify_key
from shared.database import Database
from shared.database.project_scope import CHILDREN
from shared.ids import new_id
from shared.object_store import ObjectStore, dataset_key, rendition_key, result_key
from shared.tables import (
    AuditEvent,
    Dataset,
    Evaluation,
    GateDecision,
    Image,
    Model,
    ReviewEvent,
    Row,
    Study,
    Submission,
    SubmissionFile,
    TrainingPoint,
    TrainingRun,
    Webhook,
    WebhookDelivery,
)
from shared.training.config import TrainingConfig
from shared.training.schedules import create_schedule
from shared.vocabulary.states import FileState, JobState, SubmissionState, TaskState
from tests.integration.conftest import Api, Keys, png
from tests.integration.rows import add_job, add_result

#: What stands in every text of the first project's that an answer could show.
SECRET = "of-the-ward-only"
STUDY, SERIES, INSTANCE = "1.2.840.1", "1.2.840.1.1", "1.2.840.1.1.1"

_STUDY = "/dicom-web/studies/{study_uid}"
_SERIES = f"{_STUDY}/series/{{series_uid}}"
_INSTANCE = f"{_SERIES}/instances/{{instance_uid}}"
_SUBMISSION = "/v1/submissions/{submission_id}"
_IMAGE = "/v1/images/{image_id}"

#: Operations whose path names a row of a project.
BY_PATH = {
    "DELETE": ["/v1/studies/{study_id}", "/v1/schedules/{schedule_id}", "/v1/webhooks/{webhook_id}"],
    "PATCH": ["/v1/schedules/{schedule_id}", "/v1/webhooks/{webhook_id}"],
    "PUT": [f"{_SUBMISSION}/files/{{number}}/content"],
    "POST": [
        "/v1/datasets/{dataset_id}/cancel",
        "/v1/evaluations/{evaluation_id}/cancel",
        "/v1/jobs/{job_id}/cancel",
        "/v1/keys/{prefix}/revoke",
        "/v1/schedules/{schedule_id}/run",
        "/v1/studies/{study_id}/jobs",
        "/v1/trainings/{training_id}/cancel",
        "/v1/trainings/{training_id}/resume",
        "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
        "/v1/webhooks/{webhook_id}/test",
        *(f"{_IMAGE}/reviews{verb}" for verb in ("", "/undo", "/redo")),
        *(f"{_SUBMISSION}/{verb}" for verb in ("arrived", "cancel", "complete", "files", "retry")),
    ],
    "GET": [
        "/v1/datasets/{dataset_id}",
        "/v1/datasets/{dataset_id}/coco",
        "/v1/datasets/{dataset_id}/failures",
        "/v1/evaluations/{evaluation_id}",
        "/v1/evaluations/{evaluation_id}/detections",
        "/v1/evaluations/{evaluation_id}/report",
        "/v1/gate-decisions/{decision_id}",
        "/v1/jobs/{job_id}",
        "/v1/schedules/{schedule_id}",
        "/v1/studies/{study_id}",
        "/v1/studies/{study_id}/findings",
        "/v1/trainings/{training_id}",
        "/v1/trainings/{training_id}/events/{attempt}",
        "/v1/trainings/{training_id}/log",
        "/v1/trainings/{training_id}/points",
        "/v1/webhooks/{webhook_id}",
        "/v1/webhooks/{webhook_id}/deliveries",
        *(f"{_IMAGE}/{what}" for what in ("overlay.png", "rendition.png", "reviews")),
        *(f"{_SUBMISSION}{what}" for what in ("", "/events", "/findings", "/manifest", "/uploads")),
        *(
            f"{where}{what}"
            for where in (_STUDY, _SERIES, _INSTANCE)
            for what in ("", "/metadata", "/rendered", "/thumbnail")
        ),
        f"{_INSTANCE}/bulkdata",
        *(f"{_INSTANCE}/frames/{{frames}}{what}" for what in ("", "/rendered", "/thumbnail")),
        "/console/studies/{study_id}",
        "/console/training/{training_id}",
    ],
}
#: Those of a study that nobody has are answered with an empty list, as PS3.18 has it.
EMPTY_BY_PATH = {"GET": [f"{_STUDY}/series", f"{_STUDY}/instances", f"{_SERIES}/instances"]}
#: Operations that list rows, each with queries that name the first project's; the answers hold none of them.
LISTS: dict[str, list[dict[str, str]]] = {
    "/v1/audit-events": [{}, {"api_key_id": "{key_id}"}, {"before": "{audit_id}"}],
    "/v1/datasets": [{}, {"before": "{later}"}],
    "/v1/evaluations": [{}],
    "/v1/gate-decisions": [{}],
    "/v1/jobs": [{"id": "{job_id}"}],
    "/v1/keys": [{}],
    "/v1/project": [{}],
    "/v1/queue": [{}],
    "/v1/queue/events": [{}],
    "/v1/queue/history": [{}],
    "/v1/schedules": [{}],
    "/v1/studies": [
        {},
        *({"q": f"{{{name}}}"} for name in ("study_id", "image_id", "job_id", "submission_id", "sha256", "study_uid")),
        {"finding": "Mass", "min_score": "0"},
        {"flag": "rotated"},
        {"state": "succeeded"},
        {"after": "{study_id}"},
    ],
    "/v1/submissions": [{}],
    "/v1/trainings": [{}],
    "/v1/webhooks": [{}],
    "/dicom-web/studies": [{}, {"StudyInstanceUID": "{study_uid}"}, {"SOPInstanceUID": "{instance_uid}"}],
    "/dicom-web/series": [{}, {"StudyInstanceUID": "{study_uid}"}, {"SeriesInstanceUID": "{series_uid}"}],
    "/dicom-web/instances": [{}, {"StudyInstanceUID": "{study_uid}"}, {"SOPInstanceUID": "{instance_uid}"}],
    "/metrics": [{}],
    "/console/studies": [{}, {"q": "{study_uid}"}],
    "/console/queue": [{}],
    "/console/training": [{}],
    "/console/models": [{}],
    "/console/models/compare": [
        {"first": "{model_id}", "second": "{model_id}"},
        {"first": "{model_id}", "second": "{model_id}", "on": "{dataset_id}:val"},
    ],
    "/console/schedules": [{}],
    "/console/{_}": [{}],
}
_NIGHTLY = {"name": "new", "cron": "0 3 * * *", "time_zone": "UTC", "dataset_name": "ours"}
_HELD_OUT = {"held_out": [{"dataset_id": "{dataset_id}", "split": "val"}]}
_GATE = {"evaluation_dataset_id": "{dataset_id}", "promote": False}
_FILES = {"format": "vinbigdata", "annotations": "ward/train.csv", "images": "ward/images"}
#: Operations that make rows, each with bodies that name the first project's and how these are answered.
BY_BODY: dict[str, list[tuple[dict[str, Any], int, str]]] = {
    "/v1/datasets": [
        ({"name": "taken", "source": {"format": "reviews", "project_id": "{project_id}"}}, 422, "invalid_request"),
        ({"name": "taken", "source": _FILES}, 403, "bucket_not_allowed"),
    ],
    "/v1/evaluations": [
        ({"dataset": "{dataset_id}"}, 404, "not_found"),
        ({"dataset": f"images {SECRET}"}, 404, "not_found"),
    ],
    "/v1/gate-decisions": [({"model_id": "{model_id}", "config": _GATE}, 404, "not_found")],
    "/v1/jobs/priority": [({"id": each, "priority": 9}, 404, "not_found") for each in ("{job_id}", "{study_id}")],
    "/v1/jobs/retry": [({"code": "internal_error"}, 200, "")],
    "/v1/keys": [({"scopes": ["system"]}, 403, "forbidden")],
    "/v1/patients/erase": [({"patient_id": SECRET}, 200, "")],
    "/v1/schedules": [
        ({**_NIGHTLY, "gate": _GATE}, 404, "not_found"),
        ({**_NIGHTLY, "config": _HELD_OUT}, 404, "not_found"),
    ],
    "/v1/trainings": [
        ({"dataset": "{dataset_id}"}, 404, "not_found"),
        ({"dataset": f"images {SECRET}"}, 404, "not_found"),
        ({"dataset": "ours", "gate": _GATE}, 404, "not_found"),
        ({"dataset": "ours", "config": _HELD_OUT}, 404, "not_found"),
    ],
    "/v1/submissions": [({"files": []}, 201, "")],
    "/v1/webhooks": [({"url": "https://127.0.0.1/", "events": ["job.finished"]}, 422, "webhook_address_not_allowed")],
}
#: Operations that take files; what they are sent names no row. Tests below send the first project's images.
BY_FILE = {"POST": ["/v1/studies", "/dicom-web/studies", _STUDY]}
#: What all projects share: to see it takes `read`, to change it takes `system`, which no key here has.
SHARED = {
    "GET": ["/v1/models", "/v1/models/{model_id}/weights", "/v1/projects"],
    "POST": ["/v1/models", "/v1/models/{model_id}/promote", "/v1/models/rollback"],
}
#: Weights are found by their digest; whoever may train may send them.
BY_DIGEST = {"PUT": ["/v1/weights/{sha256}"]}
#: What changes the project of the key, and names nothing.
OWN = {"PUT": ["/v1/project/retention"]}
#: Operations that take no key.
PUBLIC = {
    "GET": [
        *("/healthz", "/readyz", "/openapi.json", "/docs", "/docs/{name}"),
        *("/", "/console/", "/console/sign-in", "/console/static/{digest}/{path}"),
    ],
    "POST": ["/console/sign-in", "/console/sign-out"],
}


@pytest.fixture(autouse=True)
def _streams_end_at_once(api: Api) -> None:
    api._http.application.extensions[NAME].stopping.set()


@dataclass
class Ward:
    """The first project: a row of every kind, by the name that paths give its id."""

    ids: dict[str, Any]
    project_id: Any
    digests: set[str] = field(default_factory=set)

    def shows(self, text: str) -> set[str]:
        """Return what a text says of the project: its ids, digests and secrets; models are everybody's."""
        own = {str(value) for name, value in self.ids.items() if name not in ("model_id", "later", *_SMALL)}
        return {word for word in {*own, *self.digests, SECRET} if word in text}


_SMALL = ("attempt", "number", "frames", "_")


@pytest.fixture
def ward(api: Api, keys: Keys, database: Database, store: ObjectStore) -> Ward:
    """A row of every kind in the first project, with the objects behind them; and in the other one a dataset."""
    digests = {}
    for kind, key in (("coco", dataset_key), ("rendition", rendition_key)):
        digests[kind] = _put(store, kind, key)
    for kind in ("html", "json", "tfevents", "jsonl"):
        digests[kind] = _put(store, kind, lambda sha256, kind=kind: result_key(sha256, kind))
    with database.begin() as session:
        owner, stranger = verify_key(session, keys.submit), verify_key(session, keys.stranger)
        session.add(ours := _dataset(stranger.project_id, "ours", "1" * 64, None))
        project_id = owner.project_id
        dataset = _dataset(project_id, f"images {SECRET}", digests["coco"], digests["jsonl"])
        study = Study(project_id=project_id, study_instance_uid=STUDY)
        session.add_all((dataset, study))
        session.flush()
        image = Image(
            project_id=project_id, study_id=study.id, series_instance_uid=SERIES, sop_instance_uid=INSTANCE,
            sha256="a" * 64, byte_count=1, media_type="application/dicom", height_px=96, width_px=80,
            transfer_syntax_uid="1.2.840.10008.1.2.1", rendition_sha256=digests["rendition"], rendition_version=1,
            rendition_height_px=96, rendition_width_px=80, flags=["rotated"],
        )  # fmt: skip
        session.add(image)
        session.flush()
        result = add_result(session, image, "lungs")
        model = session.get_one(Model, result.model_id)
        failed = add_job(session, image, state=JobState.FAILED, code="internal_error", finished_at=sa.func.now())
        queued = add_job(session, image)
        event = {"project_id": project_id, "image_id": image.id, "model_id": model.id, "api_key_id": owner.key_id}
        session.add(ReviewEvent(**event, job_id=result.id, number=1, reader=SECRET, action="accept", rank=0))
        of_dataset = {"project_id": project_id, "dataset_id": dataset.id}
        schedule = create_schedule(
            session, project_id=project_id, name=f"nights {SECRET}", cron="0 3 * * *", time_zone="UTC",
            dataset_name=dataset.name, config=TrainingConfig(),
        )  # fmt: skip
        training = TrainingRun(
            **of_dataset, name=f"run {SECRET}", config=TrainingConfig().model_dump(mode="json"), config_digest="",
            events={"1": digests["tfevents"]}, log_tail=SECRET, model_id=model.id, schedule_id=schedule.id,
        )  # fmt: skip
        evaluation = Evaluation(
            **of_dataset, model_id=model.id, config={"split": "val"}, report_sha256=digests["html"],
            detections_sha256=digests["json"], state=TaskState.QUEUED,
        )  # fmt: skip
        webhook = Webhook(
            project_id=project_id, api_key_id=owner.key_id, url=f"https://{SECRET}.test", secret=SECRET, events=[]
        )
        submission = Submission(project_id=project_id, state=SubmissionState.OPEN, file_count=1)
        session.add_all((training, evaluation, webhook, submission))
        session.flush()
        decision = GateDecision(
            project_id=project_id, candidate_model_id=model.id, baseline_model_id=model.id, config={},
            training_run_id=training.id, explanation=SECRET, figures={},
        )  # fmt: skip
        audit = AuditEvent(project_id=project_id, action="studies.submit", subject={"said": SECRET})
        delivery = WebhookDelivery(webhook_id=webhook.id, event="ping", payload={"said": SECRET})
        expected = SubmissionFile(
            submission_id=submission.id, number=0, name=SECRET, state=FileState.EXPECTED, byte_count=1, sha256="b" * 64
        )
        point = TrainingPoint(training_run_id=training.id, step=1, epoch=0.1, values={})
        session.add_all((decision, audit, delivery, expected, point))
        session.flush()
        ids = {
            "project_id": project_id, "key_id": owner.key_id, "prefix": prefix_of(keys.submit), "audit_id": audit.id,
            "dataset_id": dataset.id,
            "study_id": study.id, "image_id": image.id, "job_id": queued.id, "failed_id": failed.id,
            "result_id": result.id, "model_id": model.id, "training_id": training.id, "evaluation_id": evaluation.id,
            "decision_id": decision.id, "schedule_id": schedule.id, "webhook_id": webhook.id,
            "delivery_id": delivery.id, "submission_id": submission.id, "study_uid": STUDY, "series_uid": SERIES,
            "instance_uid": INSTANCE, "sha256": image.sha256, "number": 0, "attempt": 1, "frames": "1", "_": "nowhere",
            "later": new_id(),
        }  # fmt: skip
        assert ours.project_id != project_id
    return Ward(ids, project_id, set(digests.values()))


def test_every_operation_says_how_it_names_its_rows(api: Api) -> None:
    described = {
        (method.upper(), path)
        for path, item in api.get("/openapi.json").get_json()["paths"].items()
        for method in item
        if method in ("get", "put", "post", "patch", "delete")
    }
    served = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in api._http.application.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    known = {
        (method, path)
        for table in (BY_PATH, EMPTY_BY_PATH, BY_FILE, BY_DIGEST, OWN, SHARED, PUBLIC)
        for method, paths in table.items()
        for path in paths
    }
    known |= {("GET", path) for path in LISTS} | {("POST", path) for path in BY_BODY}
    assert described | served == known


def test_the_project_itself_is_shown_its_rows(api: Api, keys: Keys, ward: Ward) -> None:
    """Else the other tests would show nothing."""
    own = api.as_(keys.admin)
    for path in ("/v1/datasets/{dataset_id}/coco", "/v1/evaluations/{evaluation_id}/report", "/v1/trainings"):
        answer = own.get(path.format(**ward.ids))
        assert (answer.status_code, SECRET in answer.get_data(as_text=True)) == (200, True), path
    for path, queries in LISTS.items():
        if path in (
            "/metrics",
            "/console/{_}",
            "/v1/queue",
            "/v1/queue/events",
            "/v1/queue/history",
            "/console/queue",
            "/console/models/compare",
        ):
            continue  # numbers, and failures that are kept from one look to the next
        shown = [own._http.get(path, headers=own._headers, query_string=_filled(query, ward.ids)) for query in queries]
        assert any(ward.shows(answer.get_data(as_text=True)) for answer in shown), path


def test_another_projects_ids_are_answered_as_ids_that_do_not_exist(
    api: Api, keys: Keys, ward: Ward, database: Database
) -> None:
    before = _contents(database, ward)
    nobodys = _nobodys(ward.ids)
    for table, status in ((BY_PATH, 404), (EMPTY_BY_PATH, 200)):
        for method, paths in table.items():
            for path in paths:
                body = _BODIES.get(path.rpartition("}")[2], {} if method == "PATCH" else None)
                theirs = _call(api, keys.stranger, method, path, ward.ids, body)
                missing = _call(api, keys.stranger, method, path, nobodys, body)
                assert theirs.status_code == missing.status_code == status, (method, path)
                assert _without(theirs, ward.ids) == _without(missing, nobodys), (method, path)
                assert set(theirs.headers.keys()) == set(missing.headers.keys()), (method, path)
    assert _contents(database, ward) == before


def test_lists_and_searches_show_nothing_of_another_project(api: Api, keys: Keys, ward: Ward) -> None:
    for path, queries in LISTS.items():
        for query in queries:
            asked = _filled(query, ward.ids)
            headers = {"Authorization": f"Bearer {keys.stranger}"}
            answer = api._http.get(path.format(_="nowhere"), headers=headers, query_string=asked)
            text = answer.get_data(as_text=True)
            said = {str(value) for value in asked.values()}  # a form shows again what was asked for
            assert answer.status_code < 400 or path == "/console/{_}", (path, query, text)
            assert ward.shows(text) <= said, (path, query)
    assert api.as_(keys.stranger).get("/v1/jobs", id=ward.ids["job_id"]).get_json() == {"jobs": []}


def test_bodies_that_name_another_projects_rows_are_refused(
    api: Api, keys: Keys, ward: Ward, database: Database
) -> None:
    before = _contents(database, ward)
    nobodys = _nobodys(ward.ids)
    for path, bodies in BY_BODY.items():
        for body, status, code in bodies:
            theirs = _call(api, keys.stranger, "POST", path, ward.ids, _filled(body, ward.ids))
            assert theirs.status_code == status, (path, body, theirs.get_data(as_text=True))
            if code:
                assert theirs.get_json()["code"] == code, (path, body)
                missing = _call(api, keys.stranger, "POST", path, nobodys, _filled(body, nobodys))
                assert _without(theirs, ward.ids) == _without(missing, nobodys), (path, body)
            else:
                assert not ward.shows(theirs.get_data(as_text=True)), (path, body)
    assert _contents(database, ward) == before


def test_what_all_projects_share_is_changed_with_the_scope_system_only(
    api: Api, keys: Keys, ward: Ward, database: Database
) -> None:
    for key in (keys.stranger, keys.admin):
        for path in SHARED["POST"]:
            answer = _call(api, key, "POST", path, ward.ids, None)
            assert (answer.status_code, answer.get_json()["code"]) == (403, "forbidden"), path
        for path, query in (
            ("/v1/models/{model_id}/weights", {}),
            ("/v1/audit-events", {"project": "*"}),
            ("/v1/projects", {}),
        ):
            answer = api.as_(key).get(path.format(**ward.ids), **query)
            assert (answer.status_code, answer.get_json()["code"]) == (403, "forbidden"), path
    gate = {"evaluation_dataset_id": str(ward.ids["dataset_id"])}
    own = api.as_(keys.admin)
    path = f"/v1/schedules/{ward.ids['schedule_id']}"
    for answer in (
        own.post("/v1/gate-decisions", {"model_id": str(ward.ids["model_id"]), "config": gate}),
        own.post("/v1/trainings", {"dataset": str(ward.ids["dataset_id"]), "gate": gate}),
        own.post("/v1/schedules", {**_NIGHTLY, "gate": gate}),
        own.patch(path, {"gate": gate}),
    ):
        assert (answer.status_code, answer.get_json()["code"]) == (403, "forbidden")
        assert "`promote` to false" in answer.get_json()["detail"]
    system = api.as_(keys.system)
    assert system.patch(path, {"gate": gate}).status_code == 200
    # Whoever may not promote may not change what is promoted, but may stop it.
    assert own.patch(path, {"config": {"seed": 7}}).status_code == 403
    assert own.patch(path, {"enabled": False}).status_code == 200
    assert own.patch(path, {"gate": gate | {"promote": False}}).status_code == 200
    reason = {"reason": "The gate refused it, for a test."}
    assert system.post(f"/v1/models/{ward.ids['model_id']}/promote", reason).status_code == 200


def test_the_same_image_is_no_duplicate_of_another_projects(api: Api, keys: Keys) -> None:
    (mine,) = api.send(("image.png", png())).get_json()["files"]
    (theirs,) = api.as_(keys.stranger).send(("image.png", png())).get_json()["files"]
    assert theirs["outcome"] == "accepted"
    assert not {mine[name] for name in ("study_id", "image_id", "job_id")} & set(theirs.values())
    digest = hashlib.sha256(png(1)).hexdigest()
    announced = {"files": [{"name": "a.png", "byte_count": len(png(1)), "sha256": digest}]}
    assert api.send(("other.png", png(1))).get_json()["files"][0]["outcome"] == "accepted"
    (upload,) = api.as_(keys.stranger).post("/v1/submissions", announced).get_json()["uploads"]
    assert upload["state"] == "expected"


def test_an_idempotency_key_is_the_api_keys_own(api: Api, keys: Keys) -> None:
    def begin(key: str):
        headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "once"}
        return api._http.post("/v1/submissions", headers=headers, json={"files": []})

    mine, theirs = begin(keys.both), begin(keys.stranger)
    assert (mine.status_code, theirs.status_code) == (201, 201)
    assert mine.get_json()["submission"]["id"] != theirs.get_json()["submission"]["id"]


def test_schedules_of_two_projects_may_have_one_name(api: Api, keys: Keys, ward: Ward) -> None:
    same = {**_NIGHTLY, "name": f"nights {SECRET}"}
    assert api.as_(keys.stranger).post("/v1/schedules", same).status_code == 201
    assert api.as_(keys.admin).post("/v1/schedules", same).get_json()["code"] == "schedule_exists"


#: By the end of a path; what a route wants to be told before it looks for its row.
_BODIES: dict[str, object] = {
    "/files": {"files": [{"name": "a", "byte_count": 1, "sha256": "0" * 64}]},
    "/arrived": {"numbers": [0]},
    "/reviews": {"job_id": "{result_id}", "after": 0, "event": {"action": "no_finding"}},
    "/reviews/undo": {"job_id": "{result_id}", "after": 1},
    "/reviews/redo": {"job_id": "{result_id}", "after": 1},
}


def _call(api: Api, key: str, method: str, path: str, ids: Mapping[str, Any], body: object):
    headers = {"Authorization": f"Bearer {key}", "If-None-Match": f'"{ids["sha256"]}"'}
    data = {} if method == "PUT" else {"json": _filled(body, ids)}
    with api._http.open(path.format(**ids), method=method, headers=headers, **data) as response:
        response.get_data()
        return response


def _filled(value: Any, ids: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(each, ids) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, ids) for each in value]
    name = value[1:-1] if isinstance(value, str) and re.fullmatch(r"\{\w+\}", value) else None
    return str(ids[name]) if name else value


def _nobodys(ids: Mapping[str, Any]) -> dict[str, Any]:
    """Ids of the same kinds that no row has; the model's stay, for models are shared."""
    uids = {"study_uid": "1.2.840.9", "series_uid": "1.2.840.9.1", "instance_uid": "1.2.840.9.1.1"}
    fresh = {name: new_id() for name in ids if name.endswith("_id") and name != "model_id"}
    return {**ids, **fresh, **uids, "sha256": "c" * 64, "prefix": "ab" * 6}


def _without(response: Any, ids: Mapping[str, Any]) -> str:
    """Return an answer without the ids that were asked for."""
    text = response.get_data(as_text=True)
    for name, value in sorted(ids.items(), key=lambda each: -len(str(each[1]))):
        if name not in (*_SMALL, "model_id"):
            text = text.replace(str(value), name)
    return text


def _put(store: ObjectStore, kind: str, key: Any) -> str:
    content = f"{kind} {SECRET}".encode()
    sha256 = hashlib.sha256(content).hexdigest()
    store.put(key(sha256), content)
    return sha256


def _dataset(project_id: Any, name: str, digest: str, failures: str | None) -> Dataset:
    done = {"state": TaskState.SUCCEEDED, "digest": digest, "failures_sha256": failures, "source": {"said": name}}
    return Dataset(project_id=project_id, name=name, image_count=1, **done)


def _contents(database: Database, ward: Ward) -> dict[str, list[str]]:
    """Every row of the project, of every table, as text."""
    with database.begin() as session:
        return {name: sorted(_rows(session, table, ward.project_id)) for name, table in Row.metadata.tables.items()}


def _rows(session: Session, table: sa.Table, project_id: Any) -> list[str]:
    children = {row.__tablename__: (column, parent) for row, (column, parent) in CHILDREN.items()}
    if "project_id" in table.columns:
        own = table.c.project_id == project_id
    elif table.name in children:
        column, parent = children[table.name]
        owners = parent.__table__
        own = table.c[column].in_(sa.select(owners.c.id).where(owners.c.project_id == project_id))
    else:
        return []
    return [str(row) for row in session.execute(sa.select(table).where(own))]
