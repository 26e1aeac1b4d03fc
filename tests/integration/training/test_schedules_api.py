"""Schedules, the gate and promotions over HTTP."""

from datetime import datetime
from typing import Any

import pytest

from shared.database import Database
from shared.ids import new_id
from shared.training.config import GateConfig, TrainingConfig
from shared.training.recipes import RECIPES
from shared.vocabulary.states import ModelState
from tests.integration.conftest import Api, Keys
from tests.integration.rows import add_dataset, add_model

SUNDAY = {"name": "sundays", "cron": "0 3 * * 0", "time_zone": "Europe/Berlin", "dataset_name": "films"}


@pytest.fixture
def trainer(api: Api, keys: Keys) -> Api:
    """The API with a key that may read, train and promote."""
    return api.as_(keys.system)


@pytest.fixture
def dataset_id(database: Database) -> str:
    with database.begin() as session:
        return str(add_dataset(session).id)


def expect(response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.get_data(as_text=True)
    return response.get_json()


def test_a_schedule_from_its_creation_to_its_end(trainer: Api, dataset_id: str) -> None:
    gate = {"evaluation_dataset_id": dataset_id, "least_gain": 0.01}
    asked = SUNDAY | {"recipe": "reference", "config": {"epochs": 3, "augmentation": {"noise": 0.1}}, "gate": gate}
    made = expect(trainer.post("/v1/schedules", asked), 201)
    config = TrainingConfig.model_validate(made["config"])
    assert (config.epochs, config.augmentation.noise, config.milestones) == (3, 0.1, (3, 6, 9))
    assert GateConfig.model_validate(made["gate"]) == GateConfig.model_validate(gate)
    assert (made["overlap"], made["skip_unchanged"], made["enabled"]) == ("skip", True, True)
    due = datetime.fromisoformat(made["next_at"])
    assert (due.weekday(), due.hour in (1, 2), due.minute) == (6, True, 0)

    path = f"/v1/schedules/{made['id']}"
    assert expect(trainer.get(path), 200) == made
    assert expect(trainer.get("/v1/schedules"), 200) == {"schedules": [made]}

    changed = expect(trainer.patch(path, {"config": {"seed": 7}, "overlap": "queue"}), 200)
    assert TrainingConfig.model_validate(changed["config"]) == config.model_copy(update={"seed": 7})
    assert (changed["overlap"], changed["next_at"], changed["gate"]) == ("queue", made["next_at"], made["gate"])
    anew = expect(trainer.patch(path, {"recipe": "default", "gate": None}), 200)
    assert TrainingConfig.model_validate(anew["config"]) == RECIPES["default"]
    assert anew["gate"] is None
    assert expect(trainer.patch(path, {"enabled": False}), 200)["next_at"] is None
    assert expect(trainer.patch(path, {"enabled": True, "cron": "0 4 * * 0"}), 200)["next_at"] > made["next_at"]

    run = expect(trainer.post(f"{path}/run"), 202)
    assert (run["schedule_id"], run["dataset_id"], run["state"]) == (made["id"], dataset_id, "queued")
    assert expect(trainer.get(path), 200)["last_outcome"] == f"Started by hand: run {run['id']}."

    assert trainer.delete(path).status_code == 204
    assert expect(trainer.get(path), 404)["code"] == "not_found"
    assert expect(trainer.get(f"/v1/trainings/{run['id']}"), 200)["schedule_id"] is None


def test_what_could_never_run_is_refused_and_changes_nothing(trainer: Api) -> None:
    path = f"/v1/schedules/{expect(trainer.post('/v1/schedules', SUNDAY), 201)['id']}"
    before = expect(trainer.get(path), 200)
    refusals: list[tuple[dict[str, Any], int, str]] = [
        ({"cron": "0 3 * *"}, 422, "invalid_cron"),
        ({"cron": "0 3 31 2 *"}, 422, "invalid_cron"),
        ({"time_zone": "Mars/Olympus"}, 422, "invalid_time_zone"),
        ({"config": {"epochs": 0}}, 422, "invalid_request"),
        ({"config": {"epoch": 1}}, 422, "invalid_request"),
        ({"recipe": "best"}, 422, "invalid_request"),
        ({"overlap": "both"}, 422, "invalid_request"),
        ({"dataset_name": ""}, 422, "invalid_request"),
        ({"config": {"initial_weights": f"model:{new_id()}"}}, 404, "not_found"),
        ({"config": {"initial_weights": "object:" + "0" * 64}}, 404, "not_found"),
        ({"gate": {"evaluation_dataset_id": str(new_id())}}, 404, "not_found"),
        ({"enabled": None}, 422, "invalid_request"),
        ({"next_at": "2026-01-01"}, 422, "invalid_request"),
    ]
    for change, status, code in refusals:
        asked = SUNDAY | {"name": "other"} | change
        for response in (trainer.post("/v1/schedules", asked), trainer.patch(path, change)):
            assert expect(response, status)["code"] == code, change
    assert expect(trainer.get("/v1/schedules"), 200) == {"schedules": [before]}


def test_a_name_is_taken_and_a_run_needs_a_dataset(trainer: Api) -> None:
    made = expect(trainer.post("/v1/schedules", SUNDAY), 201)
    assert expect(trainer.post("/v1/schedules", SUNDAY), 409)["code"] == "schedule_exists"
    assert expect(trainer.post(f"/v1/schedules/{made['id']}/run"), 409)["code"] == "not_ready"


def test_a_decision_is_asked_for_and_shown(trainer: Api, database: Database, dataset_id: str) -> None:
    with database.begin() as session:
        model_id = str(add_model(session).id)
    config = {"evaluation_dataset_id": dataset_id, "evaluation": {"split": "test"}, "promote": False}
    asked = expect(trainer.post("/v1/gate-decisions", {"model_id": model_id, "config": config}), 202)
    assert (asked["state"], asked["candidate_model_id"], asked["promoted"]) == ("queued", model_id, None)
    assert GateConfig.model_validate(asked["config"]) == GateConfig.model_validate(config)
    assert expect(trainer.get(f"/v1/gate-decisions/{asked['id']}"), 200) == asked
    assert expect(trainer.get("/v1/gate-decisions"), 200) == {"gate_decisions": [asked], "next": None}
    assert expect(trainer.get(f"/v1/gate-decisions/{new_id()}"), 404)["code"] == "not_found"
    unknown = {"model_id": str(new_id()), "config": config}
    assert expect(trainer.post("/v1/gate-decisions", unknown), 404)["code"] == "not_found"


def test_a_model_is_promoted_and_rolled_back(trainer: Api, database: Database) -> None:
    with database.begin() as session:
        old, new = add_model(session, "old", ModelState.ACTIVE).id, add_model(session, "new").id
    promoted = expect(trainer.post(f"/v1/models/{new}/promote"), 200)
    assert (promoted["state"], promoted["promoted_at"] is None) == ("active", False)
    back = expect(trainer.post("/v1/models/rollback"), 200)
    assert (back["id"], back["state"]) == (str(old), "active")
    assert expect(trainer.post("/v1/models/rollback"), 409)["code"] == "nothing_to_roll_back_to"
    assert expect(trainer.post(f"/v1/models/{new_id()}/promote"), 404)["code"] == "not_found"
