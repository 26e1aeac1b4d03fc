"""Any number of files as one submission, in one call."""

import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from uuid import UUID

from api.client.files import OnUnreadable, walk
from api.client.journal import Journal, LocalFile
from api.client.sending import Progress, Sender
from api.client.submissions import Submissions
from api.client.uploading import OnFallback, Uploader
from api.contract.submissions import SubmissionAnswer, SubmissionRequest, Upload


class BulkSubmissions(Submissions):
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

        Files are hashed and uploaded by `threads`, in constant memory. With the `journal` of an interrupted call, its
        submission continues. `names` sends the files' names to the server, which may identify the patient.
        `on_unreadable` is called for each file that cannot be sent; without it the first one raises its error.
        `on_fallback` is called with the reason if files go through the API instead of the object store.
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

    def upload(self, submission_id: UUID, upload: Upload, path: Path, uploader: Uploader | None = None) -> None:
        """Upload one file to where the server wants it, else through the API; call `arrived` afterwards."""
        uploader, file = uploader or Uploader(self), LocalFile.at(path)
        parts = [None] if upload.parts is None else [part for part in upload.parts if not part.done]
        if not all(uploader.put(submission_id, file, upload, part) for part in parts):
            uploader.put_through_api(submission_id, file, upload.number)

    def resend(self, submission_id: UUID, paths: Iterable[Path]) -> int:
        """Find the files that a submission still expects by size and digest, upload them, and return their number.

        They are sent one after another: after `retry_submission` there are few.
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
