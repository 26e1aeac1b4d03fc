"""Webhooks and their messages."""

from collections.abc import Iterator, Sequence
from uuid import UUID

from api.client.connection import Connection
from api.contract.webhooks import (
    DeliveriesAnswer,
    DeliveryAnswer,
    WebhookAnswer,
    WebhookChange,
    WebhookCreated,
    WebhookRequest,
    WebhooksAnswer,
)
from shared.ids import new_id
from shared.vocabulary.states import DeliveryState
from shared.vocabulary.webhook_events import WebhookEvent


class Webhooks(Connection):
    """The webhooks of the project."""

    def webhooks(self) -> list[WebhookAnswer]:
        """Return the project's webhooks, the newest first."""
        return self._get(WebhooksAnswer, "/v1/webhooks").webhooks

    def create_webhook(self, url: str, events: Sequence[WebhookEvent] = tuple(WebhookEvent)) -> WebhookCreated:
        """Create a webhook. Keep its `secret`: it is shown only this time."""
        body = WebhookRequest(url=url, events=list(events))
        return self._post(WebhookCreated, "/v1/webhooks", body, key=str(new_id()))

    def enable_webhook(self, webhook_id: UUID, *, enabled: bool = True) -> WebhookAnswer:
        """Enable or disable a webhook."""
        answer = self._request("PATCH", f"/v1/webhooks/{webhook_id}", body=WebhookChange(enabled=enabled))
        return self._read(WebhookAnswer, answer)

    def delete_webhook(self, webhook_id: UUID) -> None:
        """Remove a webhook with its messages."""
        self._request("DELETE", f"/v1/webhooks/{webhook_id}")

    def test_webhook(self, webhook_id: UUID) -> DeliveryAnswer:
        """Have a `ping` sent."""
        return self._post(DeliveryAnswer, f"/v1/webhooks/{webhook_id}/test", key=str(new_id()))

    def deliveries(self, webhook_id: UUID, *, state: DeliveryState | None = None) -> Iterator[DeliveryAnswer]:
        """Yield a webhook's messages, the newest first, page by page."""
        which = {"state": state} if state else {}
        for page in self._pages(DeliveriesAnswer, f"/v1/webhooks/{webhook_id}/deliveries", limit=500, **which):
            yield from page.deliveries

    def redeliver(self, webhook_id: UUID, delivery_id: UUID) -> DeliveryAnswer:
        """Have a message sent again, with the same `webhook-id`."""
        return self._post(DeliveryAnswer, f"/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver")
