"""Folders from the command line: what is sent, what is said of it, and how it goes on after a kill."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa
from pycocotools.coco import COCO

from api.client import Carina
from deploy.cli.submissions import COLUMNS, journal_place
from shared.database import Database
from shared.detector.card import ModelCard
from shared.ids import new_id
from shared.intake.archives import ArchiveKind
from shared.queue.hints import Hints
from shared.settings import Settings
from shared.tables import Detection, Job, Submission, SubmissionFile
from tests.integration.conftest import Keys, Server, png
from tests.integration.submitting import Desk, make_archive
from tests.requirements import REPOSITORY
from tests.waiting import DEADLINE_S

NO_RESULT, FAILED = 3, 1


@pytest.fixture
def here(server: Server, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, under an API that answers."""
    monkeypatch.setenv("CARINA_API_URL", server.url)
    monkeypatch.setenv("CARINA_API_KEY", keys.both)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_a_folder_to_findings_in_every_form(
    here: Path,
    carina: Callable[..., str],
    settings: Settings,
    database: Database,
    hints: Hints,
    tiny_model: tuple[ModelCard, bytes],
    tiny_model_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(import_module("deploy.cli.submit"), "_FEW_S", 0)  # the name is also that of a command
    images = here / "films"
    (images / "deep").mkdir(parents=True)
    for number in range(2):
        (images / "deep" / f"{number}.png").write_bytes(png(number))
    (images / "old.zip").write_bytes(make_archive(ArchiveKind.ZIP, png(2), b"no image"))
    (images / "gone.png").symlink_to(here / "nowhere")

    said = carina("submit", str(images), "--no-recursive", "--priority", "7", "--manifest", "m.jsonl", code=NO_RESULT)
    assert "not sent" in said
    assert "waits for the results" in said
    desk = Desk(settings, database, hints)
    desk.receive()
    rows = [json.loads(line) for line in (here / "m.jsonl").read_text().splitlines()]
    assert [(Path(row["path"]).name, row["outcome"].partition(":")[0]) for row in rows] == [
        ("old.zip", "arrived"),
        ("gone.png", "failed"),
    ]
    (images / "gone.png").unlink()

    # Here the worker's log and the bar are printed beside it.
    said = carina("submit", str(images), "--json")
    answer, _ = json.JSONDecoder().raw_decode(said[said.index('{"submission"') :])
    submission_id = answer["submission"]["id"]
    desk.receive()
    assert list((here / "state").rglob("*.sqlite")) == [], "what is done leaves no journal"
    _detect(database, tiny_model_id, tiny_model[0])

    assert "completed_with_errors" in carina("status", submission_id, "--wait", code=NO_RESULT)
    assert [one["priority"] for one in json.loads(carina("status", "--json"))] == [5, 7]
    for form in ("csv", "json", "coco"):
        carina("findings", submission_id, "--format", form, "--output", f"findings.{form}", "--min-score", "0")
    with (here / "findings.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [row["class_name"] for row in found if row["class_name"]] == [tiny_model[0].categories[0].name] * 2
    assert {row["state"] for row in found} == {"succeeded"}
    studies = json.loads((here / "findings.json").read_text())
    assert sum(len(image["findings"]) for study in studies for image in study["images"]) == 2
    lines = carina("findings", submission_id, "--format", "jsonl", "--min-score", "0").splitlines()
    assert [json.loads(line) for line in lines] == studies
    assert tiny_model[0].categories[0].name in carina("findings", submission_id, "--min-score", "0")
    with_finding = next(study for study in studies if study["images"][0]["findings"])
    coco = COCO(str(here / "findings.coco"))
    assert len(coco.imgs) == 3, "with what came in the archive"
    assert [coco.anns[id_]["bbox"] for id_ in coco.getAnnIds()] == [[1, 2, 10, 20]] * 2
    assert {category["name"] for category in coco.cats.values()} == {one.name for one in tiny_model[0].categories}
    assert tiny_model[0].categories[0].name in carina("findings", with_finding["study_id"], "--min-score", "0")
    assert "not_found" in carina("findings", str(new_id()), code=FAILED)
    assert "submission_is_final" in carina("cancel", submission_id, code=FAILED)
    assert "0 files are tried again" in carina("retry", submission_id)


def _detect(database: Database, model_id: UUID, card: ModelCard) -> None:
    """Let every job succeed; two of them with a finding."""
    with database.begin() as session:
        for number, job in enumerate(session.scalars(sa.select(Job).order_by(Job.id))):
            job.state, job.model_id, job.finished_at = "succeeded", model_id, sa.func.now()
            if number < 2:
                box = {"x_min_px": 1, "y_min_px": 2, "x_max_px": 11, "y_max_px": 22}
                category = card.categories[0]
                named = {"class_id": category.id, "class_name": category.name, "score": 0.9}
                session.add(Detection(job_id=job.id, model_id=model_id, rank=0, **named, **box))


def test_a_killed_command_goes_on_where_it_was(here: Path, database: Database, server: Server, keys: Keys) -> None:
    images = here / "films"
    images.mkdir()
    for number in range(60):
        (images / f"{number}.png").write_bytes(png(number, 200))
    command = [sys.executable, "-m", "deploy.cli", "submit", str(images), "--threads", "1", "--manifest", "m.csv"]
    environ = os.environ | {"PYTHONPATH": str(REPOSITORY)}

    def arrived() -> int:
        journal = journal_place(server.url, [images])
        with database.begin() as session:
            count = session.scalar(sa.select(sa.func.count()).select_from(SubmissionFile)) or 0
        return count if journal.exists() else 0

    for sent, how in ((1, signal.SIGKILL), (20, signal.SIGINT)):
        with subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as running:
            while arrived() < sent and running.poll() is None:
                time.sleep(0.01)
            running.send_signal(how)
            said = running.communicate(timeout=DEADLINE_S)[0]
        assert running.returncode in (-signal.SIGKILL, 130, 0), said
        if running.returncode == 130:
            assert "The same command goes on" in said
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert "60 files" in done.stdout
    with database.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Submission)) == 1
    with (here / "m.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert sorted(row["path"] for row in rows) == sorted(str(path) for path in images.iterdir())
    assert {row["outcome"] for row in rows} == {"accepted"}
    with Carina(server.url, keys.both) as client:
        assert {row.name for row in client.manifest(client.submissions()[0].id)} == {""}
