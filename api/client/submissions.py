"""Bulk submissions: each step of one, and all of them in one call."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

from api.client.connection import Connection, look_until
from api.client.files import OnUnreadable, walk
from api.client.journal import Journal, LocalFile
from api.client.sending import Progress, Sender
from api.client.uploading import OnFallback, Uploader
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
    """Any number of files, uploaded straight to the object store where the server allows it."""

    def submit_all(
        self,
        paths: Iterable[Path],
        *,
        recursive: bool = True,
        priority: int = 5,
        model_id: UUID | None = None,
        names: bool = False,
        threads: int = 8,
        wait: bool = False,
        journal: Journal | None = None,
        on_progress: Callable[[Progress], object] = lambda _: None,
        on_unreadable: OnUnreadable | None = None,
        on_fallback: OnFallback = lambda _: None,
    ) -> SubmissionAnswer:
        """Send files, folders, archives and DICOMDIRs as one submission; with `wait`, return it once it is final.

        Files are hashed and uploaded by `threads`, in constant memory. With the `journal` of an earlier call that was
        interrupted, that one's submission goes on. `names`: tell the server the files' names, which may say who the
        patient is. `on_unreadable` hears of what cannot be sent; without it the first such file raises its error.
        `on_fallback` hears why files go through the API if the object store cannot be reached from here.
        """

        def give_up(_: Path, error: Exception) -> None:
            raise error

        kept = journal or Journal()
        sender = Sender(self, kept, threads, names, on_progress, on_unreadable or give_up, on_fallback)
        try:
            request = SubmissionRequest(priority=priority, model_id=model_id)
            submission = sender.send(partial(walk, paths, recursive=recursive), request)
        finally:
            if journal is None:
                kept.remove()
        return self.wait_submission(submission.id) if wait else submission

    def create_submission(
        self, request: SubmissionRequest | None = None, *, source: str | None = None, key: str | None = None
    ) -> SubmissionCreated:
        """Begin a submission; with `source`, of what lies under `s3://bucket/prefix`.

        Here and below, `key` is the idempotency key: with the same one, the same submission.
        """
        from_: dict[str, str] = {"from": source} if source else {}
        return self._post(SubmissionCreated, _PATH, request or SubmissionRequest(), key or str(uuid4()), **from_)

    def announce(self, submission_id: UUID, files: Sequence[AnnouncedFile], *, key: str | None = None) -> list[Upload]:
        """Tell of files, 1000 at most; return in their order what to do with each."""
        body = FilesRequest(files=list(files))
        return self._post(UploadsAnswer, f"{_PATH}/{submission_id}/files", body, key or str(uuid4())).uploads

    def uploads(self, submission_id: UUID, *, after: int = -1, limit: int = 500) -> Iterator[Upload]:
        """Yield the files that were announced and are not uploaded, page by page, with fresh URLs."""
        following: int | None = after
        while following is not None:
            page = self._get(UploadsAnswer, f"{_PATH}/{submission_id}/uploads", after=following, limit=limit)
            yield from page.uploads
            following = page.next

    def upload(self, submission_id: UUID, upload: Upload, path: Path, uploader: Uploader | None = None) -> None:
        """Put one file where the server says, else through the API; call `arrived` then, which never harms."""
        uploader, file = uploader or Uploader(self), LocalFile.at(path)
        parts = [None] if upload.parts is None else [part for part in upload.parts if not part.done]
        if not all(uploader.put(submission_id, file, upload, part) for part in parts):
            uploader.put_through_api(submission_id, file, upload.number)

    def arrived(self, submission_id: UUID, numbers: Sequence[int]) -> SubmissionAnswer:
        """Say that these uploads, 1000 at most, are done."""
        body = ArrivedRequest(numbers=list(numbers))
        return self._post(SubmissionAnswer, f"{_PATH}/{submission_id}/arrived", body)

    def complete(self, submission_id: UUID) -> SubmissionAnswer:
        """Say that no more files come."""
        return self._post(SubmissionAnswer, f"{_PATH}/{submission_id}/complete")

    def submission(self, submission_id: UUID, *, wait_s: float = 0) -> SubmissionAnswer:
        """Return a submission; with `wait_s`, once something has changed or the time is over."""
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
        """Wait until a submission is final or the time is over; return it as it is. `on_progress` hears of changes."""
        first = True

        def look(wait_s: float) -> SubmissionAnswer:
            nonlocal first
            # Only what changes is waited for: it may be over already.
            wait_s, first = (0 if first else wait_s), False
            return self.submission(submission_id, wait_s=wait_s)

        return look_until(look, until, timeout_s, on_progress)

    def manifest(self, submission_id: UUID) -> Iterator[ManifestRow]:
        """Yield what became of every file, page by page."""
        following: int | None = -1
        while following is not None:
            page = self._get(ManifestPage, f"{_PATH}/{submission_id}/manifest", after=following)
            yield from page.files
            following = page.next

    def retry_submission(self, submission_id: UUID) -> RetryAnswer:
        """Try again what failed, and nothing else."""
        return self._post(RetryAnswer, f"{_PATH}/{submission_id}/retry", key=str(uuid4()))

    def resend(self, submission_id: UUID, paths: Iterable[Path]) -> int:
        """Upload what a submission still expects from wherever it lies in these paths; return how many files that was.

        Files are known by their size and digest. Sent one after another: these are the few of a `retry_submission`.
        """
        expected: dict[int, dict[str, list[Upload]]] = {}
        uploads = {upload.number: upload for upload in self.uploads(submission_id)}
        for row in self.manifest(submission_id):
            if row.number in uploads and row.byte_count is not None and row.sha256 is not None:
                expected.setdefault(row.byte_count, {}).setdefault(row.sha256, []).append(uploads[row.number])
        count, uploader = 0, Uploader(self)
        for path in walk(paths, on_unreadable=lambda _, __: None):
            alike = expected.get(path.stat().st_size) if path.is_file() else None
            if not alike:
                continue
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            for upload in alike.pop(sha256, ()):
                self.upload(submission_id, upload, path, uploader)
                if not upload.through_api:
                    self.arrived(submission_id, [upload.number])
                count += 1
        return count

    def cancel_submission(self, submission_id: UUID) -> SubmissionAnswer:
        """End a submission, with what of it has no result yet."""
        return self._post(SubmissionAnswer, f"{_PATH}/{submission_id}/cancel")
