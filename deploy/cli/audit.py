"""`carina audit`: who did what, and who saw whose pixels. And the rows of what is done at the command line."""

from collections.abc import Collection
from datetime import datetime
from typing import Annotated

import sqlalchemy as sa
import typer
from rich.markup import escape
from sqlalchemy.orm import Session

from deploy.cli.console import is_json, out, tell
from deploy.cli.environment import Data, settings_of
from deploy.cli.tables import Column, Table
from shared.access.audit import CLI, record, require_action
from shared.access.keys import find_project
from shared.database import Database
from shared.settings import Settings
from shared.suggestions import no_such
from shared.tables import ApiKey, AuditEvent

_SHOWN = ("id", "created_at", "project_id", "api_key_id", "actor", "action", "subject", "status", "remote_address")


def note(session: Session, action: str, **subject: object) -> None:
    """Record a change in its transaction: ids, never a patient's data."""
    record(session, action=action, subject=subject, actor=CLI)


def audit(
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many, the newest.")] = 50,
    action: Annotated[str | None, typer.Option(help="Only this one, as images.rendition.")] = None,
    key: Annotated[str | None, typer.Option(help="Only what the key with this prefix did.")] = None,
    project: Annotated[str | None, typer.Option(help="Only of this project.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only from this time on, in UTC.")] = None,
    data: Data = None,
) -> None:
    """Show who did what, and who saw whose pixels, the newest first."""
    rows = sa.select(AuditEvent, ApiKey.prefix).outerjoin(ApiKey, ApiKey.id == AuditEvent.api_key_id)
    settings = settings_of(data)
    with Database.from_settings(settings).begin() as session:
        if action is not None:
            require_action(session, action, lambda: _actions_of_api(settings))
            rows = rows.where(AuditEvent.action == action)
        if key is not None:
            _require_prefix(session, key)
            rows = rows.where(ApiKey.prefix == key)
        if project is not None:
            rows = rows.where(AuditEvent.project_id == find_project(session, project))
        if since is not None:
            rows = rows.where(AuditEvent.created_at >= since)
        found = session.execute(rows.order_by(AuditEvent.id.desc()).limit(count)).all()
        if is_json():
            for row, _ in found:
                tell({name: getattr(row, name) for name in _SHOWN})
            return
        table = Table("when", "who", "action", Column("of what", overflow="fold"), "status", "from")
        for row, prefix in found:
            subject = " ".join(f"{name}={value}" for name, value in row.subject.items())
            table.add_row(
                f"{row.created_at:%Y-%m-%d %H:%M:%S}",
                escape(prefix or row.actor or ""),
                row.action,
                escape(subject),
                str(row.status or ""),
                row.remote_address or "",
            )
    out.print(table)


def _actions_of_api(settings: Settings) -> Collection[str]:
    try:
        from api.app import create_app
    except ImportError:  # Carina is installed without its API
        return ()
    return create_app(settings).view_functions


def _require_prefix(session: Session, prefix: str) -> None:
    known = session.scalars(sa.select(ApiKey.prefix)).all()
    if prefix not in known:
        raise no_such("key", prefix, names=known)
