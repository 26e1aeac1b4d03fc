"""Small submissions, studies and their findings."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO
from uuid import UUID

from api.client.connection import Connection, Params
from api.client.errors import RequestRefused
from api.contract.files import FileOutcome, FileOutcomes
from api.contract.findings import FindingsAnswer, FindingsFormat
from api.contract.jobs import JobAnswer, JobsAnswer
from api.contract.studies import PatientErased, PatientRequest, StudyAnswer, StudyErased
from api.contract.study_list import StudiesAnswer, StudiesQuery, StudySummary

#: Maximum bytes and files of a request. After a broken connection the whole request is repeated.
BUNDLE_BYTES, BUNDLE_FILES = 64 * 1024**2, 50


class Studies(Connection):
    """Studies, their images and their findings."""

    def submit(
        self,
        paths: Iterable[Path],
        *,
        priority: int = 5,
        model_id: UUID | None = None,
        on_file: Callable[[FileOutcome], object] = lambda _: None,
    ) -> list[FileOutcome]:
        """Send files, streamed from disk; return their outcomes in order. `on_file` gets each outcome as it comes.

        For more than a few dozen files see `submit_all`.
        """
        params: Params = {"priority": priority} | ({"model_id": str(model_id)} if model_id else {})
        outcomes = []
        for bundle in _bundles(paths):
            answer = self._request("POST", "/v1/studies", params, files=bundle)
            for outcome in self._read(FileOutcomes, answer).files:
                outcomes.append(outcome)
                on_file(outcome)
        return outcomes

    def studies(self, search: StudiesQuery | None = None) -> Iterator[StudySummary]:
        """Yield the studies that meet a search, by default all, in its order and in pages of its `limit`.

        `before` is the start of the list; `after` is ignored.
        """
        asked = (search or StudiesQuery()).model_dump(mode="json", exclude_none=True, exclude={"after"})
        for page in self._pages(StudiesAnswer, "/v1/studies", **asked):
            yield from page.studies

    def study(self, study_id: UUID) -> StudyAnswer:
        """Return a study with its images and their jobs."""
        return self._get(StudyAnswer, f"/v1/studies/{study_id}")

    def rerun(self, study_id: UUID, *, priority: int = 5) -> list[JobAnswer]:
        """Queue the images of a study for the active model, where it has no result; return its job of each image."""
        answer = self._request("POST", f"/v1/studies/{study_id}/jobs", {"priority": priority})
        return self._read(JobsAnswer, answer).jobs

    def erase_study(self, study_id: UUID) -> StudyErased:
        """Erase a study for good, which needs a key with the scope `admin`."""
        return self._read(StudyErased, self._request("DELETE", f"/v1/studies/{study_id}"))

    def erase_patient(self, patient_id: str) -> list[StudyErased]:
        """Erase all studies of a patient for good, by the PatientID; needs a key with the scope `admin`."""
        request = PatientRequest(patient_id=patient_id)
        return self._read(PatientErased, self._request("POST", "/v1/patients/erase", body=request)).studies

    def findings(self, study_id: UUID, *, min_score: float = 0.0) -> FindingsAnswer:
        """Return the active model's findings on a study's images, and other models' results beside them."""
        return self._get(FindingsAnswer, f"/v1/studies/{study_id}/findings", min_score=min_score)

    def submission_findings(self, submission_id: UUID, *, min_score: float = 0.0) -> Iterator[FindingsAnswer]:
        """Yield the findings of a submission by study."""
        asked: Params = {"min_score": min_score, "format": FindingsFormat.JSONL}
        with self._stream(f"/v1/submissions/{submission_id}/findings", asked) as answer:
            for line in answer.iter_lines():
                yield self._read(FindingsAnswer, line.encode())

    def export_findings(self, of: UUID, file: IO[str], form: FindingsFormat, *, min_score: float = 0.0) -> None:
        """Write the findings of a study or of a submission to a file, as the server formats them."""
        asked: Params = {"min_score": min_score, "format": form}
        with ExitStack() as opened:
            try:
                answer = opened.enter_context(self._stream(f"/v1/studies/{of}/findings", asked))
            except RequestRefused as exc:
                if exc.code != "not_found":
                    raise
                answer = opened.enter_context(self._stream(f"/v1/submissions/{of}/findings", asked))
            for piece in answer.iter_text():
                file.write(piece)

    def rendition(self, image_id: UUID) -> bytes:
        """Return the picture that the detector sees, as a PNG file."""
        return self._request("GET", f"/v1/images/{image_id}/rendition.png")

    def overlay(self, image_id: UUID, *, min_score: float = 0.3) -> bytes:
        """Return the rendition with its findings drawn on it, as a PNG file."""
        return self._request("GET", f"/v1/images/{image_id}/overlay.png", {"min_score": min_score})


def _bundles(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Divide the files into requests."""
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
