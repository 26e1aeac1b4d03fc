"""`carina key`: create, list, revoke."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import sqlalchemy as sa
import typer
from rich.markup import escape

from deploy.cli.application import Application
from deploy.cli.audit import note
from deploy.cli.console import is_json, out, print_json, show_result
from deploy.cli.environment import Data, settings_of
from deploy.cli.tables import Table
from shared.access.keys import FIRST_PROJECT, Allowance, create_key, prefix_of, revoke_key
from shared.database import Database
from shared.tables import ApiKey, Project
from shared.vocabulary.states import Scope

app = Application(help="API keys: one project each, shown once, hashed at rest.", no_args_is_help=True)


def _check_rate(rate: str | None) -> str | None:
    if rate is not None:
        import limits

        try:
            limits.parse_many(rate)
        except ValueError:
            raise typer.BadParameter(f"{rate!r} is no rate; write it as 600/minute.") from None
    return rate


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")] = "unnamed",
    project: Annotated[str, typer.Option(help="Its project; made where it is new.")] = FIRST_PROJECT,
    scope: Annotated[list[Scope] | None, typer.Option(help="What it may do; repeat for several.")] = None,
    expires_days: Annotated[float | None, typer.Option(min=0, help="Days until it ends by itself.")] = None,
    rate_limit: Annotated[
        str | None, typer.Option(callback=_check_rate, help="Requests that it may send, as 600/minute.")
    ] = None,
    files_per_day: Annotated[int | None, typer.Option(min=1, help="Files that it may send in a day.")] = None,
    bytes_per_day: Annotated[int | None, typer.Option(min=1, help="Bytes that it may send in a day.")] = None,
    data: Data = None,
) -> None:
    """Make a key and print it: the only time that anybody sees it."""
    expires_at = datetime.now(UTC) + timedelta(days=expires_days) if expires_days is not None else None
    with Database.from_settings(settings_of(data)).begin() as session:
        key = create_key(
            session,
            project_name=project,
            name=name,
            scopes=scope or [Scope.SUBMIT, Scope.READ],
            allowance=Allowance(expires_at, rate_limit, files_per_day, bytes_per_day),
        )
        note(session, "key.create", prefix=prefix_of(key))
    show_result({"key": key, "prefix": prefix_of(key), "name": name, "project": project}, key)


@app.command("list")
def list_(
    data: Data = None,
) -> None:
    """List all keys, without their secrets."""
    rows = sa.select(ApiKey, Project.name).join(Project, Project.id == ApiKey.project_id).order_by(ApiKey.id)
    with Database.from_settings(settings_of(data)).begin() as session:
        found = session.execute(rows).all()
        if is_json():
            limited = ("rate_limit", "files_per_day", "bytes_per_day")
            columns = ("prefix", "name", "scopes", *limited, "created_at", "expires_at", "revoked_at")
            print_json(
                [{"project": project} | {name: getattr(key, name) for name in columns} for key, project in found]
            )
            return
        table = Table("prefix", "name", "project", "scopes", "limits", "state")
        for key, project in found:
            table.add_row(
                key.prefix, escape(key.name), escape(project), ", ".join(key.scopes), _limits_of(key), _state_of(key)
            )
    out.print(table)


@app.command()
def revoke(prefix: Annotated[str, typer.Argument(help="As `carina key list` shows it.")], data: Data = None) -> None:
    """End a key for good."""
    with Database.from_settings(settings_of(data)).begin() as session:
        revoke_key(session, prefix)
        note(session, "key.revoke", prefix=prefix)
    show_result({"prefix": prefix, "revoked": True}, f"{prefix} is revoked")


def _limits_of(key: ApiKey) -> str:
    daily = ((key.files_per_day, "files/day"), (key.bytes_per_day, "bytes/day"))
    per_day = [f"{most} {unit}" for most, unit in daily if most is not None]
    return ", ".join([key.rate_limit, *per_day] if key.rate_limit else per_day)


def _state_of(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d %H:%M}"
    if key.expires_at is None:
        return "live"
    over = key.expires_at <= datetime.now(UTC)
    return f"{'expired' if over else 'live until'} {key.expires_at:%Y-%m-%d %H:%M}"
