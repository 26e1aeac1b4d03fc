"""A typed client of the API. It imports nothing of the server but the schemas, and so needs no Flask."""

from api.client.connection import ApiUnavailable, RequestRefused
from api.client.studies import Studies
from api.client.trainings import Trainings
from api.schemas import FileOutcome, Finding, FindingsAnswer, ImageFindings, JobAnswer, ModelAnswer, StudyAnswer
from api.training_schemas import EvaluationAnswer, TrainingAnswer

__all__ = [
    "ApiUnavailable",
    "Carina",
    "EvaluationAnswer",
    "FileOutcome",
    "Finding",
    "FindingsAnswer",
    "ImageFindings",
    "JobAnswer",
    "ModelAnswer",
    "RequestRefused",
    "StudyAnswer",
    "TrainingAnswer",
]


class Carina(Studies, Trainings):
    """The API at one URL, under one key; see `Connection` for what holds of every method."""
