"""Everything on one machine: `carina up`, `down`, `ps` and `demo`."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.stack import commands
from deploy.stack.folder import DEFAULT_DATA


def demo(
    data: Annotated[
        Path, typer.Option("--data", help="The data folder; kept, so that a second demo is quick.")
    ] = DEFAULT_DATA,
    exit_when_done: Annotated[bool, typer.Option("--exit", help="Stop at the end instead of staying up.")] = False,
    studies: Annotated[int, typer.Option(min=1, help="How many phantom studies.")] = 24,
    seed: Annotated[int, typer.Option(help="Another seed draws other films.")] = 2_000_000,
    train: Annotated[bool, typer.Option("--train", help="First teach the model a second machine's films.")] = False,
) -> None:
    """Start the stack, send in synthetic chest films and bad files, and show what was found."""
    from deploy.demo import demo as run_demo

    run_demo(data, exit_when_done=exit_when_done, studies=studies, seed=seed, train=train)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (demo, commands.up, commands.down, commands.ps):
        app.command(rich_help_panel="One machine")(command)
