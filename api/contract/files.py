"""The files of one request, and the outcome of each."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from shared.bounded import Bounded


class SubmitQuery(Bounded):
    """How the files are to be worked on."""

    priority: int = Field(5, ge=0, le=9, description="A higher one goes first.")
    model_id: UUID | None = Field(None, description="The model to detect with; by default the active one.")


class FileOutcome(BaseModel):
    """What became of one file of the request."""

    #: As it was sent; its place in the request, from 0, where originals are de-identified.
    name: str
    outcome: Literal["accepted", "duplicate", "rejected"]
    #: Of a rejected file: why, as a stable code and as a sentence.
    code: str | None = None
    reason: str | None = None
    study_id: UUID | None = None
    image_id: UUID | None = None
    job_id: UUID | None = None


class FileOutcomes(BaseModel):
    """What became of each file, in the order of the request."""

    files: list[FileOutcome]
