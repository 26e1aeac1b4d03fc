"""`carina key`: create, list, revoke. The first key and keys of other projects come straight from the database."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.contract.keys import KeyAnswer, KeyRequest
from deploy.cli.application import Application
from deploy.cli.clients import connect
from deploy.cli.console import show_result
from deploy.cli.environment import Data, has_database_alone
from deploy.cli.tables import print_list
from shared.vocabulary.states import Scope

if TYPE_CHECKING:  # the database is only loaded by the commands that use it
    from api.client import Carina
    from deploy.cli.database_keys import DatabaseKeys

app = Application(help="API keys: one project each, shown once, hashed at rest.", no_args_is_help=True)

Project = Annotated[
    str | None,
    typer.Option(
        help="Use the keys of this project through the database, whose credentials the command then needs.",
        show_default="the project of CARINA_API_KEY",
    ),
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Purpose of the key.")] = "unnamed",
    project: Project = None,
    scope: Annotated[list[Scope] | None, typer.Option(help="Scope of the key; repeat for several.")] = None,
    expires_days: Annotated[
        float | None, typer.Option(min=0, max=36_500, help="Days until the key ends by itself.")
    ] = None,
    rate_limit: Annotated[str | None, typer.Option(help="Requests that it may send, as 600/minute.")] = None,
    files_per_day: Annotated[int | None, typer.Option(min=1, help="Files that it may send in a day.")] = None,
    bytes_per_day: Annotated[int | None, typer.Option(min=1, help="Bytes that it may send in a day.")] = None,
    data: Data = None,
) -> None:
    """Create a key and print it: its secret is shown only this once.

    Without an API key it makes the first one of the project `default`, or that of --project, in the database.
    """
    request = KeyRequest(
        name=name,
        scopes=scope or [Scope.SUBMIT, Scope.READ],
        expires_at=datetime.now(UTC) + timedelta(days=expires_days) if expires_days is not None else None,
        rate_limit=rate_limit,
        files_per_day=files_per_day,
        bytes_per_day=bytes_per_day,
    )
    with _keys(project, data) as keys:
        made = keys.create_key(request)
    show_result({"key": made.key, "prefix": made.prefix, "name": made.name, "project": made.project}, made.key)


@app.command("list")
def list_(project: Project = None, data: Data = None) -> None:
    """List the keys of the project, without their secrets."""
    with _keys(project, data) as keys:
        found = keys.keys()
    rows = [(key.prefix, key.name, key.project, ", ".join(key.scopes), _limits(key), _state(key)) for key in found]
    print_list(found, ["prefix", "name", "project", "scopes", "limits", "state"], rows)


@app.command()
def revoke(
    prefix: Annotated[str, typer.Argument(help="As `carina key list` shows it.")],
    project: Project = None,
    data: Data = None,
) -> None:
    """Revoke a key for good."""
    with _keys(project, data) as keys:
        keys.revoke_key(prefix)
    show_result({"prefix": prefix, "revoked": True}, f"{prefix} is revoked")


def _keys(project: str | None, data: Path | None) -> "Carina | DatabaseKeys":
    """The keys over HTTP; in the database if a project is named, or if only the database's credentials are set."""
    if not has_database_alone(data) and project is None:
        return connect(None)
    from deploy.cli.database_keys import DatabaseKeys

    return DatabaseKeys(project)


def _limits(key: KeyAnswer) -> str:
    daily = ((key.files_per_day, "files/day"), (key.bytes_per_day, "bytes/day"))
    per_day = [f"{most} {unit}" for most, unit in daily if most is not None]
    return ", ".join([key.rate_limit, *per_day] if key.rate_limit else per_day)


def _state(key: KeyAnswer) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d %H:%M}"
    if key.expires_at is None:
        return "live"
    over = key.expires_at <= datetime.now(UTC)
    return f"{'expired' if over else 'live until'} {key.expires_at:%Y-%m-%d %H:%M}"
