"""Webhooks and the messages sent to them."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.contract.paging import Page, PageQuery
from shared.bounded import Bounded
from shared.vocabulary.states import DeliveryState
from shared.vocabulary.webhook_events import WebhookEvent

#: As `shared.notifications.address_guard.MOST_URL_CHARACTERS`.
_URL = "Where to POST messages to: `https://` or `http://`, without credentials."


def _once_each(events: list[WebhookEvent]) -> list[WebhookEvent]:
    return sorted(set(events))


Url = Annotated[str, Field(min_length=1, max_length=2000, description=_URL)]
Events = Annotated[list[WebhookEvent], Field(min_length=1, max_length=100), AfterValidator(_once_each)]


class WebhookPath(Bounded):
    """Which webhook."""

    webhook_id: UUID


class DeliveryPath(WebhookPath):
    """Which message."""

    delivery_id: UUID


class WebhookRequest(Bounded):
    """Where to send messages about what."""

    url: Url
    events: Events = Field(sorted(WebhookEvent), description="By default all.")


class WebhookChange(Bounded):
    """What is to change; all that is not named stays as it is."""

    url: Url | None = None
    events: Events | None = None
    enabled: bool | None = None


class WebhookAnswer(BaseModel):
    """A webhook; its secret is not shown again."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    api_key_id: UUID
    url: str
    events: list[WebhookEvent]
    #: False also after its receiver has answered 410, Gone.
    enabled: bool
    created_at: datetime


class WebhookCreated(WebhookAnswer):
    """A new webhook, with its secret."""

    #: Signs the messages (standardwebhooks.com); this is the only time that it is shown.
    secret: str


class WebhooksAnswer(BaseModel):
    """The project's webhooks, the newest first."""

    webhooks: list[WebhookAnswer]


class DeliveriesQuery(PageQuery):
    """Which messages."""

    state: DeliveryState | None = Field(None, description="`dead` are those that were given up.")


class DeliveryAnswer(BaseModel):
    """A message, and what became of it."""

    model_config = ConfigDict(from_attributes=True)

    #: Sent as `webhook-id`.
    id: UUID
    webhook_id: UUID
    event: str
    payload: dict[str, Any]
    state: DeliveryState
    #: Tries so far.
    attempt: int
    #: Of a message that is pending: not tried before this time.
    available_at: datetime
    #: Of the last try: the receiver's status, else why there is none.
    response_status: int | None
    code: str | None
    reason: str | None
    created_at: datetime
    finished_at: datetime | None


class DeliveriesAnswer(Page):
    """Messages, the newest first."""

    deliveries: list[DeliveryAnswer]
