"""Finds rows by the first digits of their id, which the command line prints."""

from collections.abc import Sequence
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.suggestions import LISTED, OWN_DIGITS
from shared.tables import (
    Dataset,
    Evaluation,
    GateDecision,
    Image,
    Job,
    Model,
    Schedule,
    Study,
    Submission,
    TrainingRun,
    Webhook,
    WebhookDelivery,
)

Named = type[
    Study
    | Image
    | Job
    | Submission
    | Model
    | Dataset
    | Schedule
    | TrainingRun
    | Evaluation
    | GateDecision
    | Webhook
    | WebhookDelivery
]
#: Tables by the name of the kind.
KINDS: dict[str, Named] = {
    "study": Study,
    "image": Image,
    "job": Job,
    "submission": Submission,
    "model": Model,
    "dataset": Dataset,
    "schedule": Schedule,
    "training": TrainingRun,
    "evaluation": Evaluation,
    "decision": GateDecision,
    "webhook": Webhook,
    "delivery": WebhookDelivery,
}


def find_meant(session: Session, row: Named, digits: str | None) -> Sequence[UUID]:
    """Return ids similar to one that does not exist: those that begin with its digits, or with its first 16."""
    if digits is None:
        return []
    whole = [] if len(digits) == 32 else find_beginning(session, row, digits)
    return whole or (find_beginning(session, row, digits[:OWN_DIGITS]) if len(digits) > OWN_DIGITS else [])


def find_beginning(session: Session, row: Named, digits: str) -> Sequence[UUID]:
    """Return the ids that begin with these digits, at most `LISTED` + 1."""
    first, last = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
    rows = sa.select(row.id).where(row.id.between(first, last))
    return session.scalars(rows.order_by(row.id).limit(LISTED + 1)).all()
