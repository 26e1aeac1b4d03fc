"""Webhooks: where a key wants to be told of events, and the messages to it, written in the event's own transaction.

A message is signed after the Standard Webhooks specification (standardwebhooks.com). It holds ids, states and counts.
"""

import base64
import hmac
import secrets
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Session

from shared.database.ids import new_id_in_sql
from shared.database.project_scope import ACROSS_PROJECTS
from shared.tables import ApiKey, Image, Job, Webhook, WebhookDelivery
from shared.vocabulary.webhook_events import WebhookEvent

#: What is sent to try a webhook.
PING = "ping"
_SECRET_BRAND = "whsec_"


def announce(session: Session, project_id: UUID, event: WebhookEvent, payload: Mapping[str, Any]) -> None:
    """Write a message to every webhook of the project that wants the event.

    The payload is JSON: ids, states and counts, never a patient's data nor a file's name.
    """
    wanted = _wanted(event, sa.literal(dict(payload), JSONB())).where(Webhook.project_id == project_id)
    session.execute(_insert(wanted))


def announce_jobs(session: Session, job_ids: Collection[UUID]) -> None:
    """Write a message for each of these jobs, which have just come to their end.

    One statement for any number of jobs. Call it in the transaction that ended them, after the change.
    """
    # Every batch passes here, and most installations have no webhook: that is found out in a fraction of the time.
    if job_ids and session.scalar(_HAS_LISTENER_OF_JOBS):
        session.execute(_TELL_OF_JOBS, {"job_ids": list(job_ids)})


def new_secret() -> str:
    """Make what a webhook's messages are signed with: 256 random bits."""
    return _SECRET_BRAND + base64.b64encode(secrets.token_bytes(32)).decode()


def sign(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """Return the `webhook-signature` of a message: HMAC-SHA256 over its id, its time in Unix seconds and its body."""
    key = base64.b64decode(secret.removeprefix(_SECRET_BRAND))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def is_deliverable() -> sa.ColumnElement[bool]:
    """The condition under which messages go to a webhook: nobody has disabled it, and its key is good."""
    good = sa.exists().where(
        ApiKey.id == Webhook.api_key_id,
        ApiKey.revoked_at.is_(None),
        sa.func.coalesce(ApiKey.expires_at > sa.func.now(), sa.true()),
    )
    return sa.and_(Webhook.enabled, good)


def _wanted(event: WebhookEvent, payload: sa.ColumnElement[Any]) -> sa.Select[Any]:
    columns = (new_id_in_sql(), Webhook.id, sa.literal(event), payload, sa.literal("pending"), sa.literal(0))
    # Locked as the foreign key will, so that a webhook which is being deleted cannot bring down the event.
    return (
        sa.select(*columns)
        .select_from(Webhook)
        .where(Webhook.events.contains([event]), is_deliverable())
        .with_for_update(key_share=True, read=True, of=Webhook)
    )


def _insert(wanted: sa.Select[Any]) -> sa.Insert:
    names = ["id", "webhook_id", "event", "payload", "state", "attempt"]
    added = sa.insert(WebhookDelivery.__table__).from_select(names, wanted, include_defaults=False)  # type: ignore[arg-type]
    # A webhook hears of its own project only, which the conditions say; the key of one is of the same project.
    return added.execution_options(**ACROSS_PROJECTS)


def _tell_of_jobs() -> sa.Insert:
    payload = sa.func.jsonb_build_object(
        *("job_id", Job.id, "image_id", Job.image_id, "study_id", Image.study_id),
        *("submission_id", Job.submission_id, "model_id", Job.model_id, "state", Job.state, "code", Job.code),
    )
    wanted = _wanted(WebhookEvent.JOB_FINISHED, payload).join(Job, Job.project_id == Webhook.project_id)
    ended = Job.id == sa.any_(sa.bindparam("job_ids", type_=ARRAY(sa.Uuid())))
    return _insert(wanted.join(Image, Image.id == Job.image_id).where(ended))


_TELL_OF_JOBS = _tell_of_jobs()
_HAS_LISTENER_OF_JOBS = sa.select(
    sa.exists().where(Webhook.enabled, Webhook.events.contains([WebhookEvent.JOB_FINISHED]))
)
