"""A training through the running stack: from the command to a model, its numbers and its report."""

import re
import subprocess

import sqlalchemy as sa

from deploy.stack import env_file
from shared.object_store import ObjectStore
from shared.tables import Evaluation
from shared.vocabulary.states import ModelState, TaskState
from tests.e2e.conftest import COMMAND, Stack
from tests.requirements import REPOSITORY
from tests.tiny_dataset import store_dataset
from tests.waiting import DEADLINE_S

IMAGES, BATCH = 12, 3
OPTIONS = {
    "dataset": "phantoms",
    "arch": "carina_small",
    "canvas-px": "128",
    "weights": "none",
    "epochs": "1",
    "batch-size": str(BATCH),
    "set": "loader_workers=0",
}


def test_one_command_trains_a_model_and_evaluates_it(stack: Stack) -> None:
    dataset = store_dataset(stack.database, ObjectStore(stack.settings), count=IMAGES)
    done = subprocess.run(
        [*COMMAND, "train", *(word for name, value in OPTIONS.items() for word in (f"--{name}", value))],
        cwd=REPOSITORY,
        env={**stack.env, **env_file.read(stack.data / "env")},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mAP@0.4" in done.stdout

    (training_id,) = re.findall(r"^training (\S+)", done.stdout)
    training = stack.client.training(training_id)
    assert (training.state, training.dataset_id, training.attempt) == (TaskState.SUCCEEDED, dataset.id, 1)
    trained_on, evaluated_on = IMAGES * 3 // 4, IMAGES // 4
    assert (training.progress["steps_done"], training.progress["eta_s"]) == (trained_on // BATCH, 0)
    assert training.events == [1]
    (model,) = [model for model in stack.client.models() if model.id == training.model_id]
    assert (model.state, model.card["canvas_px"]) == (ModelState.CANDIDATE, 128)
    assert model.card["metrics"]["training_run"] == training_id

    ((evaluation_id,),) = stack.query(sa.select(Evaluation.id))
    evaluation = stack.client.evaluation(evaluation_id)
    assert (evaluation.state, evaluation.model_id) == (TaskState.SUCCEEDED, model.id)
    assert evaluation.metrics is not None
    assert evaluation.metrics["images"] == evaluated_on
    report = stack.client.report(evaluation.id).decode()
    assert report.startswith("<!doctype html>")
    assert model.digest in report
    assert len(list((stack.data / "trainer-cache").glob("*/*"))) == IMAGES, "renditions stay near"
