"""The files of one request, and their outcomes."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from shared.bounded import Bounded


class SubmitQuery(Bounded):
    """Options for processing the files."""

    priority: int = Field(5, ge=0, le=9, description="Jobs of higher priority are processed first.")
    model_id: UUID | None = Field(None, description="The model to use. Default: the active model.")


class FileOutcome(BaseModel):
    """The outcome of one file of the request."""

    #: As sent; if originals are de-identified, its position in the request, from 0.
    name: str
    outcome: Literal["accepted", "duplicate", "rejected"]
    #: Reason of a rejection, as a stable code and as a sentence.
    code: str | None = None
    reason: str | None = None
    study_id: UUID | None = None
    image_id: UUID | None = None
    job_id: UUID | None = None


class FileOutcomes(BaseModel):
    """The outcome of each file, in the order of the request."""

    files: list[FileOutcome]
