"""`carina audit`: who did what, and who saw whose pixels. And the rows of what is done at the command line."""

from datetime import datetime
from typing import Annotated

import sqlalchemy as sa
import typer
from rich.markup import escape
from sqlalchemy.orm import Session

from deploy.cli.console import is_json, out, tell
from deploy.cli.environment import Data, settings_of
from deploy.cli.tables import Column, Table
from shared.audit import CLI, record
from shared.database import Database
from shared.tables import ApiKey, AuditEvent, Project

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
    if action is not None:
        rows = rows.where(AuditEvent.action == action)
    if key is not None:
        rows = rows.where(ApiKey.prefix == key)
    if project is not None:
        rows = rows.join(Project, Project.id == AuditEvent.project_id).where(Project.name == project)
    if since is not None:
        rows = rows.where(AuditEvent.created_at >= since)
    with Database.from_settings(settings_of(data)).begin() as session:
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
