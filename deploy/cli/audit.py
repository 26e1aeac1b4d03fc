"""`carina audit`: who did what, and who saw whose pixels."""

from datetime import UTC, datetime
from itertools import islice
from typing import Annotated

import typer

from api.contract.audit import AuditQuery
from deploy.cli.clients import connect
from deploy.cli.console import is_json, tell
from deploy.cli.environment import Data
from deploy.cli.tables import Column, print_list

_PAGE = 500


def audit(
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many of the newest to show.")] = 50,
    action: Annotated[str | None, typer.Option(help="Show only this action, such as images.rendition.")] = None,
    key: Annotated[str | None, typer.Option(help="Show only actions of the key with this prefix.")] = None,
    project: Annotated[
        str | None,
        typer.Option(
            help="Show another project's audit, or with `*` that of the whole installation; needs the scope `system`.",
            show_default="the key's own",
        ),
    ] = None,
    since: Annotated[datetime | None, typer.Option(help="Show only actions since this time, in UTC.")] = None,
    data: Data = None,
) -> None:
    """Show who did what, and who saw whose pixels, the newest first. Needs a key with the scope `admin`."""
    query = AuditQuery(
        action=action,
        api_key_prefix=key,
        project=project,
        since=since and since.replace(tzinfo=since.tzinfo or UTC),
        limit=min(count, _PAGE),
    )
    with connect(data) as client:
        events = list(islice(client.audit(query), count))
    if is_json():
        for event in events:
            tell(event)
        return
    rows = [
        (
            f"{event.created_at:%Y-%m-%d %H:%M:%S}",
            event.api_key_prefix or event.actor,
            event.action,
            " ".join(f"{name}={value}" for name, value in event.subject.items()),
            event.status,
            event.remote_address,
        )
        for event in events
    ]
    print_list(events, ["when", "who", "action", Column("of what", overflow="fold"), "status", "from"], rows)
