"""The `carina` command: keys, models, the doctor, and what its exit codes promise."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa
import torch

from shared.access.keys import verify_key
from shared.database import Database
from shared.detector.card import ModelCard
from shared.detector.demo import load_demo_model
from shared.detector.families import build
from shared.errors import Unauthorized
from shared.queue.workers import mark_seen
from shared.tables import ApiKey, Model
from shared.vocabulary.states import Scope, WorkerKind
from tests.integration.conftest import NOWHERE as SERVERS_NOWHERE
from tests.integration.conftest import Keys, Server
from tests.requirements import REPOSITORY
from tests.tiny_model import CATEGORIES, make_tiny_model
from tests.waiting import DEADLINE_S

USAGE, FAILED, UNREACHABLE = 2, 1, 4
NOWHERE = "postgresql://carina:x@127.0.0.1:1/carina"
Command = Callable[..., str]

pytestmark = pytest.mark.usefixtures("local_operator")


def test_the_first_key_comes_from_the_database(
    carina: Command, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.begin() as session:
        session.execute(sa.delete(ApiKey))
    monkeypatch.delenv("CARINA_API_KEY")
    key = carina("key", "create").strip()
    with database.begin() as session:
        assert verify_key(session, key).scopes == {Scope.SUBMIT, Scope.READ}
    (listed,) = json.loads(carina("key", "list", "--json"))
    assert (listed["prefix"], listed["project"]) == (key.split("_")[1], "default")
    assert "is revoked" in carina("key", "revoke", listed["prefix"])


def test_a_key_of_another_project_comes_from_the_database(carina: Command, keys: Keys) -> None:
    theirs = carina("key", "create", "ward 7", "--project", "lungs", "--scope", "submit").split("_")[1]
    (listed,) = json.loads(carina("key", "list", "--project", "lungs", "--json"))
    assert (listed["prefix"], listed["name"], listed["scopes"]) == (theirs, "ward 7", ["submit"])
    assert theirs not in carina("key", "list"), "which shows the keys of the API key's project"
    assert "not_found" in carina("key", "revoke", theirs, code=FAILED)
    assert "not_found" in carina("key", "revoke", keys.both.split("_")[1], "--project", "lungs", code=FAILED)
    assert "is revoked" in carina("key", "revoke", theirs, "--project", "lungs")
    assert "There is no project 'lugs'. Did you mean lungs?" in carina("key", "list", "--project", "lugs", code=FAILED)


def test_a_key_works_from_its_creation_to_its_revocation(
    carina: Command, database: Database, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SERVERS_NOWHERE.items():
        monkeypatch.setenv(name, value)
    key = carina("key", "create", "ward 7", "--scope", "submit").strip().splitlines()[-1]
    with database.begin() as session:
        identity = verify_key(session, key)
    assert identity.scopes == {Scope.SUBMIT}

    listed = json.loads(carina("key", "list", "--json"))
    assert (listed[-1]["name"], listed[-1]["project"], listed[-1]["scopes"]) == ("ward 7", "ward", ["submit"])
    assert key.split("_", 2)[2] not in json.dumps(listed), "a list shows no secret"

    carina("key", "revoke", listed[-1]["prefix"])
    with database.begin() as session, pytest.raises(Unauthorized):
        verify_key(session, key)
    assert "not_found" in carina("key", "revoke", listed[-1]["prefix"], code=FAILED)


def test_a_key_grants_no_more_than_it_may_itself(carina: Command, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARINA_API_KEY", keys.admin)
    said = carina("key", "create", "--scope", "system", code=FAILED)
    assert "forbidden: The API key cannot grant a scope that it does not have: system." in said
    brief = carina("key", "create", "--scope", "admin", "--expires-days", "1").splitlines()[-1]
    monkeypatch.setenv("CARINA_API_KEY", brief)
    assert "that expires or has limits cannot create" in carina("key", "create", code=FAILED)
    monkeypatch.setenv("CARINA_API_KEY", keys.read)
    assert "forbidden" in carina("key", "list", code=FAILED)


def test_a_checkpoint_becomes_a_model_that_is_promoted_and_rolled_back(carina: Command, tmp_path: Path) -> None:
    assert "active" in carina("model", "demo")

    card, _ = load_demo_model()
    torch.manual_seed(7)
    checkpoint, categories = tmp_path / "epoch-3.pth", tmp_path / "categories.json"
    torch.save({"epoch": 3, "model_state_dict": build(card).state_dict()}, checkpoint)
    categories.write_text(json.dumps({"categories": [category.model_dump() for category in card.categories]}))
    imported = carina("model", "import", str(checkpoint), "--categories", str(categories))
    model_id = imported.split()[0]
    assert "candidate" in imported

    assert "active" in carina("model", "promote", model_id)
    states = {row["id"]: row["state"] for row in json.loads(carina("model", "list", "--json"))}
    assert states.pop(model_id) == "active"
    assert set(states.values()) == {"retired"}

    carina("model", "export", model_id, "--output", str(tmp_path / "out"))
    parts = [str(tmp_path / "out" / name) for name in ("weights.safetensors", "card.json")]
    again = carina("model", "import", parts[0], "--categories", parts[1], "--name", "epoch-3")
    assert again.startswith(model_id), "what comes out goes in again as the same model"
    assert model_id not in carina("model", "rollback")
    assert "nothing_to_roll_back_to" in carina("model", "rollback", code=FAILED)


@pytest.mark.parametrize("way", ["folder", "card", "weights", "both"])
def test_an_exported_model_is_imported_as_the_same_model(
    carina: Command, database: Database, tmp_path: Path, way: str
) -> None:
    """Every field of the card and every detection is the same, also in a database that does not know the model."""
    card = make_card_with_nothing_as_usual()
    weights = make_tiny_model(3, canvas_px=160)[1]
    card = card.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(weights)
    (folder / "card.json").write_text(card.model_dump_json())
    first = carina("model", "import", str(folder)).split()[0]
    carina("model", "export", first, "--output", str(tmp_path / "out"))
    with database.begin() as session:
        session.execute(sa.delete(Model))

    arguments: list[Path | str] = {
        "folder": [tmp_path / "out"],
        "card": [tmp_path / "out" / "card.json"],
        "weights": [tmp_path / "out" / "weights.safetensors"],
        "both": [tmp_path / "out" / "weights.safetensors", "--categories", tmp_path / "out" / "card.json"],
    }[way]
    again = carina("model", "import", *map(str, arguments)).split()[0]
    with database.begin() as session:
        assert ModelCard.model_validate(session.get_one(Model, UUID(again)).card) == card
    assert (tmp_path / "out" / "weights.safetensors").read_bytes() == weights
    assert carina("model", "import", str(folder)).startswith(again), "the same model is one row"


def make_card_with_nothing_as_usual() -> ModelCard:
    return ModelCard(
        name="mine",
        architecture="carina_small",
        categories=CATEGORIES,
        canvas_px=160,
        image_mean=(0.5, 0.25, 0.125),
        image_std=(0.3, 0.2, 0.1),
        anchor_sizes_px=((8, 12), (16, 24), (32, 48.5)),
        anchor_aspect_ratios=(0.4, 1.0, 2.5),
        batch_norm_eps=0.001,
        score_threshold=0.125,
        nms_iou=0.3,
        max_detections=7,
        rendition_version=1,
        weights_sha256="0" * 64,
        trained_on="images of two wards",
        metrics={"map40": 0.25, "films": 12, "classes": {"Mass": None, "Opacity": 0.5}},
        code_version="0.0.1",
        warnings=("Only for adults.",),
    )


def test_categories_out_of_the_order_of_their_ids_need_a_word(carina: Command, tmp_path: Path) -> None:
    card, _ = load_demo_model()
    checkpoint, categories = tmp_path / "epoch-3.pth", tmp_path / "categories.json"
    torch.save(build(card).state_dict(), checkpoint)
    names = [category.model_dump() for category in card.categories]
    categories.write_text(json.dumps({"categories": [names[3], *names[:3], *names[4:]]}))
    import_ = ("model", "import", str(checkpoint), "--categories", str(categories))
    refusal = carina(*import_, code=FAILED)
    assert "By id, output 1 is 'Aortic enlargement'; as listed, it is 'Cardiomegaly'" in refusal
    assert "Outputs: 1 Aortic enlargement, 2 Atelectasis" in carina(*import_, "--category-order", "id")
    assert "Outputs: 1 Cardiomegaly, 2 Aortic enlargement" in carina(*import_, "--category-order", "listed")
    # Background is output 0, by whatever list it is named.
    categories.write_text(json.dumps([{"id": 99, "name": "__background__"}, *names]))
    assert "Outputs: 1 Aortic enlargement" in carina(*import_)


def test_what_an_import_assumes_is_printed_and_can_be_said(carina: Command, database: Database, tmp_path: Path) -> None:
    card, _ = load_demo_model()
    checkpoint, categories = tmp_path / "epoch-3.pth", tmp_path / "categories.json"
    torch.save(build(card).state_dict(), checkpoint)
    categories.write_text(json.dumps([category.model_dump() for category in card.categories]))
    import_ = ("model", "import", str(checkpoint), "--categories", str(categories))
    assumed = carina(*import_)
    for option in ("--canvas-px", "--anchor-sizes", "--anchor-ratios", "--image-mean", "--batch-norm-eps"):
        assert option in assumed
    said = {
        "--canvas-px": "320",
        "--anchor-sizes": "[8,16],[32,48],[64,96]",
        "--anchor-ratios": "0.4,1,2.5",
        "--image-mean": "0.5,0.5,0.5",
        "--image-std": "[0.25,0.25,0.25]",
        "--batch-norm-eps": "0",
        "--score-threshold": "0.3",
        "--nms-iou": "0.4",
        "--max-detections": "9",
        "--rendition-version": "1",
    }
    printed = carina(*import_, *(word for item in said.items() for word in item), "--trained-on", "two wards")
    assert "Assumed" not in printed
    with database.begin() as session:
        made = ModelCard.model_validate(session.get_one(Model, UUID(printed.split()[0])).card)
    assert made.anchor_sizes_px == ((8, 16), (32, 48), (64, 96))
    assert (made.canvas_px, made.anchor_aspect_ratios, made.image_mean) == (320, (0.4, 1, 2.5), (0.5, 0.5, 0.5))
    assert (made.image_std, made.batch_norm_eps, made.score_threshold) == ((0.25, 0.25, 0.25), 0, 0.3)
    assert (made.nms_iou, made.max_detections, made.rendition_version) == (0.4, 9, 1)
    assert made.trained_on == "two wards"
    wrong = carina(*import_, "--anchor-sizes", "8,16", code=FAILED)
    assert "anchor_sizes_px has 2 levels, but carina_small has 3" in wrong
    # Those of another detector than the card's: what the card says of the rest stays.
    torch.save(build(card).state_dict(), checkpoint)
    carina("model", "export", printed.split()[0], "--output", str(tmp_path / "out"))
    other = carina("model", "import", str(checkpoint), "--categories", str(tmp_path / "out" / "card.json"))
    with database.begin() as session:
        assert session.get_one(Model, UUID(other.split()[0])).card["canvas_px"] == 320


def test_warnings_are_set_at_the_import_and_come_with_the_export(
    carina: Command, database: Database, tmp_path: Path
) -> None:
    card, _ = load_demo_model()
    checkpoint, categories = tmp_path / "epoch-3.pth", tmp_path / "categories.json"
    torch.save(build(card).state_dict(), checkpoint)
    categories.write_text(json.dumps([category.model_dump() for category in card.categories]))
    import_ = ("model", "import", str(checkpoint), "--categories", str(categories))
    model_id = carina(*import_, "--warning", "Only for adults.", "--warning", "Not for laterals.").split()[0]
    carina("model", "export", model_id, "--output", str(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "card.json").read_text())["warnings"] == [
        "Only for adults.", "Not for laterals.",
    ]  # fmt: skip
    # Again: the same model, whose warnings stay, or are replaced where others are named.
    assert carina(*import_).startswith(model_id)
    assert warnings_of(database, model_id) == ["Only for adults.", "Not for laterals."]
    assert carina(*import_, "--warning", "Not for children.").startswith(model_id)
    assert warnings_of(database, model_id) == ["Not for children."]
    assert "one line" in carina(*import_, "--warning", "a\nb", code=2)


def test_an_earlier_versions_demo_model_gets_its_warnings(carina: Command, database: Database) -> None:
    model_id = carina("model", "demo").split()[0]
    with database.begin() as session:
        model = session.get_one(Model, UUID(model_id))
        model.card = {name: value for name, value in model.card.items() if name != "warnings"}
    assert carina("model", "demo").startswith(model_id)
    assert any("misses most real findings" in warning for warning in warnings_of(database, model_id))


def warnings_of(database: Database, model_id: str) -> list[str]:
    with database.begin() as session:
        return session.get_one(Model, UUID(model_id)).card["warnings"]


def test_a_checkpoint_that_does_not_fit_is_refused_in_a_sentence(carina: Command, tmp_path: Path) -> None:
    card, _ = load_demo_model()
    checkpoint, categories = tmp_path / "model.pth", tmp_path / "categories.json"
    torch.save(build(card).state_dict(), checkpoint)
    categories.write_text('[{"id": 1, "name": "Nodule/Mass"}]')
    refusal = carina("model", "import", str(checkpoint), "--categories", str(categories), code=FAILED)
    assert "predicts 15 classes with background, but 1 categories were given" in refusal


def test_the_doctor_says_what_is_wrong_and_how_to_mend_it(carina: Command) -> None:
    said = carina("doctor", code=FAILED)
    assert "ok    decoders: sandboxed by" in said
    assert "ok    PostgreSQL" in said
    assert "ok    schema" in said
    assert "ok    object store" in said
    assert "wrong active model" in said
    assert "carina model import" in said
    assert "wrong workers: none is alive for prepare, detect, sweep, intake, notify" in said
    assert "ok    connections: at most 31 of 97" in said


def test_the_doctor_compares_the_connections_of_all_processes_with_those_of_the_server(
    carina: Command, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.begin() as session:
        for number in range(12):
            mark_seen(session, f"prepare {number}", WorkerKind.PREPARE)
    monkeypatch.setenv("CARINA_PREPARE_THREADS", "4")
    said = carina("doctor", code=FAILED)
    assert "wrong connections: the running processes may open 127, and PostgreSQL allows 97" in said
    assert "max_connections" in said


def test_the_doctor_finds_a_server_that_is_down(carina: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARINA_DATABASE_URL", NOWHERE)
    said = carina("doctor", code=FAILED)
    assert "wrong PostgreSQL: PostgreSQL does not answer." in said
    assert "ok    Redis" in said
    assert "schema" not in said, "what only follows from it is not said"


def test_the_doctor_says_what_a_client_alone_can_know(
    server: Server, keys: Keys, carina: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("CARINA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CARINA_API_URL", server.url)
    monkeypatch.setenv("CARINA_API_KEY", keys.read)
    said = carina("doctor")
    assert f"ok    API: ready at {server.url}" in said
    assert "ok    API key: valid, with the scope `read`" in said
    assert "PostgreSQL" not in said
    monkeypatch.setenv("CARINA_API_KEY", keys.submit)
    assert "valid, without the scope `read`" in carina("doctor")
    monkeypatch.setenv("CARINA_API_KEY", "carina_no_key")
    assert "wrong API key: The request carries no valid API key" in carina("doctor", code=FAILED)
    monkeypatch.setenv("CARINA_API_URL", "http://127.0.0.1:1")
    said = carina("doctor", code=FAILED)
    assert "wrong API: The API at http://127.0.0.1:1 does not answer: nothing listens there." in said
    assert "API key" not in said


def run(environ: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command as a process of its own, with nothing but these variables."""
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", *arguments],
        cwd="/",  # where no `.carina` of a developer is
        env={"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "PYTHONPATH": str(REPOSITORY)} | environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


def test_exit_codes_tell_a_wrong_setting_from_a_server_that_is_down(environ: dict[str, str]) -> None:
    no_api = {"CARINA_API_URL": "http://127.0.0.1:1", "CARINA_API_KEY": "carina_x_y"}
    for variables, arguments, code, said in (
        ({}, ["key", "list"], USAGE, "CARINA_API_KEY"),
        ({}, ["key", "list", "--project", "x"], USAGE, "CARINA_DATABASE_URL"),
        ({}, ["key", "list", "--data", "/nowhere"], USAGE, "The stack in /nowhere is not up"),
        (environ | {"CARINA_DATABASE_URL": NOWHERE}, ["key", "list"], UNREACHABLE, "database_unavailable"),
        (no_api, ["submit", "/nowhere/image.dcm"], USAGE, "/nowhere/image.dcm"),
    ):
        done = run(variables, *arguments)
        assert (done.returncode, said in done.stderr) == (code, True), done.stdout + done.stderr
