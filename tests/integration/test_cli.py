"""The `carina` command: keys, models, the doctor, and what its exit codes promise."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from shared.database import Database
from shared.detector.architectures import build
from shared.detector.demo import load_demo_model
from shared.errors import Unauthorized
from shared.keys import verify_key
from shared.queue.states import Scope
from shared.settings import Settings
from tests.conftest import REPOSITORY

USAGE, FAILED, UNREACHABLE = 2, 1, 4


def carina(environ: dict[str, str], *arguments: str, code: int = 0) -> str:
    """Run a command with nothing but these variables; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", *arguments],
        cwd="/",  # where no `.carina` of a developer is
        env={"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "PYTHONPATH": str(REPOSITORY)} | environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def here(environ: dict[str, str], settings: Settings) -> dict[str, str]:
    """The variables of migrated servers with a bucket."""
    return environ


def test_a_key_works_from_its_creation_to_its_revocation(here: dict[str, str], database: Database) -> None:
    key = carina(here, "key", "create", "ward 7", "--project", "lungs", "--scope", "submit").strip()
    with database.begin() as session:
        identity = verify_key(session, key)
    assert identity.scopes == {Scope.SUBMIT}

    listed = json.loads(carina(here, "key", "list", "--json"))
    assert [(row["name"], row["project"], row["scopes"]) for row in listed] == [("ward 7", "lungs", ["submit"])]
    assert key.rpartition("_")[2] not in json.dumps(listed), "a list shows no secret"

    carina(here, "key", "revoke", listed[0]["prefix"])
    with database.begin() as session, pytest.raises(Unauthorized):
        verify_key(session, key)
    assert "not_found" in carina(here, "key", "revoke", listed[0]["prefix"], code=FAILED)


def test_a_checkpoint_becomes_a_model_that_is_promoted_and_rolled_back(here: dict[str, str], tmp_path: Path) -> None:
    assert "active" in carina(here, "model", "demo")

    card, _ = load_demo_model()
    torch.manual_seed(7)
    checkpoint, categories = tmp_path / "epoch-3.pth", tmp_path / "categories.json"
    torch.save({"epoch": 3, "model_state_dict": build(card).state_dict()}, checkpoint)
    categories.write_text(json.dumps({"categories": [category.model_dump() for category in card.categories]}))
    imported = carina(here, "model", "import", str(checkpoint), "--categories", str(categories))
    model_id = imported.split()[0]
    assert "candidate" in imported

    assert "active" in carina(here, "model", "promote", model_id)
    states = {row["id"]: row["state"] for row in json.loads(carina(here, "model", "list", "--json"))}
    assert states.pop(model_id) == "active"
    assert set(states.values()) == {"retired"}

    carina(here, "model", "export", model_id, "--output", str(tmp_path / "out"))
    parts = [str(tmp_path / "out" / name) for name in ("weights.safetensors", "card.json")]
    again = carina(here, "model", "import", parts[0], "--categories", parts[1], "--name", "epoch-3")
    assert again.startswith(model_id), "what comes out goes in again as the same model"
    assert model_id not in carina(here, "model", "rollback")
    assert "nothing_to_roll_back_to" in carina(here, "model", "rollback", code=FAILED)


def test_a_checkpoint_that_does_not_fit_is_refused_in_a_sentence(here: dict[str, str], tmp_path: Path) -> None:
    card, _ = load_demo_model()
    checkpoint, categories = tmp_path / "model.pth", tmp_path / "categories.json"
    torch.save(build(card).state_dict(), checkpoint)
    categories.write_text('[{"id": 1, "name": "Nodule/Mass"}]')
    refusal = carina(here, "model", "import", str(checkpoint), "--categories", str(categories), code=FAILED)
    assert "predicts 15 classes with background, but 1 categories were given" in refusal


def test_the_doctor_says_what_is_wrong_and_how_to_mend_it(here: dict[str, str]) -> None:
    said = carina(here, "doctor", code=FAILED)
    assert "ok    PostgreSQL" in said
    assert "ok    schema" in said
    assert "ok    object store" in said
    assert "wrong active model" in said
    assert "carina model import" in said
    assert "wrong workers: none is alive for prepare, detect, sweep" in said


def test_the_doctor_finds_a_server_that_is_down(here: dict[str, str]) -> None:
    said = carina(here | {"CARINA_DATABASE_URL": "postgresql://carina:x@127.0.0.1:1/carina"}, "doctor", code=FAILED)
    assert "wrong PostgreSQL: PostgreSQL does not answer." in said
    assert "ok    Redis" in said


def test_exit_codes_tell_a_wrong_setting_from_a_server_that_is_down(here: dict[str, str]) -> None:
    assert "CARINA_DATABASE_URL" in carina({}, "key", "list", code=USAGE)
    assert "holds no stack that is up" in carina({}, "key", "list", "--data", "/nowhere", code=USAGE)
    down = here | {"CARINA_DATABASE_URL": "postgresql://carina:x@127.0.0.1:1/carina"}
    assert "database_unavailable" in carina(down, "key", "list", code=UNREACHABLE)
    no_api = {"CARINA_API_URL": "http://127.0.0.1:1", "CARINA_API_KEY": "carina_x_y"}
    assert carina(no_api, "submit", "/nowhere/film.dcm", code=USAGE)
