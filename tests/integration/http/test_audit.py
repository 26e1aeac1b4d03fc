"""Every change and every look at pixels leaves a row."""

from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import sqlalchemy as sa

from shared.access.keys import verify_key
from shared.database import Database
from shared.tables import AuditEvent
from tests.integration.conftest import Api, Keys, png
from tests.integration.http.test_access import problem_of
from tests.integration.workshop import Workshop


def events(api: Api, keys: Keys, **query: object) -> list[dict]:
    return api.as_(keys.admin).get("/v1/audit-events", **query).get_json()["events"]


def test_a_submission_leaves_a_row_without_the_name_of_the_file(api: Api, keys: Keys, database: Database) -> None:
    (file,) = api.send(("DOE^JANE.png", png())).get_json()["files"]
    (event,) = events(api, keys)
    with database.begin() as session:
        me = verify_key(session, keys.both).key_id
    assert event["action"] == "studies.submit"
    assert (event["api_key_id"], event["status"], event["remote_address"]) == (str(me), 202, "127.0.0.1")
    assert event["subject"] == {"files": 1, "study_ids": [file["study_id"]]}
    with database.begin() as session:
        assert "DOE" not in str(session.execute(sa.text("SELECT * FROM audit_event")).all())


def test_what_was_tried_in_vain_leaves_a_row_too(api: Api, keys: Keys) -> None:
    nobody = str(uuid4())
    api.post(f"/v1/jobs/{nobody}/cancel")
    api.post("/v1/trainings", {})
    api.as_(keys.train).post("/v1/trainings", {})
    api.as_(None).post("/v1/trainings", {})  # of no key: strangers do not fill the table
    found = [(event["action"], event["status"], event["subject"]) for event in events(api, keys)]
    assert found == [
        ("trainings.train", 422, {}),
        ("trainings.train", 403, {}),
        ("jobs.cancel", 404, {"job_id": nobody}),
    ]


def test_what_is_made_is_named(api: Api, keys: Keys) -> None:
    made = api.post("/v1/submissions", {"files": []}).get_json()
    (event,) = events(api, keys)
    assert made["submission"]["id"] in event["subject"].values()


def test_each_look_at_a_study_leaves_a_row_and_a_look_at_a_job_none(
    api: Api, keys: Keys, workshop: Workshop, database: Database
) -> None:
    (file,) = api.send(("a.png", png())).get_json()["files"]
    path = f"/v1/images/{file['image_id']}/rendition.png"
    assert api.get(path).status_code == 409
    with workshop.preparing() as prepare:
        prepare.run()
    assert api.get(path).status_code == 200
    api.get(f"/v1/studies/{file['study_id']}")
    api.get("/v1/studies")
    api.get(f"/v1/jobs/{file['job_id']}")
    looked = [(event["action"], event["subject"], event["status"]) for event in events(api, keys)[:-1]]
    assert looked == [
        ("study_list.show_all", {"study_ids": [file["study_id"]]}, 200),
        ("studies.show", {"study_id": file["study_id"]}, 200),
        ("images.rendition", {"image_id": file["image_id"]}, 200),
    ]

    with database.begin() as session:
        session.execute(sa.text("ALTER TABLE audit_event ADD CONSTRAINT closed CHECK (false) NOT VALID"))
    response = api.get(path)
    assert (response.status_code, problem_of(response)) == (503, "database_unavailable")
    assert response.headers["Retry-After"]


def test_the_rows_come_in_pages_and_are_a_projects_own(api: Api, keys: Keys, database: Database) -> None:
    for seed in range(5):
        api.send(("a.png", png(seed)))
    api.as_(keys.stranger).post(f"/v1/jobs/{uuid4()}/cancel")
    admin = api.as_(keys.admin)
    first = admin.get("/v1/audit-events", limit=3).get_json()
    second = admin.get("/v1/audit-events", limit=3, before=first["next"]).get_json()
    ids = [event["id"] for page in (first, second) for event in page["events"]]
    assert len(set(ids)) == 5
    assert ids == sorted(ids, reverse=True)
    assert second["next"] is None
    (theirs,) = events(api.as_(keys.stranger), keys=replace(keys, admin=keys.stranger))
    assert theirs["action"] == "jobs.cancel"
    with database.begin() as session:
        me = verify_key(session, keys.both).key_id
    assert len(events(api, keys, api_key_id=me)) == 5
    assert events(api, keys, api_key_id=uuid4()) == []


def test_the_command_line_shows_rows_and_leaves_its_own(
    local_operator: None, api: Api, keys: Keys, carina: Callable[..., str], database: Database
) -> None:
    api.send(("a.png", png()))
    limited = ("--expires-days", "30", "--rate-limit", "600/minute", "--files-per-day", "9")
    key = carina("key", "create", "ward 7", *limited).splitlines()[-1]  # after what the API has logged
    prefix = key.split("_")[1]
    listed = carina("key", "list")
    assert "600/minute, 9 files/day" in listed
    assert "live until" in listed
    carina("key", "revoke", prefix)
    elsewhere = carina("key", "create", "--project", "lungs").split("_")[1]
    shown = carina("audit")
    assert shown.index("keys.revoke") < shown.index("keys.create") < shown.index("studies.submit")
    assert elsewhere not in shown
    assert carina("audit", "--action", "keys.create", "--json").count(prefix) == 1
    assert keys.both.split("_")[1] in carina("audit", "--key", keys.both.split("_")[1])
    assert "studies.submit" not in carina("audit", "--since", "2999-01-01")
    everywhere = carina("audit", "--project", "*")
    assert "cli" in everywhere
    assert elsewhere in everywhere
    assert "studies.submit" in carina("audit", "--project", "ward")
    assert "studies.submit" not in carina("audit", "--project", "lungs")
    assert "Did you mean studies.submit?" in carina("audit", "--action", "study.submit", code=2)
    assert "studies.erase" not in carina("audit", "--action", "studies.erase")  # known, though nobody has done it yet
    assert f"Did you mean {prefix}?" in carina("audit", "--key", prefix[:-1], code=1)
    assert "Did you mean ward?" in carina("audit", "--project", "wrd", code=1)
    assert "is not a rate limit" in carina("key", "create", "--rate-limit", "often", code=2)
    with database.begin() as session:
        assert key.strip().split("_", 2)[2] not in str(session.scalars(sa.select(AuditEvent.subject)).all())
