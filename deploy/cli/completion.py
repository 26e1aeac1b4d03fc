"""`carina completion`: the script that lets a shell complete commands, options and their words."""

from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]

from deploy.cli.console import show_result


class Shell(StrEnum):
    """Shells that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="Your shell.")]) -> None:
    """Print a script for your shell: `eval "$(carina completion bash)"`, or `carina completion fish | source`."""
    script = get_completion_script(prog_name="carina", complete_var="_CARINA_COMPLETE", shell=shell)
    show_result({"shell": shell, "script": script}, script)
