"""Webhooks and their messages."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.ids import new_id
from shared.tables.rows import CHANGED_OFTEN, NOW, Leased, Owned, Row, leased_by
from shared.vocabulary.states import DeliveryState


class Webhook(Owned, Row):
    """A URL to which events of a project are sent."""

    __tablename__ = "webhook"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("project.id"), index=True)
    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_key.id"))
    url: Mapped[str]
    #: The secret that signs messages. It is shown only once.
    secret: Mapped[str]
    events: Mapped[list[str]]
    enabled: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class WebhookDelivery(Leased, Row):
    """One message to a webhook, and the state of its delivery."""

    __tablename__ = "webhook_delivery"
    states = DeliveryState
    __table_args__ = (
        *leased_by(DeliveryState),
        Index("webhook_delivery_waiting", "webhook_id", "available_at", postgresql_where=text("state = 'pending'")),
        Index("webhook_delivery_held", "id", postgresql_where=text("state = 'sending'")),
        Index("webhook_delivery_of", "webhook_id", "id"),
        Index("webhook_delivery_dead", "webhook_id", "id", postgresql_where=text("state = 'dead'")),
        CHANGED_OFTEN,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhook.id", ondelete="CASCADE"))
    event: Mapped[str]
    #: Contains ids, states and counts, never a patient's data.
    payload: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(default=DeliveryState.PENDING)
    #: The receiver's HTTP status at the last attempt; None if it did not answer.
    response_status: Mapped[int | None]
