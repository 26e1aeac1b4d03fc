"""`carina webhook`: create, list, test, enable, disable, delete, deliveries, redeliver."""

from itertools import islice
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from deploy.cli.application import Application
from deploy.cli.clients import connect
from deploy.cli.console import show_result
from deploy.cli.environment import Data
from deploy.cli.tables import Column, print_list
from shared.suggestions import digits_of, pick
from shared.vocabulary.states import DeliveryState
from shared.vocabulary.webhook_events import WebhookEvent

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import Carina

app = Application(help="Webhooks: events are sent to a URL.", no_args_is_help=True)

Hook = Annotated[str, typer.Argument(metavar="WEBHOOK", help="A webhook, as `list` printed it.")]


@app.command()
def create(
    url: Annotated[str, typer.Argument(help="The URL to send messages to.")],
    event: Annotated[list[WebhookEvent] | None, typer.Option(help="Event to send; by default all.")] = None,
    data: Data = None,
) -> None:
    """Add a webhook, and print the secret that signs its messages. The secret is shown only this once."""
    with connect(data) as client:
        made = client.create_webhook(url, event or list(WebhookEvent))
    show_result(made, f"{made.id} {made.url}", f"secret {made.secret}")


@app.command("list")
def list_(data: Data = None) -> None:
    """List the project's webhooks."""
    with connect(data) as client:
        webhooks = client.webhooks()
    rows = [(each.id, each.url, ", ".join(each.events), "yes" if each.enabled else "no") for each in webhooks]
    print_list(webhooks, [Column("webhook", no_wrap=True), "url", "events", "enabled"], rows)


@app.command("test")
def try_out(webhook: Hook, data: Data = None) -> None:
    """Send a `ping`."""
    with connect(data) as client:
        message = client.test_webhook(client.find_id(webhook, "webhook"))
    show_result(message, f"message {message.id}")


@app.command()
def enable(webhook: Hook, data: Data = None) -> None:
    """Resume sending; messages that have waited go first."""
    with connect(data) as client:
        changed = client.enable_webhook(client.find_id(webhook, "webhook"))
    show_result(changed, f"{changed.id} is enabled")


@app.command()
def disable(webhook: Hook, data: Data = None) -> None:
    """Send no messages until the webhook is enabled again."""
    with connect(data) as client:
        changed = client.enable_webhook(client.find_id(webhook, "webhook"), enabled=False)
    show_result(changed, f"{changed.id} is disabled")


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
    state: Annotated[DeliveryState | None, typer.Option(help="`dead`: Carina has given up sending them.")] = None,
    most: Annotated[int, typer.Option("--limit", min=1, help="How many to list at most.")] = 50,
    data: Data = None,
) -> None:
    """List a webhook's messages and their delivery, the newest first."""
    with connect(data) as client:
        found = list(islice(client.deliveries(client.find_id(webhook, "webhook"), state=state), most))
    rows = [(each.id, each.event, each.state, each.attempt, each.response_status, each.code) for each in found]
    print_list(found, [Column("message", no_wrap=True), "event", "state", "tries", "status", "code"], rows)


@app.command()
def redeliver(
    webhook: Hook,
    messages: Annotated[list[str] | None, typer.Argument(help="Messages, as `deliveries` printed them.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All messages that Carina has given up sending.")] = False,
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
