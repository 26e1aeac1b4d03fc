"""`carina schedule` and `carina gate`, as somebody types them."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from shared.database import Database
from shared.ids import new_id
from shared.tables import GateDecision, TrainingRun
from shared.training.config import GateConfig, TrainingConfig
from shared.vocabulary.states import TaskState
from tests.integration.cli.test_commands import FAILED, USAGE
from tests.integration.rows import add_dataset, add_model

pytestmark = pytest.mark.usefixtures("operator")

SUNDAYS = ["schedule", "create", "sundays", "--cron", "0 3 * * 0", "--time-zone", "Europe/Berlin", "--dataset", "films"]


def shown(carina: Callable[..., str]) -> dict[str, Any]:
    return json.loads(carina("schedule", "show", "sundays", "--json"))


def test_a_schedule_from_its_creation_to_its_end(carina: Callable[..., str], database: Database) -> None:
    with database.begin() as session:
        dataset_id = add_dataset(session).id
    options = ["--recipe", "reference", "--epochs", "3", "--set", "augmentation.gamma=[0.8,1.2]", "--seed", "7"]
    gate = ["--gate-dataset", "films", "--gate-split", "test", "--least-gain", "0.01"]
    said = carina(*SUNDAYS, *options, *gate, "--overlap", "queue", "--always")
    made = shown(carina)
    assert said.split()[0] == made["id"]
    assert "03:00 CE" in said, "on the schedule's own clock"
    config = TrainingConfig.model_validate(made["config"])
    assert (config.epochs, config.seed, config.augmentation.gamma, config.milestones) == (3, 7, (0.8, 1.2), (3, 6, 9))
    decided = GateConfig.model_validate(made["gate"])
    assert (decided.evaluation_dataset_id, decided.evaluation.split, decided.least_gain) == (dataset_id, "test", 0.01)
    assert (made["overlap"], made["skip_unchanged"]) == ("queue", False)

    carina("schedule", "update", "sundays", "--set", "epochs=4", "--most-class-drop", "0.1", "--when-changed")
    changed = shown(carina)
    assert TrainingConfig.model_validate(changed["config"]) == config.model_copy(update={"epochs": 4})
    assert GateConfig.model_validate(changed["gate"]) == decided.model_copy(update={"most_class_drop": 0.1})
    assert (changed["skip_unchanged"], changed["next_at"]) == (True, made["next_at"])

    assert "never: disabled" in carina("schedule", "disable", "sundays")
    assert "03:00" in carina("schedule", "enable", "sundays")
    carina("schedule", "update", "sundays", "--no-gate", "--recipe", "default")
    assert (shown(carina)["gate"], shown(carina)["config"]["epochs"]) == (None, TrainingConfig().epochs)

    useless = carina("schedule", "update", "sundays", "--recipe", "fine_tune", code=FAILED)
    assert "starts from a trained model" in useless

    run_id = carina("schedule", "run", "sundays").split()[1]
    with database.begin() as session:
        run = session.query(TrainingRun).one()
        assert (str(run.id), run.state, run.dataset_id) == (run_id, TaskState.QUEUED, dataset_id)
    assert f"Started by hand: run {run_id}" in " ".join(carina("schedule", "list").split())
    assert [row["name"] for row in json.loads(carina("schedule", "list", "--json"))] == ["sundays"]

    assert "deleted" in carina("schedule", "delete", "sundays")
    assert "not_found" in carina("schedule", "delete", "sundays", code=FAILED)


def test_what_is_wrong_with_a_schedule_is_said(carina: Callable[..., str]) -> None:
    for changes, code, words in [
        (["--cron", "0 3 * *"], FAILED, "invalid_cron"),
        (["--time-zone", "Berlin"], FAILED, "invalid_time_zone"),
        (["--recipe", "fine_tun"], USAGE, "Did you mean fine_tune?"),
        (["--weights", "model:nowhere"], FAILED, "There is no model 'nowhere'."),
        (["--set", "epoch=1"], USAGE, "Did you mean epochs"),
        (["--least-gain", "0.1"], USAGE, "--gate-dataset"),
        (["--gate-dataset", "nowhere"], FAILED, "not_found"),
    ]:
        assert words in " ".join(carina(*SUNDAYS, *changes, code=code).replace("│", "").split())
    assert json.loads(carina("schedule", "list", "--json")) == []


def test_the_gate_is_asked_about_a_model(carina: Callable[..., str], database: Database) -> None:
    with database.begin() as session:
        model_id, dataset_id = add_model(session).id, add_dataset(session).id
    asked = ["--dataset", "films", "--split", "test", "--least-gain", "0.02", "--no-promote", "--detach"]
    decision_id = carina("gate", str(model_id), *asked).split()[2]
    with database.begin() as session:
        decision = session.query(GateDecision).one()
        assert (str(decision.id), decision.candidate_model_id) == (decision_id, model_id)
        config = GateConfig.model_validate(decision.config)
    assert (config.evaluation_dataset_id, config.evaluation.split) == (dataset_id, "test")
    assert (config.least_gain, config.promote) == (0.02, False)
    assert "not_found" in carina("gate", str(new_id()), "--dataset", "films", code=FAILED)
