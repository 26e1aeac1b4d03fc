"""The messages of the outbox on their way to webhooks: claimed, sent, tried again, given up."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.database import is_any
from shared.ids import first_id
from shared.leases import (
    Lease,
    change,
    change_held,
    expired,
    final_values,
    in_seconds,
    is_due,
    leased_values,
    lost,
    pause_after,
    waiting_values,
)
from shared.notifications.webhooks import is_deliverable
from shared.tables import Webhook, WebhookDelivery
from shared.vocabulary.states import DeliveryState

#: Messages that are sent to one webhook at a time, so that a slow receiver delays no other one; and after a failure.
MAX_AT_ONCE, MAX_AFTER_FAILURE = 8, 1
#: Bounds of the pause before the next attempt.
MIN_PAUSE_S, MAX_PAUSE_S = 0.05, 7200.0
#: Delivered messages are deleted after this time; dead ones are kept as long as their webhook.
DELIVERED_KEPT_DAYS = 30
_DELETED_AT_ONCE = 10_000


@dataclass(frozen=True, kw_only=True)
class DeliveryClaim(Lease):
    """A message that this process holds under a lease."""

    table: ClassVar = WebhookDelivery
    waiting_state: ClassVar = DeliveryState.PENDING

    delivery_id: UUID
    webhook_id: UUID
    url: str
    secret: str = field(repr=False)
    event: str
    payload: Mapping[str, Any]
    created_at: datetime

    @property
    def key(self) -> tuple[UUID]:
        """The message's id."""
        return (self.delivery_id,)


@dataclass(frozen=True)
class Answer:
    """The result of an attempt: the receiver's status, or why there is none."""

    status: int | None
    code: str | None = None
    reason: str | None = None


def claim_deliveries(
    session: Session, owner: str, *, limit: int, lease_s: float, busy: Mapping[UUID, int], failing: Collection[UUID]
) -> list[DeliveryClaim]:
    """Lease up to `limit` messages that are due: the oldest of each webhook, then the second of each, and so on.

    `busy` counts the messages that this process is sending to a webhook; `failing` are webhooks that failed last.
    """
    most = dict.fromkeys(failing, MAX_AFTER_FAILURE)
    full = [webhook_id for webhook_id, count in busy.items() if count >= most.get(webhook_id, MAX_AT_ONCE)]
    # For each webhook on its own, so that a long queue of one is not read through to find the messages of the others.
    due = (
        sa.select(WebhookDelivery.id, WebhookDelivery.available_at)
        .where(WebhookDelivery.webhook_id == Webhook.id, is_due(WebhookDelivery, DeliveryState.PENDING))
        .order_by(WebhookDelivery.available_at)
        .limit(MAX_AT_ONCE)
        .with_for_update(skip_locked=True)
        .correlate(Webhook)
        .lateral("due")
    )
    waiting = (
        sa.select(due.c.id, Webhook.id.label("webhook_id"))
        .select_from(Webhook)
        .join(due, sa.true())
        .where(is_deliverable(), ~is_any(Webhook.id, full))
        .order_by(due.c.available_at)
    )
    turns: list[tuple[int, UUID]] = []
    ahead = Counter(busy)
    for delivery_id, webhook_id in session.execute(waiting):
        if ahead[webhook_id] < most.get(webhook_id, MAX_AT_ONCE):
            turns.append((ahead[webhook_id], delivery_id))
            ahead[webhook_id] += 1
    chosen = [delivery_id for _, delivery_id in sorted(turns)[:limit]]
    if not chosen:
        return []
    taken = (
        sa.update(WebhookDelivery)
        .where(is_any(WebhookDelivery.id, chosen), Webhook.id == WebhookDelivery.webhook_id)
        .values(**leased_values(WebhookDelivery, DeliveryState.SENDING, owner, lease_s))
        .returning(
            WebhookDelivery.id.label("delivery_id"),
            *(WebhookDelivery.webhook_id, Webhook.url, Webhook.secret),
            *(WebhookDelivery.event, WebhookDelivery.payload, WebhookDelivery.created_at),
            *(WebhookDelivery.lease_owner.label("owner"), WebhookDelivery.attempt),
        )
        .execution_options(synchronize_session=False)
    )
    return [DeliveryClaim(**row) for row in session.execute(taken).mappings()]


def seconds_until_due(session: Session) -> float:
    """Return the seconds until the first waiting message is due; infinite if none waits."""
    first = (
        sa.select(WebhookDelivery.available_at)
        .where(WebhookDelivery.webhook_id == Webhook.id, WebhookDelivery.state == DeliveryState.PENDING)
        .order_by(WebhookDelivery.available_at)
        .limit(1)
        .correlate(Webhook)
        .lateral("first")
    )
    left = sa.extract("epoch", sa.func.min(first.c.available_at) - sa.func.clock_timestamp())
    waiting = sa.select(left).select_from(Webhook).join(first, sa.true()).where(is_deliverable())
    left_s = session.scalar(waiting)
    return math.inf if left_s is None else max(0.0, float(left_s))


def end_delivery(session: Session, claim: DeliveryClaim, answer: Answer, pause_s: float | None) -> DeliveryState | None:
    """Record a receiver's answer; return the message's new state, or None when it was no longer ours.

    `pause_s` is the time until the next attempt, None if there is none. 2xx means delivered; 410 disables the webhook.
    """
    if answer.status is not None and answer.status // 100 == 2:
        values = final_values(DeliveryState.DELIVERED)
    elif answer.status == 410 or pause_s is None:
        values = final_values(DeliveryState.DEAD)
    else:
        values = waiting_values(DeliveryState.PENDING, pause_s)
    answered = {"response_status": answer.status, "code": answer.code, "reason": answer.reason}
    if not change_held(session, [claim], **values, **answered):
        return None
    if answer.status == 410:
        session.execute(sa.update(Webhook).where(Webhook.id == claim.webhook_id).values(enabled=False))
    return DeliveryState(values["state"])


def pause_s_after(attempt: int, *, backoff_s: float, retry_s: float) -> float | None:
    """The pause after so many attempts, which doubles; None when all pauses together would exceed `retry_s`."""
    first_s = max(backoff_s, MIN_PAUSE_S)
    pauses = [pause_after(number, first_s=first_s, max_s=MAX_PAUSE_S) for number in range(1, attempt + 1)]
    return pauses[-1] if sum(pauses) <= retry_s else None


def expire_deliveries(session: Session, *, retry_s: float) -> int:
    """Take back the messages of silent workers; return how many.

    Messages to a webhook that is disabled, or whose key is no longer valid, wait for `retry_s` and then are dead.
    """
    silent = expired(WebhookDelivery, DeliveryState.SENDING)
    count = len(change(session, WebhookDelivery, silent, **waiting_values(DeliveryState.PENDING), **lost("message")))
    if off := session.scalars(sa.select(Webhook.id).where(~is_deliverable())).all():
        given_up = sa.and_(
            is_any(WebhookDelivery.webhook_id, off),
            WebhookDelivery.state == DeliveryState.PENDING,
            WebhookDelivery.available_at <= in_seconds(-retry_s),
        )
        why = {"code": "webhook_disabled", "reason": "The webhook is disabled, or its key is no longer valid."}
        change(session, WebhookDelivery, given_up, **final_values(DeliveryState.DEAD), **why)
    return count


def send_again(session: Session, delivery_id: UUID) -> WebhookDelivery | None:
    """Send a message now, and retry it for as long as a new one; return it, or None while it is being sent."""
    change = (
        sa.update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id, WebhookDelivery.state != DeliveryState.SENDING)
        .values(state=DeliveryState.PENDING, attempt=0, available_at=sa.func.now(), finished_at=None)
        .returning(WebhookDelivery)
    )
    return session.scalar(change.execution_options(synchronize_session=False))


def delete_delivered(session: Session) -> None:
    """Delete messages that were delivered long ago."""
    old = (
        sa.select(WebhookDelivery.id)
        .where(WebhookDelivery.id < first_id(DELIVERED_KEPT_DAYS), WebhookDelivery.state == DeliveryState.DELIVERED)
        .order_by(WebhookDelivery.id)
        .limit(_DELETED_AT_ONCE)
    )
    session.execute(sa.delete(WebhookDelivery).where(WebhookDelivery.id.in_(old)))
