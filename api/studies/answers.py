"""Converts rows of studies, images, jobs and findings to answers of the API."""

from typing import Any

from api.contract.files import FileOutcome
from api.contract.findings import Box, Finding, ImageFindings, OtherResult
from api.contract.jobs import JobAnswer
from api.contract.models import ModelReference
from api.contract.studies import ImageAnswer, ImageFacts, StudyAnswer
from api.http.resource import fields_of
from shared.errors import PermanentError
from shared.imaging.facts import PixelSpacing, SpacingSource
from shared.intake.receive import Received
from shared.tables import Detection, Image, Job, Model, Study
from shared.vocabulary.states import JobState, ModelState


def describe_file(name: str, outcome: Received | PermanentError) -> FileOutcome:
    """Return the outcome of a file: received, or rejected with a reason."""
    if isinstance(outcome, PermanentError):
        return FileOutcome(name=name, outcome="rejected", code=outcome.code, reason=outcome.detail)
    return FileOutcome(name=name, **fields_of(FileOutcome, outcome, "name", "code", "reason"))


def describe_job(job: Job, image: Image) -> JobAnswer:
    """Return a job of an image. Fields are the columns of the same names, except for two."""
    columns = fields_of(JobAnswer, job, "flags", "model_id")
    return JobAnswer(**columns, flags=image.flags, model_id=job.model_id or job.requested_model_id)


def describe_image(image: Image, jobs: list[Job]) -> ImageAnswer:
    """Return an image with its jobs."""
    columns = fields_of(ImageAnswer, image, "pixel_spacing", "jobs")
    answers = [describe_job(job, image) for job in jobs]
    return ImageAnswer(**columns, pixel_spacing=spacing_of(image), jobs=answers)


def describe_study(study: Study, images: list[ImageAnswer]) -> StudyAnswer:
    """Return a study with its images."""
    return StudyAnswer(**fields_of(StudyAnswer, study, "images"), images=images)


def describe_finding(detection: Detection, spacing: PixelSpacing | None) -> Finding:
    """Return a detection in an image with this pixel spacing."""
    box_xyxy_px = (detection.x_min_px, detection.y_min_px, detection.x_max_px, detection.y_max_px)
    columns = fields_of(Finding, detection, "box_xyxy_px", "box_xyxy_mm")
    return Finding(**columns, box_xyxy_px=box_xyxy_px, box_xyxy_mm=box_in_mm(box_xyxy_px, spacing))


def refer_to(model: Model) -> ModelReference:
    """Return the reference to the model of a result."""
    said = {"trained_on": model.card.get("trained_on", ""), "warnings": model.card.get("warnings", [])}
    return ModelReference(**fields_of(ModelReference, model, *said), **said)


def describe_other_result(job: Job, model: Model, findings: list[Finding]) -> OtherResult:
    """Return a succeeded job of a model other than the requested one."""
    return OtherResult(
        job_id=job.id,
        model=refer_to(model),
        code_version=job.code_version,
        finished_at=job.finished_at,
        abnormality=job.abnormality,
        findings=findings,
    )


def describe_findings(
    image: Image, job: Job | None, model: Model | None, findings: list[Finding], other_results: list[OtherResult]
) -> ImageFindings:
    """Return the findings of an image's job, and the results of other models."""
    has_succeeded = job is not None and job.state == JobState.SUCCEEDED
    return ImageFindings(
        **_facts(image),
        image_id=image.id,
        job_id=job.id if job else None,
        state=JobState(job.state) if job else None,
        code=job.code if job else None,
        reason=job.reason if job else None,
        model=refer_to(model) if model else None,
        code_version=job.code_version if job else None,
        is_authoritative=has_succeeded and model is not None and model.state == ModelState.ACTIVE,
        abnormality=job.abnormality if job else None,
        findings=findings,
        other_results=other_results,
    )


def spacing_of(image: Image) -> PixelSpacing | None:
    """Return the size of an image's pixels; None if unknown."""
    if image.spacing_source is None or image.row_spacing_mm is None or image.column_spacing_mm is None:
        return None
    source = SpacingSource(image.spacing_source)
    return PixelSpacing(row_mm=image.row_spacing_mm, column_mm=image.column_spacing_mm, source=source)


def box_in_mm(box_xyxy_px: Box, spacing: PixelSpacing | None) -> Box | None:
    """Return a box in mm from the same corner; None if the pixel size is unknown."""
    if spacing is None:
        return None
    x_min, y_min, x_max, y_max = box_xyxy_px
    across, down = spacing.column_mm, spacing.row_mm
    return x_min * across, y_min * down, x_max * across, y_max * down


def _facts(image: Image) -> dict[str, Any]:
    """Return the fields of `ImageFacts`."""
    return {**fields_of(ImageFacts, image, "pixel_spacing"), "pixel_spacing": spacing_of(image)}
