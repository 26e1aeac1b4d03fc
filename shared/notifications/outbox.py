"""The outbox: messages about an event are written in the event's own transaction; the notify worker sends them later.

A message holds ids, states and counts; never a patient's data or a file's name.
"""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Session

from shared.database.ids import new_id_in_sql
from shared.database.notices import DELIVERIES, notify
from shared.database.project_scope import ACROSS_PROJECTS
from shared.notifications.webhooks import is_deliverable
from shared.tables import Image, Job, Webhook, WebhookDelivery
from shared.vocabulary.states import DeliveryState
from shared.vocabulary.webhook_events import WebhookEvent


def announce(session: Session, project_id: UUID, event: WebhookEvent, payload: Mapping[str, Any]) -> None:
    """Write a message to every webhook of the project that wants the event. The payload is JSON."""
    wanted = _wanted(event, sa.literal(dict(payload), JSONB())).where(Webhook.project_id == project_id)
    session.execute(_insert(wanted))
    notify(session, [DELIVERIES])


def announce_jobs(session: Session, job_ids: Collection[UUID]) -> None:
    """Write a message for each of these jobs, which this transaction has ended: `shared.queue.ending` calls it.

    One statement for any number of jobs.
    """
    # Every batch passes here, and most installations have no webhook: that is found out in a fraction of the time.
    if job_ids and session.scalar(_HAS_LISTENER_OF_JOBS):
        session.execute(_ANNOUNCE_JOBS, {"job_ids": list(job_ids)})
        notify(session, [DELIVERIES])


def _wanted(event: WebhookEvent, payload: sa.ColumnElement[Any]) -> sa.Select[Any]:
    state = sa.literal(DeliveryState.PENDING, sa.Text())
    columns = (new_id_in_sql(), Webhook.id, sa.literal(event), payload, state, sa.literal(0))
    # Locked as the foreign key will, so that deleting a webhook at the same time cannot fail the event.
    return (
        sa.select(*columns)
        .select_from(Webhook)
        .where(Webhook.events.contains([event]), is_deliverable())
        .with_for_update(key_share=True, read=True, of=Webhook)
    )


def _insert(wanted: sa.Select[Any]) -> sa.Insert:
    names = ["id", "webhook_id", "event", "payload", "state", "attempt"]
    added = sa.insert(WebhookDelivery.__table__).from_select(names, wanted, include_defaults=False)  # type: ignore[arg-type]
    # A webhook gets the events of its own project only: the conditions say so.
    return added.execution_options(**ACROSS_PROJECTS)


def _announce_jobs() -> sa.Insert:
    payload = sa.func.jsonb_build_object(
        *("job_id", Job.id, "image_id", Job.image_id, "study_id", Image.study_id),
        *("submission_id", Job.submission_id, "model_id", Job.model_id, "state", Job.state, "code", Job.code),
    )
    wanted = _wanted(WebhookEvent.JOB_FINISHED, payload).join(Job, Job.project_id == Webhook.project_id)
    ended = Job.id == sa.any_(sa.bindparam("job_ids", type_=ARRAY(sa.Uuid())))
    return _insert(wanted.join(Image, Image.id == Job.image_id).where(ended))


_ANNOUNCE_JOBS = _announce_jobs()
_HAS_LISTENER_OF_JOBS = sa.select(
    sa.exists().where(Webhook.enabled, Webhook.events.contains([WebhookEvent.JOB_FINISHED]))
)
