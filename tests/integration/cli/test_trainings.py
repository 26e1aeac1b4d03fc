"""`carina train`, `training`, `evaluate` and `evaluation`, as somebody types them, with no trainer at hand."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from shared.database import Database
from shared.detector.demo import load_demo_model
from shared.models import registry
from shared.object_store import ObjectStore, dataset_key, result_key, weights_key
from shared.tables import Dataset, Evaluation, TrainingRun, Worker
from shared.vocabulary.states import ModelState, TaskState
from tests.integration.cli.test_commands import FAILED, USAGE
from tests.integration.conftest import Keys, Server
from tests.integration.rows import add_dataset, add_model
from tests.integration.trainers import trainer
from tests.kaggle import Xyxy, score_submission
from tests.requirements import REPOSITORY
from tests.tiny_dataset import store_dataset

pytestmark = pytest.mark.usefixtures("operator")

NO_RESULT, INTERRUPTED = 3, 130
TRAIN = ("train", "--dataset", "films", "--arch", "carina_small", "--weights", "none", "--detach")
Carina = Callable[..., str]


@pytest.fixture(autouse=True)
def images(database: Database, keys: Keys) -> UUID:
    """A dataset to train on."""
    with database.begin() as session:
        return add_dataset(session).id


def started(said: str) -> str:
    """The id of the training or evaluation that a command has begun."""
    (id_,) = re.findall(r"^(?:training|evaluation) (\S+) of", said, flags=re.MULTILINE)
    return str(id_)


def show(carina: Carina, training_id: str) -> dict[str, Any]:
    return json.loads(carina("training", "show", training_id, "--json"))


def change(database: Database, row: type[TrainingRun] | type[Evaluation], **values: object) -> None:
    with database.begin() as session:
        session.execute(sa.update(row).values(**values))


def test_a_training_from_its_beginning_to_its_cancelling(carina: Carina, database: Database) -> None:
    training_id = started(
        carina(*TRAIN, "--epochs", "3", "--set", "augmentation.rotate_deg=5", "--name", "mine", "--seed", "7")
    )
    shown = show(carina, training_id)
    assert (shown["name"], shown["state"]) == ("mine", "queued")
    config = shown["config"]
    assert (config["architecture"], config["epochs"], config["seed"]) == ("carina_small", 3, 7)
    assert (config["initial_weights"], config["augmentation"]["rotate_deg"]) == ("none", 5)

    change(database, TrainingRun, log_tail="[epoch 1]\nlast line", progress=PROGRESS)
    assert carina("training", "log", training_id) == "[epoch 1]\nlast line\n"
    listed = carina("training", "list")
    assert training_id in listed
    assert "1/3" in listed
    assert "rotate_deg" in carina("training", "show", training_id)

    carina("training", "cancel", training_id)
    assert show(carina, training_id)["state"] == "cancelled"
    assert "task_is_final" in carina("training", "cancel", training_id, code=FAILED)
    assert "it waits for a trainer" in carina("training", "resume", training_id)
    assert "task_not_resumable" in carina("training", "resume", training_id, code=FAILED)
    carina("training", "cancel", training_id)
    assert "is cancelled" in carina("training", "follow", training_id, code=NO_RESULT)
    change(database, TrainingRun, state=TaskState.FAILED, code="non_finite_loss", reason="Step 3 of images [7].")
    assert "non_finite_loss: Step 3 of images [7]." in carina("training", "follow", training_id, code=NO_RESULT)


def test_what_cannot_be_trained_is_refused_in_a_sentence(carina: Carina, database: Database, tmp_path: Path) -> None:
    assert "There is no dataset 'x-rays'" in carina("train", "--dataset", "x-rays", "--weights", "none", code=FAILED)
    for option, words in {
        "--recipe=cake": "There is no recipe 'cake'",
        "--set=epoch=3": "Did you mean epochs?",
        "--epochs=0": "greater than or equal to 1",
        "--weights=nowhere.pth": "not a file",
        "--least-gain=0.1": "--gate-dataset",
    }.items():
        said = carina("train", "--dataset", "films", option, code=USAGE)
        assert words in " ".join(said.replace("│", "").split()), said
    (tmp_path / "text.pth").write_text("no weights")
    assert "invalid_model_file" in carina(*TRAIN[:5], "--weights", str(tmp_path / "text.pth"), code=FAILED)
    with database.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(TrainingRun)) == 0


def test_weights_in_a_file_are_stored_for_every_trainer(carina: Carina, store: ObjectStore) -> None:
    path = Path(str(files("shared.detector.demo").joinpath("weights.safetensors")))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert not store.has(weights_key(sha256))
    training_id = started(carina(*TRAIN[:5], "--weights", str(path), "--detach"))
    assert show(carina, training_id)["config"]["initial_weights"] == f"object:{sha256}"
    assert store.get(weights_key(sha256), sha256=sha256) == path.read_bytes()
    other = carina("train", "--dataset", "films", "--weights", str(path), "--detach", code=FAILED)
    assert "do not fit the backbone" in other, "of the recipe's own, larger network"


def test_a_class_that_the_base_lacks_is_named_when_the_training_is_asked_for(
    carina: Carina, database: Database, images: UUID
) -> None:
    base = carina("model", "demo").split()[0]
    with database.begin() as session:
        classes = [{"id": 1, "name": "Nodule/Mass"}, {"id": 2, "name": "Rib fracture"}]
        session.get_one(Dataset, images).summary = {"classes": classes}
    wrong = carina(*TRAIN[:3], "--recipe", "fine_tune", "--weights", "model:carina-dem", "--detach", code=FAILED)
    assert "Did you mean carina-demo?" in wrong
    said = carina(*TRAIN[:3], "--recipe", "fine_tune", "--weights", "model:carina-demo", "--detach")
    assert "lacks Rib fracture: learnt from scratch" in said
    assert "The dataset has no class Aortic enlargement" in said
    shown = show(carina, started(said))
    assert shown["config"]["initial_weights"] == f"model:{base}"
    notes = shown["notes"]
    assert len(notes) == 2
    assert "Nodule/Mass" not in notes[0]
    same = carina(*TRAIN[:3], "--recipe", "fine_tune", "--weights", "none", "--detach", code=FAILED)
    assert "starts from a trained model" in same


def test_weights_that_cannot_be_fetched_are_refused_before_the_training_is_queued(
    carina: Carina, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nothing listens
    assert "weights_unavailable" in carina("train", "--dataset", "films", "--detach", code=FAILED)
    with database.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(TrainingRun)) == 0


def test_event_files_are_one_story_to_tensorboard(
    carina: Carina, database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    training_id = started(carina(*TRAIN))
    output = tmp_path / "events"
    assert "none before the first checkpoint" in carina("training", "events", training_id, "--output", str(output))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from torch.utils.tensorboard import SummaryWriter
    events = {}
    for attempt, steps in ((2, (1, 2)), (10, (3, 4))):
        folder = tmp_path / str(attempt)
        with SummaryWriter(str(folder)) as writer:
            for step in steps:
                writer.add_scalar("loss", 1 / step, step)
        (written,) = folder.iterdir()
        sha256 = hashlib.sha256(written.read_bytes()).hexdigest()
        store.put(result_key(sha256, "tfevents"), written.read_bytes())
        events[str(attempt)] = sha256
    change(database, TrainingRun, events=events)
    carina("training", "events", training_id, "--output", str(output))
    seen = EventAccumulator(str(output)).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in seen] == [(step, pytest.approx(1 / step)) for step in (1, 2, 3, 4)]


def test_an_evaluation_is_shown_and_its_report_written(
    carina: Carina, database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    evaluate = ("evaluate", "--dataset", "films", "--split", "test", "--detach")
    assert "No model is active" in carina(*evaluate, code=FAILED)
    with database.begin() as session:
        model_id = add_model(session, state=ModelState.ACTIVE).id
    evaluation_id = started(carina(*evaluate, "--bootstrap-samples", "5"))
    shown = json.loads(carina("evaluation", "show", evaluation_id, "--json"))
    assert (shown["state"], shown["model_id"], shown["config"]["split"]) == ("queued", str(model_id), "test")
    assert shown["config"]["bootstrap_samples"] == 5
    report = tmp_path / "report.html"
    assert "not_ready" in carina("evaluation", "report", evaluation_id, "--output", str(report), code=FAILED)
    assert "There is no model 'newest'." in carina("evaluate", "--dataset", "films", "--model", "newest", code=FAILED)

    page = b"<h1>report</h1>"
    sha256 = hashlib.sha256(page).hexdigest()
    store.put(result_key(sha256, "html"), page)
    change(database, Evaluation, state=TaskState.SUCCEEDED, report_sha256=sha256, metrics=METRICS)
    carina("evaluation", "report", evaluation_id, "--output", str(report))
    assert report.read_bytes() == page
    said = carina("evaluation", "show", evaluation_id)
    assert re.search(r"mAP@0.4 \(1 class\) +│ 0.123 +│ 0.100 to 0.150", said)
    assert re.search(r"Image AUROC +│ - ", said)
    assert re.search(r"Nodule/Mass +│ 3 +│ 4 +│ 0.250 +│ 0.125 +│ - ", said)
    assert "0.123" in carina("evaluation", "list")
    assert "One reader" not in said
    human = {"images": 9, "one_reader": 0.2, "one_reader_with_no_finding": 0.3, "others": 0.4}
    change(database, Evaluation, metrics=METRICS | {"human": human})
    shown = carina("evaluation", "show", evaluation_id)
    assert re.search(r"One reader, VinBigData score \(2 classes\) +│ 0.300", shown)


def test_an_evaluation_writes_a_submission_that_scores_what_it_reports(
    carina: Carina, environ: dict[str, str], database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    dataset = store_dataset(database, store, count=24)
    document = json.loads(store.read(dataset_key(str(dataset.digest))))
    document["images"] = [image for image in document["images"] if image["split"] == "val"]
    truth: dict[str, list[tuple[int, Xyxy]]] = {image["file_name"]: [] for image in document["images"]}
    names = {image["id"]: image["file_name"] for image in document["images"]}
    for box in document["annotations"]:
        if box["image_id"] in names:
            x, y, width, height = box["bbox"]
            truth[names[box["image_id"]]].append((box["category_id"], (x, y, x + width, y + height)))
    with database.begin() as session:
        model_id = str(registry.register(session, store, *load_demo_model()).id)
    submission = tmp_path / "submission.csv"
    evaluate = ("evaluate", "--dataset", "phantoms", "--split", "val", "--model", model_id, "--bootstrap-samples", "0")
    with trainer(environ):
        said = carina(*evaluate, "--format", "kaggle", "--output", str(submission))
        piped = carina(*evaluate, "--format", "kaggle", "--quiet")
    evaluation_id = started(said)
    metrics = json.loads(carina("evaluation", "show", evaluation_id, "--json"))["metrics"]
    # All images have a finding: "No finding" is no class of this mean.
    assert score_submission(submission.read_text(), truth) == pytest.approx(metrics["map40"]["value"], abs=1e-9)
    assert piped == submission.read_bytes().decode()
    assert carina("evaluation", "detections", evaluation_id, "--format", "kaggle").splitlines() == piped.splitlines()
    assert {
        row["image_id"] for row in json.loads(carina("evaluation", "detections", evaluation_id, "--format", "coco"))
    }
    for wrong in (("--format", "coco", "--detach"), ("--output", "x.json"), ("--format", "coco", "--report", "x.html")):
        carina(*evaluate, *wrong, code=USAGE)


def test_whoever_watches_learns_that_no_trainer_is_there_and_may_leave(
    carina: Carina, server: Server, keys: Keys
) -> None:
    training_id = started(carina(*TRAIN))
    command = [sys.executable, "-m", "deploy.cli", "training", "follow", training_id]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
    env |= {"CARINA_API_URL": server.url, "CARINA_API_KEY": keys.admin}
    with subprocess.Popen(command, env=env, cwd="/", stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stderr is not None
        for line in watching.stderr:
            if "No trainer is alive" in line:
                break
        watching.send_signal(signal.SIGINT)
        said = watching.stderr.read()
    assert watching.returncode == INTERRUPTED
    assert f"carina training cancel {training_id}" in " ".join(said.split())
    assert show(carina, training_id)["state"] == "queued"


def test_the_doctor_misses_a_trainer_once_something_waits_for_it(
    carina: Carina, database: Database, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert "ok    trainer: 0 alive, 0 tasks wait" in carina("doctor", code=FAILED)
    carina(*TRAIN)
    assert "wrong trainer: none is alive, and 1 tasks wait for one" in carina("doctor", code=FAILED)
    with database.begin() as session:
        session.add(Worker(id="train@here:1:x", stage="train"))
    assert "ok    trainer: 1 alive, 1 tasks wait" in carina("doctor", code=FAILED)


PROGRESS = {
    "epoch": 1,
    "epochs": 3,
    "steps_in_epoch": 10,
    "steps_done": 15,
    "loss": 0.5,
    "learning_rate": 0.005,
    "images_per_s": 12.5,
    "eta_s": 3700,
}
METRICS = {
    "confidence": 0.95,
    "images": 9,
    "map40": {"value": 0.123, "low": 0.1, "high": 0.15},
    "coco_ap": {"value": 0.1, "low": None, "high": None},
    "coco_ap50": {"value": 0.1, "low": None, "high": None},
    "froc_mean": {"value": 0.1, "low": None, "high": None},
    "auroc": {"value": None, "low": None, "high": None},
    "froc": [{"false_positives": 0.125, "lesions": {"value": 0.5}, "images": {"value": None}}],
    "categories": [
        {"name": "Nodule/Mass", "images": 3, "boxes": 4, "ap40": 0.25, "ap": 0.125, "auroc": None},
    ],
}
