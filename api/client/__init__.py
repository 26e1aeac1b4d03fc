"""A typed client of the API: the wire types, httpx, pydantic and tenacity, and nothing of a server."""

from api.client import lazy_cli as _  # noqa: F401 - before all that imports httpx
from api.client.bulk import BulkSubmissions
from api.client.errors import RequestRefused, UnexpectedAnswer
from api.client.jobs import Jobs
from api.client.journal import Journal
from api.client.keys import Keys
from api.client.models import Models
from api.client.naming import Naming
from api.client.projects import Projects
from api.client.reviews import Reviews
from api.client.sending import Progress
from api.client.studies import Studies
from api.client.trainings import Trainings
from api.client.unreachable import ApiUnavailable, CertificateNotTrusted
from api.client.webhooks import Webhooks
from api.contract.files import FileOutcome
from api.contract.findings import Finding, FindingsAnswer, FindingsFormat, ImageFindings
from api.contract.jobs import JobAnswer
from api.contract.models import ModelAnswer
from api.contract.queue import QueueAnswer, RetriedAnswer
from api.contract.reviews import ReviewAnswer
from api.contract.studies import ImageAnswer, StudyAnswer, StudyErased
from api.contract.study_list import SearchedState, StudiesQuery, StudyOrder, StudySummary
from api.contract.submissions import ManifestRow, SubmissionAnswer, Upload
from api.contract.training import EvaluationAnswer, TrainingAnswer
from api.contract.webhooks import DeliveryAnswer, WebhookAnswer, WebhookCreated
from shared.vocabulary.flags import Flag
from shared.vocabulary.review_actions import ReviewAction

__all__ = [
    "ApiUnavailable",
    "Carina",
    "CertificateNotTrusted",
    "DeliveryAnswer",
    "EvaluationAnswer",
    "FileOutcome",
    "Finding",
    "FindingsAnswer",
    "FindingsFormat",
    "Flag",
    "ImageAnswer",
    "ImageFindings",
    "JobAnswer",
    "Journal",
    "ManifestRow",
    "ModelAnswer",
    "Progress",
    "QueueAnswer",
    "RequestRefused",
    "RetriedAnswer",
    "ReviewAction",
    "ReviewAnswer",
    "SearchedState",
    "StudiesQuery",
    "StudyAnswer",
    "StudyErased",
    "StudyOrder",
    "StudySummary",
    "SubmissionAnswer",
    "TrainingAnswer",
    "UnexpectedAnswer",
    "Upload",
    "WebhookAnswer",
    "WebhookCreated",
]


class Carina(BulkSubmissions, Studies, Jobs, Reviews, Models, Trainings, Webhooks, Keys, Projects, Naming):
    """The API at one URL, under one key; see `Connection` for what holds of every method."""
