"""`carina up`, `down` and `ps`."""

import typer

from deploy.stack import commands


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (commands.up, commands.down, commands.ps):
        app.command(rich_help_panel="One machine")(command)
