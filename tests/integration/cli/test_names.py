"""What every command takes and prints: JSON alone, tables that fit, ids by their beginning, and names."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.cli import main
from shared.access.keys import create_key
from shared.database import Database
from shared.ids import new_id
from shared.tables import ApiKey, Job, Schedule, Submission, Webhook
from shared.training.config import TrainingConfig
from shared.vocabulary.states import Scope
from tests.every_command import every_command
from tests.integration.cli.test_commands import FAILED, UNREACHABLE, USAGE
from tests.integration.cli.test_failures import LOCAL, WAITING
from tests.integration.conftest import Keys
from tests.integration.rows import add_dataset, add_image, add_job, add_model, home
from tests.requirements import REPOSITORY
from tests.synthetic_dicom import make_dicom, make_image

LONG = "A name that is much longer than a column of any table, with-one-long-word-of-it-too"


@pytest.fixture
def run(
    operator: None, carina: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., str]:
    """Run a command that reaches the API alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return carina


def test_every_command_but_the_imports_needs_the_api_alone_and_prints_json_and_nothing_else(
    run: Callable[..., str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "arguments").mkdir()
    left_out = (LOCAL - {"ps", "completion", "doctor"}) | WAITING
    printed, without_api = 0, []
    for command in every_command(tmp_path / "arguments"):
        if command[0] in left_out or command[:2] in (["dataset", "phantoms"], ["dataset", "reviews"]):
            continue
        if command[0] == "erase":
            command = [*command, "name", "--yes"]
        monkeypatch.setattr("sys.argv", ["carina", *command, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        said, errors = capsys.readouterr()
        if ended.value.code == UNREACHABLE:
            without_api.append(command[: 3 if command[1:2] == ["import"] else 1])
        assert "Traceback" not in errors, (command, errors)
        if ended.value.code == 0:
            assert said.strip() or command[0] == "audit", command
        if said.strip():
            printed += 1
            try:
                json.loads(said)
            except ValueError:
                for line in said.splitlines():
                    json.loads(line)
        else:
            assert ended.value.code == 0 or "error " in errors or "Error" in errors, (command, errors)
    assert printed > 12
    imports = [["dataset", "import", form] for form in ("vinbigdata", "coco", "yolo", "voc")]
    assert without_api == [["migrate"], *imports, ["backup"], ["fsck"]]


@pytest.fixture
def long_names(database: Database, keys: Keys) -> None:
    with database.begin() as session:
        project_id = home(session)
        add_dataset(session, LONG)
        model = add_model(session, LONG)
        model.card = {"categories": [], "architecture": "fasterrcnn_mobilenet_v2_fpn"}
        session.add(
            Schedule(
                project_id=project_id,
                name=LONG,
                cron="0 3 * * 0",
                time_zone="America/Argentina/ComodRivadavia",
                dataset_name=LONG,
                config=TrainingConfig().model_dump(mode="json"),
                last_outcome=f"Started by hand: run {new_id()}.",
            )
        )
        create_key(session, project_name="ward", name=LONG, scopes=list(Scope))


@pytest.mark.parametrize("width", [60, 80])
def test_every_list_fits_the_terminal(
    run: Callable[..., str], long_names: None, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for command in ("model list", "key list", "status", "studies", "webhook list"):
        assert max(map(len, run(*command.split()).splitlines()), default=0) <= width, command
    for command in ("dataset list", "schedule list"):
        said = run(*command.split())
        assert "A name that" in said
        assert max(map(len, said.splitlines())) <= width, said
    assert max(map(len, run("schedule", "show", LONG).splitlines())) <= width


def test_a_model_and_a_schedule_are_named_by_their_name_or_the_beginning_of_their_id(
    run: Callable[..., str], database: Database
) -> None:
    with database.begin() as session:
        first, second = add_model(session, "night"), add_model(session, "day")
        for model in (first, second):
            model.card = {"categories": [], "architecture": "carina_small"}
        ids = [str(first.id), str(second.id)]
    assert json.loads(run("model", "promote", "night", "--json"))["id"] == ids[0]
    assert json.loads(run("model", "promote", ids[1][:23], "--json"))["id"] == ids[1]
    refused = run("model", "promote", "nigth", code=FAILED)
    assert "error not_found: There is no model 'nigth'. Did you mean night?" in refused
    with database.begin() as session:
        add_model(session, "night2").name = "night"
    refused = run("model", "promote", "night", code=USAGE)
    assert "error ambiguous_name: More than one model is called 'night'" in refused
    assert ids[0] in refused
    assert "Did you mean" not in run("schedule", "show", "x", code=FAILED)


def test_ids_are_taken_by_their_beginning(run: Callable[..., str], database: Database, keys: Keys) -> None:
    with database.begin() as session:
        project_id = session.query(ApiKey).filter_by(prefix=keys.admin.split("_")[1]).one().project_id
        session.add(submission := Submission(project_id=project_id))
        session.flush()
        session.refresh(submission)
        image = add_image(session, project_id)
        job = add_job(session, image)
        session.flush()
        submission_id, study_id, job_id = str(submission.id), str(image.study_id), str(job.id)
    assert json.loads(run("status", submission_id[:20], "--json"))[0]["id"] == submission_id
    assert json.loads(run("status", job_id[:20], "--json"))[0]["id"] == job_id
    assert json.loads(run("findings", study_id[:20], "--json"))["study_id"] == study_id
    refused = run("cancel", job_id[:6], code=USAGE)
    assert "error ambiguous_name: More than one submission or job is called" in refused
    assert job_id in refused
    assert submission_id in refused
    wrong = job_id[:-1] + ("0" if job_id[-1] != "0" else "1")
    assert f"Did you mean {job_id}?" in run("status", wrong, code=FAILED)
    assert "There is no submission or job 'x'." in run("status", "x", code=FAILED)
    assert json.loads(run("cancel", job_id[:20], "--json"))["state"] == "cancelled"
    assert json.loads(run("erase", study_id[:20], "--yes", "--json"))["study_id"] == study_id
    with database.begin() as session:
        assert session.query(Job).count() == 0


def test_a_submission_names_its_model(run: Callable[..., str], database: Database, tmp_path: Path) -> None:
    with database.begin() as session:
        model_id = str(add_model(session, "night").id)
    (tmp_path / "image.dcm").write_bytes(make_dicom(make_image(64, 64)))
    sent = json.loads(run("submit", "image.dcm", "--model", "night", "--json"))
    assert sent["submission"]["model_id"] == model_id
    assert "Did you mean night?" in run("submit", "image.dcm", "--model", "nihgt", code=FAILED)


def test_what_cannot_be_meant_is_a_wrong_command_line(run: Callable[..., str], tmp_path: Path) -> None:
    refused = run("retry", "--code", "detection_faild", code=USAGE)
    assert "error unknown_code: There is no code 'detection_faild'. Did you mean detection_failed?" in refused
    assert "0 jobs are tried again" in run("retry", "--code", "detection_failed")
    (tmp_path / "empty" / "within").mkdir(parents=True)
    assert "There is no file in empty" in " ".join(run("submit", "empty", code=USAGE).split())
    (tmp_path / "empty" / "within" / "image.dcm").write_bytes(b"x")
    assert "--no-recursive" in run("submit", "empty", "--no-recursive", code=USAGE)
    assert "Did you mean failed?" in run("studies", "--state", "faild", code=USAGE)


def test_a_webhook_is_named_by_the_beginning_of_its_id(run: Callable[..., str], database: Database, keys: Keys) -> None:
    with database.begin() as session:
        owner = session.query(ApiKey).filter_by(prefix=keys.admin.split("_")[1]).one()
        session.add(
            hook := Webhook(
                project_id=owner.project_id, api_key_id=owner.id, url="https://x.test", secret="s", events=[]
            )
        )
        session.flush()
        hook_id = str(hook.id)
    assert json.loads(run("webhook", "disable", hook_id[:20], "--json"))["id"] == hook_id
    assert f"{hook_id} is deleted" in run("webhook", "delete", hook_id[:20])


COMPLETE = """
eval "$(carina completion bash)"
complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _carina_completion carina; }
complete_words carina data; echo "${COMPREPLY[@]}"
complete_words carina dataset import coco --ann; echo "${COMPREPLY[@]}"
complete_words carina worker pre; echo "${COMPREPLY[@]}"
"""


def test_bash_completes_commands_options_and_their_words(tmp_path: Path) -> None:
    script = tmp_path / "carina"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m deploy "$@"\n')
    script.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY), "HOME": str(tmp_path)}
    bash = shutil.which("bash") or "bash"
    done = subprocess.run(
        [bash, "-c", COMPLETE], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["dataset", "--annotations", "prepare"], done.stderr


@pytest.mark.parametrize(
    ("shell", "said"), [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete --command")]
)
def test_each_shell_has_its_script(run: Callable[..., str], shell: str, said: str) -> None:
    assert said in run("completion", shell)
