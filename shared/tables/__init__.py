"""The tables of the database. They and the object store hold all state; everything else can be derived from them."""

from shared.tables.access import ApiKey, AuditEvent, ConsoleSession, IdempotencyKey, Project, Usage
from shared.tables.erasure import ErasedObject, Erasure
from shared.tables.jobs import Detection, Job, QueueSample, TopScore, Worker
from shared.tables.models import Model
from shared.tables.notifications import Webhook, WebhookDelivery
from shared.tables.reviews import ReviewEvent
from shared.tables.rows import Owned, Row
from shared.tables.studies import Image, Rendition, Study
from shared.tables.submissions import Submission, SubmissionFile
from shared.tables.training import (
    Dataset,
    Evaluation,
    GateDecision,
    Schedule,
    Task,
    TrainerMachine,
    TrainingPoint,
    TrainingRun,
)

__all__ = [
    "ApiKey",
    "AuditEvent",
    "ConsoleSession",
    "Dataset",
    "Detection",
    "ErasedObject",
    "Erasure",
    "Evaluation",
    "GateDecision",
    "IdempotencyKey",
    "Image",
    "Job",
    "Model",
    "Owned",
    "Project",
    "QueueSample",
    "Rendition",
    "ReviewEvent",
    "Row",
    "Schedule",
    "Study",
    "Submission",
    "SubmissionFile",
    "Task",
    "TopScore",
    "TrainerMachine",
    "TrainingPoint",
    "TrainingRun",
    "Usage",
    "Webhook",
    "WebhookDelivery",
    "Worker",
]
