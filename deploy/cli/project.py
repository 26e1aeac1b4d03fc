"""`carina project`: what projects have stored, and for how long they keep data."""

from typing import Annotated

import typer

from api.contract.projects import ProjectAnswer
from deploy.cli.application import Application
from deploy.cli.clients import connect
from deploy.cli.console import show_result
from deploy.cli.environment import Data
from deploy.cli.tables import print_list
from shared.suggestions import did_you_mean
from shared.vocabulary.retention import Retained

app = Application(help="Projects: bytes stored, and for how long data is kept.", no_args_is_help=True)


@app.command()
def show(data: Data = None) -> None:
    """Show the project of the key: images, bytes, and for how long it keeps data."""
    with connect(data) as client:
        _show(client.project())


@app.command("list")
def list_(data: Data = None) -> None:
    """List all projects with their images and bytes. Needs a key with the scope `system`."""
    with connect(data) as client:
        found = client.projects()
    rows = [(each.name, each.images, each.original_bytes, each.rendition_bytes) for each in found]
    print_list(found, ["name", "images", "bytes of originals", "bytes of renditions"], rows)


@app.command()
def retention(
    changes: Annotated[
        list[str],
        typer.Argument(
            metavar="KIND=DAYS...",
            help=f"Kinds are {', '.join(Retained)}; DAYS is a number, 0 for ever, or `default`.",
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
) -> None:
    """Change for how long the project keeps data, as in `originals=365 audit=default`. Needs the scope `admin`."""
    days = dict(map(_parse, changes))
    if any(days.values()) and not yes:
        typer.confirm("Data that is older will be deleted for good. Go on?", abort=True, err=True)
    with connect(data) as client:
        _show(client.change_retention(days))


def _parse(change: str) -> tuple[Retained, int | None]:
    kind, _, days = change.partition("=")
    if kind not in list(Retained):
        raise typer.BadParameter(f"{kind} is not one of {', '.join(Retained)}.{did_you_mean(kind, list(Retained))}")
    if days != "default" and not days.isdecimal():
        raise typer.BadParameter(f"{change}: write a number of days, 0 for ever, or `default`.")
    return Retained(kind), None if days == "default" else int(days)


def _show(project: ProjectAnswer) -> None:
    kept = [
        f"{each.kind:<12} {f'{each.days} days' if each.days else 'for ever'}{'' if each.is_own else ' (default)'}"
        for each in project.retention
    ]
    show_result(
        project,
        f"{project.name}: {project.images:,} images, {project.original_bytes:,} bytes of originals, "
        f"{project.rendition_bytes:,} bytes of renditions",
        *kept,
    )
