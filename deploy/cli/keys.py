"""`carina key`: create, list, revoke."""

from typing import Annotated

import sqlalchemy as sa
import typer
from rich.table import Table

from deploy.cli.console import out, print_json
from deploy.cli.environment import Data, settings_of
from shared.database import Database
from shared.keys import FIRST_PROJECT, create_key, revoke_key
from shared.queue.states import Scope
from shared.tables import ApiKey, Project

app = typer.Typer(help="API keys: one project each, shown once, hashed at rest.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")] = "unnamed",
    project: Annotated[str, typer.Option(help="Its project; made where it is new.")] = FIRST_PROJECT,
    scope: Annotated[list[Scope] | None, typer.Option(help="What it may do; repeat for several.")] = None,
    data: Data = None,
) -> None:
    """Make a key and print it: the only time that anybody sees it."""
    with Database.from_settings(settings_of(data)).begin() as session:
        key = create_key(session, project_name=project, name=name, scopes=scope or [Scope.SUBMIT, Scope.READ])
    typer.echo(key)


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data: Data = None,
) -> None:
    """List all keys, without their secrets."""
    rows = sa.select(ApiKey, Project.name).join(Project, Project.id == ApiKey.project_id).order_by(ApiKey.id)
    with Database.from_settings(settings_of(data)).begin() as session:
        found = session.execute(rows).all()
        if as_json:
            columns = ("prefix", "name", "scopes", "created_at", "revoked_at")
            print_json(
                [{"project": project} | {name: getattr(key, name) for name in columns} for key, project in found]
            )
            return
        table = Table("prefix", "name", "project", "scopes", "state")
        for key, project in found:
            state = f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "live"
            table.add_row(key.prefix, key.name, project, ", ".join(key.scopes), state)
    out.print(table)


@app.command()
def revoke(prefix: Annotated[str, typer.Argument(help="As `carina key list` shows it.")], data: Data = None) -> None:
    """End a key for good."""
    with Database.from_settings(settings_of(data)).begin() as session:
        revoke_key(session, prefix)
    out.print(f"{prefix} is revoked")
