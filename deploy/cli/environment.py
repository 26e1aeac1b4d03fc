"""The settings of a command: from `--data DIR`, else the environment, else a stack in `./.carina`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from deploy.stack import env_file, state
from deploy.stack.folder import DEFAULT_DATA, Folder
from shared.errors import CarinaError
from shared.settings import ClientSettings, Settings, read_settings
from shared.settings.secret_files import forget_files, is_given

Data = Annotated[
    Path | None,
    typer.Option("--data", help="Data folder of a stack that `carina up` started.", show_default="the environment"),
]


class NoStack(CarinaError):
    """No stack is running in this folder. Start one with `carina up`."""

    code = "no_stack"

    def __init__(self, data: Path) -> None:
        super().__init__(f"The stack in {data} is not up.")
        up = "`make up` or `carina up`" if data == DEFAULT_DATA else f"`carina up --data {data}`"
        self.hint = f"Start it with {up}."


def settings_of(data: Path | None, kind: type[Settings] = Settings) -> Settings:
    """Return the settings of the servers; raises `InvalidSettings` and `NoStack`."""
    read_environment(data)
    return read_settings(kind)


def client_settings_of(data: Path | None) -> ClientSettings:
    """Return where the API is and the key for it; raises `InvalidSettings` and `NoStack`."""
    read_environment(data)
    return read_settings(ClientSettings)


def has_database_alone(data: Path | None) -> bool:
    """Whether the settings name the database and no API key, as on the machine where an installation begins."""
    read_environment(data)
    return is_given("CARINA_DATABASE_URL", os.environ) and not is_given("CARINA_API_KEY", os.environ)


def read_environment(data: Path | None) -> None:
    """Read a stack's `env` file into the environment of this process. A named folder overrides the environment.

    Raises `NoStack` where the stack is not up, and `EnvFileUnreadable`.
    """
    if data is None:
        if any(name.startswith(("CARINA_API_KEY", "CARINA_DATABASE_URL")) for name in os.environ):
            return
        data = DEFAULT_DATA
        if not data.exists():
            return
    try:
        told = env_file.read(data / "env")
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise NoStack(data) from exc
    # The file outlives a stack that was killed.
    if state.supervisor(Folder(data)) is None:
        raise NoStack(data)
    os.environ.update(told)
    forget_files(told, os.environ)
