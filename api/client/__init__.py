"""A typed client of the API. It imports nothing of the server but the schemas, and so needs no Flask."""

from api.client.connection import ApiUnavailable, RequestRefused
from api.client.journal import Journal
from api.client.sending import Progress
from api.client.studies import Studies
from api.client.submissions import Submissions
from api.client.trainings import Trainings
from api.client.webhooks import Webhooks
from api.schemas import FileOutcome, JobAnswer, ModelAnswer
from api.study_schemas import Finding, FindingsAnswer, ImageAnswer, ImageFindings, StudyAnswer
from api.submission_schemas import ManifestRow, SubmissionAnswer, Upload
from api.training_schemas import EvaluationAnswer, TrainingAnswer
from api.webhook_schemas import DeliveryAnswer, WebhookAnswer, WebhookCreated

__all__ = [
    "ApiUnavailable",
    "Carina",
    "DeliveryAnswer",
    "EvaluationAnswer",
    "FileOutcome",
    "Finding",
    "FindingsAnswer",
    "ImageAnswer",
    "ImageFindings",
    "JobAnswer",
    "Journal",
    "ManifestRow",
    "ModelAnswer",
    "Progress",
    "RequestRefused",
    "StudyAnswer",
    "SubmissionAnswer",
    "TrainingAnswer",
    "Upload",
    "WebhookAnswer",
    "WebhookCreated",
]


class Carina(Submissions, Studies, Trainings, Webhooks):
    """The API at one URL, under one key; see `Connection` for what holds of every method."""
