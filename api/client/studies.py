"""A few files at once, their jobs, and what was found."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from uuid import UUID

from api.client.connection import Connection, Params, look_until
from api.schemas import FileOutcome, FileOutcomes, JobAnswer, ModelAnswer, ModelsAnswer
from api.study_schemas import FindingsAnswer, StudyAnswer

#: A request ends with the file that brings it to either; what breaks off is sent again as a whole.
BUNDLE_BYTES, BUNDLE_FILES = 64 * 1024**2, 50


class Studies(Connection):
    """Images, their jobs and their findings."""

    def submit(
        self,
        paths: Iterable[Path],
        *,
        priority: int = 5,
        model_id: UUID | None = None,
        on_file: Callable[[FileOutcome], object] = lambda _: None,
    ) -> list[FileOutcome]:
        """Send files, streamed from disk; return what became of each, in their order. `on_file` hears of each.

        For more than some dozens see `submit_all`.
        """
        params: Params = {"priority": priority} | ({"model_id": str(model_id)} if model_id else {})
        outcomes = []
        for bundle in _bundles(paths):
            answer = self._request("POST", "/v1/studies", params, files=bundle)
            for outcome in FileOutcomes.model_validate_json(answer).files:
                outcomes.append(outcome)
                on_file(outcome)
        return outcomes

    def job(self, job_id: UUID, *, wait_s: float = 0) -> JobAnswer:
        """Return a job; with `wait_s`, once it is final or the time (60 s at most) is over."""
        return self._get(JobAnswer, f"/v1/jobs/{job_id}", wait=wait_s)

    def wait(
        self,
        job_ids: Iterable[UUID],
        *,
        timeout_s: float = float("inf"),
        on_job: Callable[[JobAnswer], object] = lambda _: None,
    ) -> list[JobAnswer]:
        """Wait until all jobs are final or the time is over; return them as they are. `on_job` hears of each end."""
        deadline = time.monotonic() + timeout_s
        return [self._wait_for(job_id, deadline, on_job) for job_id in dict.fromkeys(job_ids)]

    def cancel(self, job_id: UUID) -> JobAnswer:
        """Cancel a job; refused with `job_is_final` when it has come to its end."""
        return self._post(JobAnswer, f"/v1/jobs/{job_id}/cancel")

    def study(self, study_id: UUID) -> StudyAnswer:
        """Return a study with its images and their jobs."""
        return self._get(StudyAnswer, f"/v1/studies/{study_id}")

    def findings(self, study_id: UUID, *, min_score: float = 0.0) -> FindingsAnswer:
        """Return what was found on a study's images."""
        return self._get(FindingsAnswer, f"/v1/studies/{study_id}/findings", min_score=min_score)

    def rendition(self, image_id: UUID) -> bytes:
        """Return the picture that the detector sees, as a PNG file."""
        return self._request("GET", f"/v1/images/{image_id}/rendition.png")

    def overlay(self, image_id: UUID, *, min_score: float = 0.3) -> bytes:
        """Return the rendition with its findings drawn on it, as a PNG file."""
        return self._request("GET", f"/v1/images/{image_id}/overlay.png", {"min_score": min_score})

    def models(self) -> list[ModelAnswer]:
        """Return every model, the newest first."""
        return self._get(ModelsAnswer, "/v1/models").models

    def _wait_for(self, job_id: UUID, deadline: float, on_job: Callable[[JobAnswer], object]) -> JobAnswer:
        left_s = max(0.0, deadline - time.monotonic())
        job = look_until(lambda wait_s: self.job(job_id, wait_s=wait_s), lambda job: job.state.is_final, left_s)
        if job.state.is_final:
            on_job(job)
        return job


def _bundles(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Cut the files into what goes into one request."""
    bundle: list[Path] = []
    byte_count = 0
    for path in paths:
        size = path.stat().st_size
        if bundle and (byte_count + size > BUNDLE_BYTES or len(bundle) == BUNDLE_FILES):
            yield bundle
            bundle, byte_count = [], 0
        bundle.append(path)
        byte_count += size
    if bundle:
        yield bundle
