"""Promotion by a person: the gate's decision and both figures are shown, and a refusal needs a reason that is kept."""

import json
from collections.abc import Callable
from uuid import UUID

import pytest
from playwright.sync_api import Page, expect

from shared.access.keys import verify_key
from shared.database import Database
from shared.models import registry
from shared.tables import AuditEvent, GateDecision, Model
from shared.vocabulary.states import TaskState
from tests.integration.conftest import Api, Keys, Server
from tests.integration.rows import add_model

REASON = "Better on the images of our new machine."


@pytest.fixture
def active(database: Database) -> UUID:
    with database.begin() as session:
        return registry.promote(session, add_model(session, "veteran").id).id


@pytest.fixture
def candidate(database: Database) -> UUID:
    with database.begin() as session:
        return add_model(session, "newcomer").id


@pytest.fixture
def decide(database: Database, active: UUID, candidate: UUID) -> Callable[..., None]:
    """Has the gate decide about the candidate, in the project of a key."""

    def add(key: str, *, passes: bool, state: TaskState = TaskState.SUCCEEDED) -> None:
        figures = {
            "passes": passes,
            "candidate_map40": 0.41 + 0.2 * passes,
            "active_map40": 0.55,
            "gain": -0.14,
            "low": -0.2,
            "high": -0.1,
        }
        done = {"promoted": False, "figures": figures} if state is TaskState.SUCCEEDED else {}
        with database.begin() as session:
            project_id = verify_key(session, key).project_id
            of = {"project_id": project_id, "candidate_model_id": candidate, "baseline_model_id": active}
            session.add(GateDecision(**of, config={}, state=state, explanation="Refused for a class.", **done))

    return add


def is_active(database: Database, model_id: UUID) -> bool:
    with database.begin() as session:
        return session.get_one(Model, model_id).state == "active"


def test_a_refusal_is_overridden_with_a_reason_that_the_audit_keeps(
    api: Api, keys: Keys, database: Database, candidate: UUID, decide: Callable[..., None]
) -> None:
    system, path = api.as_(keys.system), f"/v1/models/{candidate}/promote"
    decide(keys.system, passes=False)
    shown = next(one for one in system.get("/v1/models").get_json()["models"] if one["id"] == str(candidate))
    gate = shown["gate"]
    assert (gate["outcome"], gate["candidate_map40"], gate["active_map40"]) == ("refused", 0.41, 0.55)
    for body in (None, {}, {"reason": None}):
        refused = system.post(path, body)
        problem = refused.get_json()
        assert (refused.status_code, problem["code"]) == (409, "promotion_refused"), body
        assert "0.4100" in problem["detail"]
        assert "0.5500 of the active model" in problem["detail"]
        assert [error["name"] for error in problem["errors"]] == ["reason"]
    for reason in ("", "  ", "x" * 501, "two\nlines", 7):
        assert system.post(path, {"reason": reason}).status_code == 422, reason
    assert not is_active(database, candidate)

    answer = system.post(path, {"reason": f" {REASON} "})
    assert (answer.status_code, answer.get_json()["gate"]) == (200, gate)
    assert is_active(database, candidate)
    (event,) = api.as_(keys.system).get("/v1/audit-events", action="models.promote", limit=1).get_json()["events"]
    assert event["subject"]["reason"] == REASON
    assert (event["subject"]["gate"], event["subject"]["gate_decision_id"]) == ("refused", gate["decision_id"])


def test_no_reason_is_needed_where_the_gate_has_not_refused(
    api: Api, keys: Keys, database: Database, active: UUID, candidate: UUID, decide: Callable[..., None]
) -> None:
    system = api.as_(keys.system)
    assert system.post(f"/v1/models/{candidate}/promote").get_json()["gate"] is None
    assert system.post(f"/v1/models/{active}/promote", {}).status_code == 200
    decide(keys.system, passes=False)
    decide(keys.system, passes=True)
    decide(keys.system, passes=False, state=TaskState.QUEUED)  # not decided: the last one that is counts
    answer = system.post(f"/v1/models/{candidate}/promote")
    assert (answer.status_code, answer.get_json()["gate"]["outcome"]) == (200, "passed")
    decide(keys.system, passes=False)
    assert system.post(f"/v1/models/{candidate}/promote").status_code == 200, "it is active already"


def test_a_refusal_in_another_project_counts_and_shows_its_figures_only(
    api: Api, keys: Keys, candidate: UUID, decide: Callable[..., None]
) -> None:
    decide(keys.stranger, passes=False)
    system = api.as_(keys.system)
    shown = next(one for one in system.get("/v1/models").get_json()["models"] if one["id"] == str(candidate))
    assert shown["gate"] is None
    refused = system.post(f"/v1/models/{candidate}/promote")
    assert (refused.status_code, refused.get_json()["code"]) == (409, "promotion_refused")
    assert "Refused for a class" not in refused.get_data(as_text=True)


def test_the_command_asks_for_a_reason_too(
    operator: None,
    carina: Callable[..., str],
    keys: Keys,
    database: Database,
    candidate: UUID,
    decide: Callable[..., None],
) -> None:
    decide(keys.system, passes=False)
    said = " ".join(carina("model", "promote", str(candidate), code=1).split())
    assert "promotion_refused" in said
    assert "mAP@0.4 0.4100; 0.5500 of the active model" in said
    assert "at least 1 character" in " ".join(
        carina("model", "promote", str(candidate), "--reason", " ", code=2).split()
    )
    assert not is_active(database, candidate)
    answer = json.loads(carina("model", "promote", str(candidate), "--reason", REASON, "--json"))
    assert (answer["gate"]["outcome"], answer["gate"]["candidate_map40"]) == ("refused", 0.41)
    with database.begin() as session:
        event = session.query(AuditEvent).filter_by(action="models.promote", status=200).one()
        assert (event.subject["reason"], event.subject["gate"]) == (REASON, "refused")


def test_the_page_shows_the_decision_and_asks_for_the_reason(
    server: Server,
    open_console: Callable[..., Page],
    keys: Keys,
    database: Database,
    candidate: UUID,
    decide: Callable[..., None],
) -> None:
    decide(keys.system, passes=False)
    page = open_console(server.url, keys.system)
    page.goto("/console/models")
    words = "The gate refused this model. mAP@0.4 0.4100; 0.5500 of the active model."
    section = page.get_by_role("region", name="newcomer")
    expect(section).to_contain_text(words)
    section.get_by_role("button", name="Promote").click()
    dialog = page.get_by_role("dialog", name="Promote newcomer?")
    expect(dialog).to_contain_text(words)
    dialog.get_by_role("button", name="Promote").click()
    reason = dialog.get_by_label("Reason for promoting it anyway")
    expect(reason).to_have_attribute("aria-invalid", "true")
    assert not is_active(database, candidate)
    reason.fill(REASON)
    dialog.get_by_role("button", name="Promote").click()
    expect(page.get_by_text("newcomer is active now.")).to_be_visible()
    assert is_active(database, candidate)
