"""The steps of a bulk submission, a request each."""

from collections.abc import Callable, Iterator, Sequence
from uuid import UUID, uuid4

from api.client.connection import Connection
from api.client.waiting import look_until
from api.contract.submissions import (
    AnnouncedFile,
    ArrivedRequest,
    FilesRequest,
    ManifestPage,
    ManifestRow,
    RetryAnswer,
    SubmissionAnswer,
    SubmissionCreated,
    SubmissionRequest,
    SubmissionsAnswer,
    Upload,
    UploadsAnswer,
)

_PATH = "/v1/submissions"
Settled = Callable[[SubmissionAnswer], bool]


class Submissions(Connection):
    """Bulk submissions step by step; see `BulkSubmissions` for all steps in one call."""

    def create_submission(
        self, request: SubmissionRequest | None = None, *, source: str | None = None, key: str | None = None
    ) -> SubmissionCreated:
        """Create a submission; with `source`, of the files under `s3://bucket/prefix`.

        Here and below, `key` is the idempotency key: the same key returns the same submission.
        """
        from_: dict[str, str] = {"from": source} if source else {}
        return self._post(SubmissionCreated, _PATH, request or SubmissionRequest(), key or str(uuid4()), **from_)

    def announce(self, submission_id: UUID, files: Sequence[AnnouncedFile], *, key: str | None = None) -> list[Upload]:
        """Announce up to 1000 files; return in their order what to do with each."""
        body = FilesRequest(files=list(files))
        return self._post(UploadsAnswer, f"{_PATH}/{submission_id}/files", body, key or str(uuid4())).uploads

    def uploads(self, submission_id: UUID, *, after: int = -1, limit: int = 500) -> Iterator[Upload]:
        """Yield the announced files that are not uploaded yet, page by page, with new URLs."""
        following: int | None = after
        while following is not None:
            page = self._get(UploadsAnswer, f"{_PATH}/{submission_id}/uploads", after=following, limit=limit)
            yield from page.uploads
            following = page.next

    def arrived(self, submission_id: UUID, numbers: Sequence[int]) -> SubmissionAnswer:
        """Report up to 1000 finished uploads."""
        body = ArrivedRequest(numbers=list(numbers))
        return self._post(SubmissionAnswer, f"{_PATH}/{submission_id}/arrived", body)

    def complete(self, submission_id: UUID) -> SubmissionAnswer:
        """Close a submission: no more files follow."""
        return self._post(SubmissionAnswer, f"{_PATH}/{submission_id}/complete")

    def submission(self, submission_id: UUID, *, wait_s: float = 0) -> SubmissionAnswer:
        """Return a submission; with `wait_s`, after a change or that time."""
        return self._get(SubmissionAnswer, f"{_PATH}/{submission_id}", wait=wait_s)

    def submissions(self) -> list[SubmissionAnswer]:
        """Return the latest submissions, the newest first."""
        return self._get(SubmissionsAnswer, _PATH).submissions

    def wait_submission(
        self,
        submission_id: UUID,
        *,
        timeout_s: float = float("inf"),
        until: Settled = lambda submission: submission.state.is_final,
        on_progress: Callable[[SubmissionAnswer], object] = lambda _: None,
    ) -> SubmissionAnswer:
        """Wait until a submission is final or the time is over; return it as it is. `on_progress` gets each change."""
        first = True

        def look(wait_s: float) -> SubmissionAnswer:
            nonlocal first
            # The server waits for a change, and the submission may be final already.
            wait_s, first = (0 if first else wait_s), False
            return self.submission(submission_id, wait_s=wait_s)

        return look_until(look, until, timeout_s, on_progress)

    def manifest(self, submission_id: UUID) -> Iterator[ManifestRow]:
        """Yield the outcome of every file, page by page."""
        following: int | None = -1
        while following is not None:
            page = self._get(ManifestPage, f"{_PATH}/{submission_id}/manifest", after=following)
            yield from page.files
            following = page.next

    def retry_submission(self, submission_id: UUID) -> RetryAnswer:
        """Retry the failed files."""
        return self._post(RetryAnswer, f"{_PATH}/{submission_id}/retry", key=str(uuid4()))

    def cancel_submission(self, submission_id: UUID) -> SubmissionAnswer:
        """Cancel a submission, with all its files that have no result yet."""
        return self._post(SubmissionAnswer, f"{_PATH}/{submission_id}/cancel")
