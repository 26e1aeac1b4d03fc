"""Messages to webhooks on their way: leased, sent, tried again, given up. Every change is fenced, as a job's is."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.database import is_any
from shared.ids import first_id
from shared.notifications.webhooks import is_deliverable
from shared.queue.claim import LOST_WORKER, in_seconds
from shared.tables import Webhook, WebhookDelivery
from shared.vocabulary.states import DeliveryState

#: Under way to one webhook at a time, so that a slow receiver holds up nobody else; and where the last try failed.
MOST_AT_ONCE, MOST_WHERE_TROUBLED = 8, 1
#: Bounds of the pause before the next try.
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 7200.0
#: Delivered messages are forgotten after this time; dead ones are kept as long as their webhook.
DELIVERED_KEPT_DAYS = 30
_FORGOTTEN_AT_ONCE = 10_000


@dataclass(frozen=True)
class DeliveryClaim:
    """A message that this process holds under a lease."""

    delivery_id: UUID
    webhook_id: UUID
    url: str
    secret: str = field(repr=False)
    event: str
    payload: Mapping[str, Any]
    created_at: datetime
    owner: str
    attempt: int


@dataclass(frozen=True)
class Answer:
    """What became of a try: the receiver's status, or why there is none."""

    status: int | None
    code: str | None = None
    reason: str | None = None


def claim_deliveries(
    session: Session, owner: str, *, limit: int, lease_s: float, busy: Mapping[UUID, int], troubled: Collection[UUID]
) -> list[DeliveryClaim]:
    """Lease up to `limit` messages that are due, each webhook's oldest first, and every webhook's before any's second.

    `busy` says how many messages this process is sending to a webhook, `troubled` where its last try failed.
    """
    most = dict.fromkeys(troubled, MOST_WHERE_TROUBLED)
    full = [webhook_id for webhook_id, count in busy.items() if count >= most.get(webhook_id, MOST_AT_ONCE)]
    # For each webhook on its own: a long queue to one of them is not read through to find the others' messages.
    due = (
        sa.select(WebhookDelivery.id, WebhookDelivery.available_at)
        .where(
            WebhookDelivery.webhook_id == Webhook.id,
            WebhookDelivery.state == DeliveryState.PENDING,
            WebhookDelivery.available_at <= sa.func.now(),
        )
        .order_by(WebhookDelivery.available_at)
        .limit(MOST_AT_ONCE)
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
        if ahead[webhook_id] < most.get(webhook_id, MOST_AT_ONCE):
            turns.append((ahead[webhook_id], delivery_id))
            ahead[webhook_id] += 1
    chosen = [delivery_id for _, delivery_id in sorted(turns)[:limit]]
    if not chosen:
        return []
    taken = (
        sa.update(WebhookDelivery)
        .where(is_any(WebhookDelivery.id, chosen), Webhook.id == WebhookDelivery.webhook_id)
        .values(
            state=DeliveryState.SENDING,
            lease_owner=owner,
            lease_expires_at=in_seconds(lease_s),
            attempt=WebhookDelivery.attempt + 1,
        )
        .returning(
            WebhookDelivery.id.label("delivery_id"),
            *(WebhookDelivery.webhook_id, Webhook.url, Webhook.secret),
            *(WebhookDelivery.event, WebhookDelivery.payload, WebhookDelivery.created_at),
            *(WebhookDelivery.lease_owner.label("owner"), WebhookDelivery.attempt),
        )
        .execution_options(synchronize_session=False)
    )
    return [DeliveryClaim(**row) for row in session.execute(taken).mappings()]


def end_delivery(session: Session, claim: DeliveryClaim, answer: Answer, pause_s: float | None) -> DeliveryState | None:
    """Note a receiver's answer; return the message's new state, or None when it was no longer ours.

    `pause_s` is the time until the next try, None where there is to be none. 2xx means delivered; 410, Gone, disables
    the webhook.
    """
    if answer.status is not None and answer.status // 100 == 2:
        state = DeliveryState.DELIVERED
    elif answer.status == 410 or pause_s is None:
        state = DeliveryState.DEAD
    else:
        state = DeliveryState.PENDING
    pending = state is DeliveryState.PENDING
    change = (
        sa.update(WebhookDelivery)
        .where(
            WebhookDelivery.id == claim.delivery_id,
            WebhookDelivery.lease_owner == claim.owner,
            WebhookDelivery.attempt == claim.attempt,
            WebhookDelivery.lease_expires_at > sa.func.now(),
        )
        .values(
            **_unleased(state),
            available_at=in_seconds(pause_s or 0) if pending else WebhookDelivery.available_at,
            finished_at=None if pending else sa.func.now(),
            response_status=answer.status,
            code=answer.code,
            reason=answer.reason,
        )
        .returning(WebhookDelivery.id)
    )
    if session.execute(change.execution_options(synchronize_session=False)).first() is None:
        return None
    if answer.status == 410:
        session.execute(sa.update(Webhook).where(Webhook.id == claim.webhook_id).values(enabled=False))
    return state


def pause_s_after(attempt: int, *, backoff_s: float, retry_s: float) -> float | None:
    """The pause after this many tries, which doubles; None when all pauses together would exceed `retry_s`."""
    first_s = max(backoff_s, SHORTEST_PAUSE_S)
    pauses = [min(first_s * 2.0 ** min(number, 30), LONGEST_PAUSE_S) for number in range(attempt)]
    return pauses[-1] if sum(pauses) <= retry_s else None


def expire_deliveries(session: Session, *, retry_s: float) -> int:
    """Take back what silent workers were sending; return how much that was.

    Messages to a webhook that is disabled, or whose key is no longer good, wait for `retry_s` and then are dead.
    """
    expired = sa.select(WebhookDelivery.id).where(
        WebhookDelivery.state == DeliveryState.SENDING, WebhookDelivery.lease_expires_at <= sa.func.now()
    )
    lost = {"code": LOST_WORKER, "reason": "The worker that was sending the message fell silent."}
    back = (
        sa.update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(expired.with_for_update(skip_locked=True)))
        .values(**_unleased(DeliveryState.PENDING), available_at=sa.func.now(), **lost)
        .returning(WebhookDelivery.id)
    )
    count = len(session.execute(back.execution_options(synchronize_session=False)).all())
    off = {"code": "webhook_disabled", "reason": "The webhook is disabled, or its key is no longer good."}
    if silent := session.scalars(sa.select(Webhook.id).where(~is_deliverable())).all():
        given_up = sa.update(WebhookDelivery).where(
            is_any(WebhookDelivery.webhook_id, silent),
            WebhookDelivery.state == DeliveryState.PENDING,
            WebhookDelivery.available_at <= in_seconds(-retry_s),
        )
        given_up = given_up.values(**_unleased(DeliveryState.DEAD), finished_at=sa.func.now(), **off)
        session.execute(given_up.execution_options(synchronize_session=False))
    return count


def send_again(session: Session, delivery_id: UUID) -> WebhookDelivery | None:
    """Have a message sent now, and tried for as long as a new one; return it, or None while it is being sent."""
    change = (
        sa.update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id, WebhookDelivery.state != DeliveryState.SENDING)
        .values(state=DeliveryState.PENDING, attempt=0, available_at=sa.func.now(), finished_at=None)
        .returning(WebhookDelivery)
    )
    return session.scalar(change.execution_options(synchronize_session=False))


def forget_delivered(session: Session) -> None:
    """Remove messages that were delivered long ago."""
    old = (
        sa.select(WebhookDelivery.id)
        .where(WebhookDelivery.id < first_id(DELIVERED_KEPT_DAYS), WebhookDelivery.state == DeliveryState.DELIVERED)
        .order_by(WebhookDelivery.id)
        .limit(_FORGOTTEN_AT_ONCE)
    )
    session.execute(sa.delete(WebhookDelivery).where(WebhookDelivery.id.in_(old)))


def _unleased(state: DeliveryState) -> dict[str, Any]:
    return {"state": state, "lease_owner": None, "lease_expires_at": None}
