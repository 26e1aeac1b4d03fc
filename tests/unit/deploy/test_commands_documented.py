"""`docs/cli.md` describes every command; `python -m deploy.document_commands` renews it."""

import subprocess
import sys

import typer
from typer.core import TyperGroup

from deploy.cli import app
from deploy.document_commands import PAGE, page
from tests.every_command import every_command
from tests.requirements import REPOSITORY

#: Modules of commands that reach the servers behind the API themselves.
LOCAL = {"database_keys", "dataset_imports", "doctor", "projects", "services", "stack"}
_LOADED = """
import importlib, sys, types
package = sys.modules["deploy.cli"] = types.ModuleType("deploy.cli")
package.__path__ = [{folder!r}]
for name in {names!r}:
    importlib.import_module(f"deploy.cli.{{name}}")
of_servers = {{"sqlalchemy", "shared.database", "shared.tables", "boto3", "flask", "torch", "celery", "redis"}}
print(*sorted(of_servers & {{*sys.modules}}))
"""


def test_the_page_is_that_of_the_commands() -> None:
    assert PAGE.read_text() == page()


def test_the_page_has_every_command(tmp_path) -> None:
    described = PAGE.read_text()
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    groups = {name for name, part in command.commands.items() if isinstance(part, TyperGroup)}
    for command in every_command(tmp_path):
        length = 3 if command[1:2] == ["import"] and command[0] == "dataset" else 2 if command[0] in groups else 1
        assert f"### carina {' '.join(command[:length])}\n" in described, command


def test_commands_that_speak_http_load_no_library_of_a_server() -> None:
    """Each module by itself, for the package loads all of them."""
    folder = REPOSITORY / "deploy" / "cli"
    names = sorted({path.stem for path in folder.glob("*.py")} - LOCAL - {"__init__", "__main__"})
    assert "trainings" in names
    done = subprocess.run(
        [sys.executable, "-c", _LOADED.format(folder=str(folder), names=names)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [], done.stdout
