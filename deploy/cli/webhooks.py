"""`carina webhook`: create, list, test, enable, disable, delete, deliveries, redeliver."""

from itertools import islice
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.markup import escape

from deploy.cli.application import Application
from deploy.cli.clients import connect
from deploy.cli.console import is_json, out, print_json, show_result
from deploy.cli.environment import Data
from deploy.cli.tables import Column, Table
from shared.suggestions import digits_of, pick
from shared.vocabulary.states import DeliveryState
from shared.vocabulary.webhook_events import WebhookEvent

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import Carina

app = Application(help="Webhooks: be told by HTTP of what has happened.", no_args_is_help=True)

Hook = Annotated[str, typer.Argument(metavar="WEBHOOK", help="A webhook, as `list` printed it.")]


@app.command()
def create(
    url: Annotated[str, typer.Argument(help="Where to POST messages to.")],
    event: Annotated[list[WebhookEvent] | None, typer.Option(help="Of what to tell; by default of everything.")] = None,
    data: Data = None,
) -> None:
    """Add a webhook, and print the secret that its messages are signed with: it is shown this once."""
    with connect(data) as client:
        made = client.create_webhook(url, event or list(WebhookEvent))
    show_result(made.model_dump(mode="json"), f"{made.id} {made.url}", f"secret {made.secret}")


@app.command("list")
def list_(data: Data = None) -> None:
    """List the project's webhooks."""
    with connect(data) as client:
        webhooks = client.webhooks()
    if is_json():
        print_json([webhook.model_dump(mode="json") for webhook in webhooks])
        return
    table = Table(Column("webhook", no_wrap=True), "url", "events", "enabled")
    for webhook in webhooks:
        enabled = "yes" if webhook.enabled else "no"
        table.add_row(str(webhook.id), escape(webhook.url), ", ".join(webhook.events), enabled)
    out.print(table)


@app.command("test")
def try_out(webhook: Hook, data: Data = None) -> None:
    """Send a `ping`."""
    with connect(data) as client:
        message = client.test_webhook(client.find_id(webhook, "webhook"))
    show_result(message.model_dump(mode="json"), f"message {message.id}")


@app.command()
def enable(webhook: Hook, data: Data = None) -> None:
    """Send messages again; what has waited meanwhile goes first."""
    with connect(data) as client:
        changed = client.enable_webhook(client.find_id(webhook, "webhook"))
    show_result(changed.model_dump(mode="json"), f"{changed.id} is enabled")


@app.command()
def disable(webhook: Hook, data: Data = None) -> None:
    """Send no more messages until it is enabled again."""
    with connect(data) as client:
        changed = client.enable_webhook(client.find_id(webhook, "webhook"), enabled=False)
    show_result(changed.model_dump(mode="json"), f"{changed.id} is disabled")


@app.command()
def delete(webhook: Hook, data: Data = None) -> None:
    """Remove a webhook with its messages."""
    with connect(data) as client:
        webhook_id = client.find_id(webhook, "webhook")
        client.delete_webhook(webhook_id)
    show_result({"id": webhook_id, "deleted": True}, f"{webhook_id} is deleted")


@app.command()
def deliveries(
    webhook: Hook,
    state: Annotated[DeliveryState | None, typer.Option(help="`dead` are those that were given up.")] = None,
    most: Annotated[int, typer.Option("--limit", min=1, help="The most to list.")] = 50,
    data: Data = None,
) -> None:
    """List a webhook's messages and what became of them, the newest first."""
    with connect(data) as client:
        found = list(islice(client.deliveries(client.find_id(webhook, "webhook"), state=state), most))
    if is_json():
        print_json([delivery.model_dump(mode="json") for delivery in found])
        return
    table = Table(Column("message", no_wrap=True), "event", "state", "tries", "status", "code")
    for delivery in found:
        status = "" if delivery.response_status is None else str(delivery.response_status)
        table.add_row(
            str(delivery.id), delivery.event, delivery.state, str(delivery.attempt), status, delivery.code or ""
        )
    out.print(table)


@app.command()
def redeliver(
    webhook: Hook,
    messages: Annotated[list[str] | None, typer.Argument(help="Messages, as `deliveries` printed them.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All that were given up.")] = False,
    data: Data = None,
) -> None:
    """Send messages again."""
    if dead == bool(messages):
        raise typer.BadParameter("Name messages, or say --dead.")
    with connect(data) as client:
        webhook_id = client.find_id(webhook, "webhook")
        if messages:
            chosen = [_find_message(client, webhook_id, message) for message in messages]
        else:
            chosen = [each.id for each in client.deliveries(webhook_id, state=DeliveryState.DEAD)]
        for delivery_id in chosen:
            client.redeliver(webhook_id, delivery_id)
    show_result({"webhook_id": webhook_id, "messages": chosen}, f"{len(chosen)} to be sent again")


def _find_message(client: "Carina", webhook_id: UUID, name: str) -> UUID:
    digits = digits_of(name)
    if digits and len(digits) == 32:
        return UUID(digits)
    return pick("message", name, {each.id: "" for each in client.deliveries(webhook_id)})
