"""Webhooks and the messages sent to them."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.contract.paging import Page, PageQuery
from shared.bounded import Bounded
from shared.vocabulary.states import DeliveryState
from shared.vocabulary.webhook_events import WebhookEvent

#: The maximum length equals `shared.notifications.address_guard.MAX_URL_CHARACTERS`.
_URL = "Where to POST messages to: `https://` or `http://`, without credentials."


def _once_each(events: list[WebhookEvent]) -> list[WebhookEvent]:
    return sorted(set(events))


Url = Annotated[str, Field(min_length=1, max_length=2000, description=_URL)]
Events = Annotated[list[WebhookEvent], Field(min_length=1, max_length=100), AfterValidator(_once_each)]


class WebhookPath(Bounded):
    """Identifies a webhook."""

    webhook_id: UUID


class DeliveryPath(WebhookPath):
    """Identifies a message."""

    delivery_id: UUID


class WebhookRequest(Bounded):
    """A webhook to create: its URL and its events."""

    url: Url
    events: Events = Field(sorted(WebhookEvent), description="Default: all events.")


class WebhookChange(Bounded):
    """The fields to change; all other fields stay unchanged."""

    url: Url | None = None
    events: Events | None = None
    enabled: bool | None = None


class WebhookAnswer(BaseModel):
    """A webhook without its secret."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    api_key_id: UUID
    url: str
    events: list[WebhookEvent]
    #: Also False after its receiver has answered 410, Gone.
    enabled: bool
    created_at: datetime


class WebhookCreated(WebhookAnswer):
    """A new webhook, with its secret."""

    #: Signs the messages (standardwebhooks.com); this is the only answer that contains it.
    secret: str


class WebhooksAnswer(BaseModel):
    """The project's webhooks, the newest first."""

    webhooks: list[WebhookAnswer]


class DeliveriesQuery(PageQuery):
    """Selects messages."""

    state: DeliveryState | None = Field(None, description="Only deliveries in this state. `dead`: Carina has given up.")


class DeliveryAnswer(BaseModel):
    """A message and its delivery."""

    model_config = ConfigDict(from_attributes=True)

    #: Sent as `webhook-id`.
    id: UUID
    webhook_id: UUID
    event: str
    payload: dict[str, Any]
    state: DeliveryState
    #: Number of attempts.
    attempt: int
    #: For a pending message: the time of the next attempt at the earliest.
    available_at: datetime
    #: For the last attempt: the receiver's status, otherwise the reason why there is none.
    response_status: int | None
    code: str | None
    reason: str | None
    created_at: datetime
    finished_at: datetime | None


class DeliveriesAnswer(Page):
    """Messages, the newest first."""

    deliveries: list[DeliveryAnswer]
