"""The audit is the default: a new route is recorded by itself, and no change is made without its row."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from api.http.auth import is_public
from shared.access.keys import create_key, verify_key
from shared.database import Database
from shared.detector.demo import load_demo_model
from shared.settings import Settings
from shared.tables import AuditEvent, Job, Row
from shared.vocabulary.states import JobState, ModelState, Scope
from tests.integration.conftest import Api, png
from tests.integration.http.test_access import problem_of
from tests.integration.rows import add_dataset, add_image, add_job, add_model, add_result
from tests.synthetic_dicom import make_dicom, make_image

#: Reads that leave no row: they show nothing of a patient. Whoever adds one says why in the view's decorator.
UNAUDITED = {
    *("datasets.show", "datasets.show_all", "evaluations.show", "evaluations.show_all", "gate_decisions.show"),
    *("gate_decisions.show_all", "job_list.show_many", "jobs.show", "metrics.show", "model_pages.comparison"),
    *("model_pages.models", "models.show_all", "progress.show", "progress.stream", "queue.show", "queue.show_history"),
    *("queue.stream", "queue_page.queue", "schedule_pages.schedules", "schedules.show", "schedules.show_all"),
    *("submissions.show_all", "training_pages.training", "training_pages.trainings", "trainings.show"),
    *("trainings.show_all", "trainings.show_log", "trainings.show_points", "webhooks.show", "webhooks.show_all"),
}
#: Reads of which an answer 304 leaves no row: a page asks for them every few seconds.
POLLED = {"study_list.show_all", "worklist.studies"}

Call = Callable[[], Any]


def rows(database: Database) -> list[AuditEvent]:
    with database.begin() as session:
        found = list(session.scalars(sa.select(AuditEvent).order_by(AuditEvent.id)))
        session.expunge_all()
        return found


def test_only_these_reads_leave_no_row(api: Api) -> None:
    views = api._http.application.view_functions
    marked = {name: view.unaudited for name, view in views.items() if hasattr(view, "unaudited")}
    assert {name for name, (_, only) in marked.items() if only is None} == UNAUDITED
    assert {name: only for name, (_, only) in marked.items() if only is not None} == dict.fromkeys(POLLED, 304)
    assert all(reason.endswith(".") for reason, _ in marked.values())
    assert not any(is_public(views[name]) for name in marked)


def test_a_new_route_is_recorded_by_itself(api: Api, database: Database) -> None:
    app = api._http.application

    def added(number: str) -> tuple[str, int]:
        return number, int(number)

    vars(added)["access"] = Scope.READ
    app.add_url_rule("/v1/new/<number>", "new.show", added, methods=["GET", "POST"])
    assert [api.get(f"/v1/new/{status}").status_code for status in (200, 206, 404)] == [200, 206, 404]
    assert api.call("HEAD", "/v1/new/200").status_code == 200
    assert api.as_(None).get("/v1/new/200").status_code == 401
    assert api.call("POST", "/v1/new/409").status_code == 409
    recorded = [(row.action, row.subject["number"], row.status) for row in rows(database)]
    assert recorded == [("new.show", str(status), status) for status in (200, 206, 200, 409)]


def test_a_read_that_cannot_be_recorded_is_not_answered(api: Api, database: Database) -> None:
    (file,) = api.send(("a.png", png())).get_json()["files"]
    path = f"/v1/studies/{file['study_id']}"
    assert api.get(path).status_code == 200
    break_the_audit(database)
    response = api.get(path)
    assert (response.status_code, problem_of(response)) == (503, "database_unavailable")
    assert file["image_id"] not in response.get_data(as_text=True)
    assert api.get(f"/v1/jobs/{file['job_id']}").status_code == 200, "which shows nothing that is recorded"


# --- changes ---------------------------------------------------------------------------------------------------------


@dataclass
class Ward:
    """A project with one of everything, and somebody who may do anything to it."""

    api: Api
    database: Database
    project_id: UUID

    def post(self, path: str, body: object = None) -> Any:
        answer = self.api.post(path, body)
        assert answer.status_code < 300, answer.get_data(as_text=True)
        return answer.get_json()

    def submission(self, *digests: str) -> str:
        files = [{"byte_count": 4, "sha256": digest} for digest in digests]
        return self.post("/v1/submissions", {"files": files})["submission"]["id"]

    def send(self) -> dict[str, str]:
        return self.api.send(("a.png", png())).get_json()["files"][0]

    def store(self, path: str) -> Any:
        image = make_dicom(make_image(), SeriesInstanceUID="1.2.3.1")
        return self.api._http.post(path, data=image, headers={**self.api._headers, "Content-Type": "application/dicom"})

    def add(self, add: Callable[..., Any], *arguments: object, **named: object) -> Any:
        with self.database.begin() as session:
            row = add(session, *arguments, **named)
            session.flush()
            return row.id

    def review(self) -> tuple[str, dict[str, object]]:
        with self.database.begin() as session:
            image = add_image(session, self.project_id)
            job = add_result(session, image, "first")
            return f"/v1/images/{image.id}/reviews", {"job_id": str(job.id), "after": 0}

    def say(self) -> tuple[str, dict[str, object]]:
        path, seen = self.review()
        said = self.post(path, {**seen, "event": {"action": "accept", "finding_id": "model-0"}})
        return path, {**seen, "after": said["last_event"]}

    def take_back(self) -> tuple[str, dict[str, object]]:
        path, seen = self.say()
        return path, {**seen, "after": self.post(f"{path}/undo", seen)["last_event"]}

    def webhook(self) -> str:
        return f"/v1/webhooks/{self.post('/v1/webhooks', {'url': 'http://127.0.0.1/'})['id']}"

    def schedule(self) -> str:
        self.add(add_dataset)
        body = {"name": "nights", "cron": "0 3 * * *", "time_zone": "UTC", "dataset_name": "films"}
        return f"/v1/schedules/{self.post('/v1/schedules', body | NO_WEIGHTS)['id']}"

    def failed(self) -> None:
        with self.database.begin() as session:
            image = add_image(session, self.project_id)
            add_job(session, image, state=JobState.FAILED, code="worker_lost", finished_at=sa.func.now())


NO_WEIGHTS = {"config": {"initial_weights": "none"}}
#: As whom each change of the API is made; what it needs to be there is made first, and then a call is returned.
CHANGES: dict[tuple[str, str], Callable[[Ward], Call]] = {}


def changing(method: str, path: str) -> Callable[[Callable[[Ward], Call]], Callable[[Ward], Call]]:
    def add(prepare: Callable[[Ward], Call]) -> Callable[[Ward], Call]:
        CHANGES[method, path] = prepare
        return prepare

    return add


def posting(path: str, make: Callable[[Ward], tuple[str, object]]) -> None:
    """A POST with a JSON body, or none."""

    def prepare(ward: Ward) -> Call:
        address, body = make(ward)
        return lambda: ward.api.post(address, body)

    CHANGES["POST", path] = prepare


_SUBMISSION = "/v1/submissions/{submission_id}"
_DIGEST = hashlib.sha256(b"data").hexdigest()


def expected(ward: Ward, below: str = "") -> str:
    return f"/v1/submissions/{ward.submission(_DIGEST)}{below}"


posting("/v1/submissions", lambda _: ("/v1/submissions", {"files": [{"byte_count": 4, "sha256": _DIGEST}]}))
posting(f"{_SUBMISSION}/files", lambda w: (expected(w, "/files"), {"files": [{"byte_count": 1, "sha256": "1" * 64}]}))
posting(f"{_SUBMISSION}/arrived", lambda w: (expected(w, "/arrived"), {"numbers": [0]}))
posting(f"{_SUBMISSION}/complete", lambda w: (expected(w, "/complete"), None))
posting(f"{_SUBMISSION}/cancel", lambda w: (expected(w, "/cancel"), None))
posting("/v1/jobs/{job_id}/cancel", lambda w: (f"/v1/jobs/{w.send()['job_id']}/cancel", None))
posting("/v1/jobs/priority", lambda w: ("/v1/jobs/priority", {"id": w.send()["job_id"], "priority": 9}))
posting("/v1/models/{model_id}/promote", lambda w: (f"/v1/models/{w.add(add_model)}/promote", None))
posting("/v1/datasets", lambda _: ("/v1/datasets", {"name": "said", "source": {"format": "reviews"}}))
posting("/v1/trainings", lambda w: (w.add(add_dataset) and "/v1/trainings", {"dataset": "films", **NO_WEIGHTS}))
posting("/v1/webhooks", lambda _: ("/v1/webhooks", {"url": "http://127.0.0.1/"}))
posting("/v1/webhooks/{webhook_id}/test", lambda w: (f"{w.webhook()}/test", None))
posting("/v1/schedules/{schedule_id}/run", lambda w: (f"{w.schedule()}/run", None))


@changing("POST", "/v1/studies")
def submit(ward: Ward) -> Call:
    return lambda: ward.api.send(("a.png", png()))


@changing("DELETE", "/v1/studies/{study_id}")
def erase(ward: Ward) -> Call:
    path = f"/v1/studies/{ward.send()['study_id']}"
    return lambda: ward.api.delete(path)


@changing("POST", "/v1/patients/erase")
def erase_patient(ward: Ward) -> Call:
    image = make_dicom(make_image(), PatientID="4711")
    ward.api.send(("a.dcm", image))
    return lambda: ward.api.post("/v1/patients/erase", {"patient_id": "4711"})


@changing("PUT", "/v1/project/retention")
def change_retention(ward: Ward) -> Call:
    return lambda: ward.api.call("PUT", "/v1/project/retention", {"days": {"audit": 30}})


@changing("POST", "/v1/studies/{study_id}/jobs")
def rerun(ward: Ward) -> Call:
    path = f"/v1/studies/{ward.send()['study_id']}/jobs"
    with ward.database.begin() as session:
        session.execute(sa.update(Job).values(state=JobState.FAILED))
        add_model(session, state=ModelState.ACTIVE)
    return lambda: ward.api.post(path)


@changing("POST", "/dicom-web/studies")
def store(ward: Ward) -> Call:
    return lambda: ward.store("/dicom-web/studies")


@changing("POST", "/dicom-web/studies/{study_uid}")
def store_study(ward: Ward) -> Call:
    return lambda: ward.store("/dicom-web/studies/1.2.3")


@changing("PUT", f"{_SUBMISSION}/files/{{number}}/content")
def put(ward: Ward) -> Call:
    image = png()
    body = {"files": [{"byte_count": len(image), "sha256": hashlib.sha256(image).hexdigest()}]}
    path = f"/v1/submissions/{ward.post('/v1/submissions', body)['submission']['id']}/files/0/content"
    return lambda: ward.api.put(path, image)


@changing("POST", f"{_SUBMISSION}/retry")
def retry(ward: Ward) -> Call:
    path = expected(ward)
    ward.api.put(f"{path}/files/0/content", b"data")  # which is rejected, and so not tried again
    ward.post(f"{path}/files", {"files": [{"byte_count": 4, "sha256": "1" * 64}]})
    ward.api.put(f"{path}/files/1/content", b"data")  # which was damaged on its way
    return lambda: ward.api.post(f"{path}/retry")


@changing("POST", "/v1/jobs/retry")
def retry_jobs(ward: Ward) -> Call:
    ward.failed()
    return lambda: ward.api.post("/v1/jobs/retry", {"code": "worker_lost"})


@changing("POST", "/v1/images/{image_id}/reviews")
def say(ward: Ward) -> Call:
    path, seen = ward.review()
    return lambda: ward.api.post(path, {**seen, "event": {"action": "no_finding"}})


@changing("POST", "/v1/images/{image_id}/reviews/undo")
def undo(ward: Ward) -> Call:
    path, seen = ward.say()
    return lambda: ward.api.post(f"{path}/undo", seen)


@changing("POST", "/v1/images/{image_id}/reviews/redo")
def redo(ward: Ward) -> Call:
    path, seen = ward.take_back()
    return lambda: ward.api.post(f"{path}/redo", seen)


@changing("POST", "/v1/keys")
def create_another_key(ward: Ward) -> Call:
    return lambda: ward.api.post("/v1/keys", {"name": "another"})


@changing("POST", "/v1/keys/{prefix}/revoke")
def revoke_another_key(ward: Ward) -> Call:
    prefix = ward.post("/v1/keys", {"name": "another"})["prefix"]
    return lambda: ward.api.post(f"/v1/keys/{prefix}/revoke")


def put_weights(ward: Ward) -> Any:
    """Send the demo model's weights, of which no row tells before there is a model."""
    card, weights = load_demo_model()
    return ward.api.put(f"/v1/weights/{card.weights_sha256}", weights)


@changing("PUT", "/v1/weights/{sha256}")
def send_weights(ward: Ward) -> Call:
    return lambda: put_weights(ward)


@changing("POST", "/v1/models")
def register_model(ward: Ward) -> Call:
    assert put_weights(ward).status_code == 200
    body = {"card": load_demo_model()[0].model_dump(mode="json")}
    return lambda: ward.api.post("/v1/models", body)


@changing("POST", "/v1/models/rollback")
def roll_back(ward: Ward) -> Call:
    for name in ("first", "second"):
        ward.post(f"/v1/models/{ward.add(add_model, name)}/promote")
    return lambda: ward.api.post("/v1/models/rollback")


def evaluated(ward: Ward) -> str:
    ward.add(add_dataset)
    ward.add(add_model, state=ModelState.ACTIVE)
    return f"/v1/evaluations/{ward.post('/v1/evaluations', {'dataset': 'films'})['id']}"


@changing("POST", "/v1/evaluations")
def evaluate(ward: Ward) -> Call:
    evaluated(ward)
    return lambda: ward.api.post("/v1/evaluations", {"dataset": "films", "config": {"split": "test"}})


@changing("POST", "/v1/gate-decisions")
def ask_gate(ward: Ward) -> Call:
    body = {"model_id": str(ward.add(add_model)), "config": {"evaluation_dataset_id": str(ward.add(add_dataset))}}
    return lambda: ward.api.post("/v1/gate-decisions", body)


posting("/v1/evaluations/{evaluation_id}/cancel", lambda w: (f"{evaluated(w)}/cancel", None))


@changing("POST", "/v1/datasets/{dataset_id}/cancel")
def cancel_dataset(ward: Ward) -> Call:
    made = ward.post("/v1/datasets", {"name": "said", "source": {"format": "reviews"}})
    return lambda: ward.api.post(f"/v1/datasets/{made['id']}/cancel")


@changing("POST", "/v1/trainings/{training_id}/cancel")
def cancel_training(ward: Ward) -> Call:
    ward.add(add_dataset)
    made = ward.post("/v1/trainings", {"dataset": "films", **NO_WEIGHTS})
    return lambda: ward.api.post(f"/v1/trainings/{made['id']}/cancel")


@changing("POST", "/v1/trainings/{training_id}/resume")
def resume_training(ward: Ward) -> Call:
    cancel_training(ward)()
    (training,) = ward.api.get("/v1/trainings").get_json()["trainings"]
    return lambda: ward.api.post(f"/v1/trainings/{training['id']}/resume")


@changing("POST", "/v1/schedules")
def create_schedule(ward: Ward) -> Call:
    body = {"name": "nights", "cron": "0 3 * * *", "time_zone": "UTC", "dataset_name": "films", **NO_WEIGHTS}
    return lambda: ward.api.post("/v1/schedules", body)


@changing("PATCH", "/v1/schedules/{schedule_id}")
def change_schedule(ward: Ward) -> Call:
    path = ward.schedule()
    return lambda: ward.api.patch(path, {"enabled": False})


@changing("DELETE", "/v1/schedules/{schedule_id}")
def delete_schedule(ward: Ward) -> Call:
    path = ward.schedule()
    return lambda: ward.api.delete(path)


@changing("PATCH", "/v1/webhooks/{webhook_id}")
def change_webhook(ward: Ward) -> Call:
    path = ward.webhook()
    return lambda: ward.api.patch(path, {"enabled": False})


@changing("DELETE", "/v1/webhooks/{webhook_id}")
def delete_webhook(ward: Ward) -> Call:
    path = ward.webhook()
    return lambda: ward.api.delete(path)


@changing("POST", "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver")
def redeliver(ward: Ward) -> Call:
    path = ward.webhook()
    message = ward.post(f"{path}/test")
    with ward.database.begin() as session:
        session.execute(sa.text("UPDATE webhook_delivery SET state = 'dead'"))
    return lambda: ward.api.post(f"{path}/deliveries/{message['id']}/redeliver")


@pytest.fixture
def ward(make_api: Callable[[Settings], Api], settings: Settings, database: Database) -> Ward:
    http = make_api(settings.model_copy(update={"webhook_allow_private": True}))
    with database.begin() as session:
        key = create_key(session, project_name="ward", name="all", scopes=list(Scope))
        session.flush()
        return Ward(http.as_(key), database, verify_key(session, key).project_id)


def test_every_change_of_the_api_is_tried_here(api: Api) -> None:
    paths = api.get("/openapi.json").get_json()["paths"]
    described = {(method.upper(), path) for path, item in paths.items() for method in item}
    assert {change for change in described if change[0] != "GET"} == set(CHANGES)


@pytest.mark.parametrize("change", CHANGES, ids=" ".join)
def test_a_change_and_its_row_are_one_transaction(change: tuple[str, str], ward: Ward) -> None:
    call = CHANGES[change](ward)
    before = contents(ward.database)
    mend = break_the_audit(ward.database)
    refused = call()
    assert (refused.status_code, problem_of(refused)) == (503, "database_unavailable")
    assert contents(ward.database) == before, "nothing was changed"
    mend()
    known, since = {row.id for row in rows(ward.database)}, next_transaction(ward.database)
    done = call()
    assert done.status_code < 300, done.get_data(as_text=True)
    added = [row for row in rows(ward.database) if row.id not in known]
    assert [row.status for row in added] == [done.status_code]
    changing, recording = transactions(ward.database, since)
    assert changing <= recording
    deletes = change[0] == "DELETE" or change[1].endswith("/erase")
    assert deletes or changing or change == ("PUT", "/v1/weights/{sha256}")


def break_the_audit(database: Database) -> Call:
    """Have no row be written to the audit; return what mends it."""
    raising = "RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'full'; END $$"
    with database.begin() as session:
        session.execute(sa.text(f"CREATE FUNCTION refuse() {raising}"))
        trigger = "CREATE TRIGGER refused BEFORE INSERT ON audit_event FOR EACH ROW EXECUTE FUNCTION refuse()"
        session.execute(sa.text(trigger))

    def mend() -> None:
        with database.begin() as session:
            session.execute(sa.text("DROP FUNCTION refuse CASCADE"))

    return mend


def contents(database: Database) -> dict[str, list[str]]:
    """Every row of every table."""
    with database.begin() as session:
        tables = sorted(Row.metadata.tables)
        return {name: sorted(session.scalars(sa.text(f"SELECT t::text FROM {name} t"))) for name in tables}


def next_transaction(database: Database) -> int:
    with database.begin() as session:
        return session.scalars(sa.text("SELECT txid_current()")).one()


def transactions(database: Database, since: int) -> tuple[set[int], set[int]]:
    """Those that have left rows since then, and of them those that have left a row in the audit."""
    found: dict[str, set[int]] = {}
    with database.begin() as session:
        for name in Row.metadata.tables:
            later = sa.text(f"SELECT DISTINCT xmin::text::bigint FROM {name} WHERE xmin::text::bigint > :since")
            found[name] = set(session.scalars(later, {"since": since}))
    recording = found.pop("audit_event")
    del found["erased_object"]  # what an erasure goes on with, as the sweep does
    return set().union(*found.values()), recording
