"""Where a command finds its settings: `--data DIR`, else the environment, else a stack in `./.carina`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from deploy.stack import env_file
from deploy.stack.folder import DEFAULT_DATA
from shared.settings import ClientSettings, Settings

Data = Annotated[
    Path | None,
    typer.Option("--data", help="Data folder of a stack that `carina up` started.", show_default="the environment"),
]


class NoStack(typer.BadParameter):
    """The folder holds no running stack."""


def settings_of(data: Path | None) -> Settings:
    """Return the settings of the servers; pydantic's `ValidationError` names what is missing."""
    read_environment(data)
    return Settings()


def client_settings_of(data: Path | None) -> ClientSettings:
    """Return where the API is and the key for it."""
    read_environment(data)
    return ClientSettings()


def read_environment(data: Path | None) -> None:
    """Take a stack's `env` file into the environment of this process. A named folder goes before the environment."""
    if data is None:
        if any(name.startswith(("CARINA_API_KEY", "CARINA_DATABASE_URL")) for name in os.environ):
            return
        data = DEFAULT_DATA
        if not (data / "env").exists():
            return
    try:
        os.environ.update(env_file.read(data / "env"))
    except OSError as exc:
        raise NoStack(f"{data} holds no stack that is up: `carina up --data {data}` starts one.") from exc
