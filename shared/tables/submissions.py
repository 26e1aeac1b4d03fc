"""Bulk submissions and their files."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.ids import new_id
from shared.tables.rows import CHANGED_OFTEN, NOW, Leased, Owned, Row, leased_by, one_of
from shared.vocabulary.states import FileState, SubmissionState


class Submission(Owned, Row):
    """Many files sent together: uploaded one by one, unpacked from archives, or read from a bucket."""

    __tablename__ = "submission"
    __table_args__ = (
        one_of("state", SubmissionState),
        sa.CheckConstraint("priority BETWEEN 0 AND 9", name="priority"),
        Index("submission_of_project", "project_id", "id"),
        Index("submission_unfinished", "id", postgresql_where=text("state IN ('open', 'processing')")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    api_key_id: Mapped[UUID | None] = mapped_column(ForeignKey("api_key.id"))
    state: Mapped[str] = mapped_column(default=SubmissionState.OPEN)
    priority: Mapped[int] = mapped_column(sa.SmallInteger, default=5)
    requested_model_id: Mapped[UUID | None] = mapped_column(ForeignKey("model.id"))
    #: The number of files, which is also the number of the next file.
    file_count: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    #: For `from=s3://bucket/prefix`: the bucket, the prefix, and the last key that has been listed. The end of the
    #: listing closes the submission and clears the key, which may contain a patient's name.
    source_bucket: Mapped[str | None]
    source_prefix: Mapped[str | None]
    listed_to: Mapped[str | None]
    #: The last counts per outcome. Those of a final submission are exact.
    tally: Mapped[dict[str, Any] | None]
    tallied_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    #: The time after which no more files are added.
    closed_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class SubmissionFile(Leased, Row):
    """One file of a submission, from its announcement to its job: a row of the manifest."""

    __tablename__ = "submission_file"
    states = FileState
    __table_args__ = (
        *leased_by(FileState),
        Index(
            "submission_file_waiting",
            sa.desc("priority"),
            "submission_id",
            "number",
            postgresql_where=text("state = 'arrived'"),
        ),
        Index("submission_file_held", "submission_id", "number", postgresql_where=text("state = 'checking'")),
        Index(
            "submission_file_open",
            "submission_id",
            postgresql_where=text("state IN ('expected', 'arrived', 'checking')"),
        ),
        Index("submission_file_image", "image_id", postgresql_using="hash"),
        Index("submission_file_job", "job_id", postgresql_using="hash"),
        Index("submission_file_duplicate", "job_id", "submission_id", postgresql_where=text("state = 'duplicate'")),
        Index(
            "submission_file_entry",
            "submission_id",
            "archive_number",
            "entry_number",
            unique=True,
            postgresql_where=text("archive_number IS NOT NULL"),
        ),
        CHANGED_OFTEN,
    )

    submission_id: Mapped[UUID] = mapped_column(ForeignKey("submission.id"), primary_key=True)
    #: From 0, in the order of announcement.
    number: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    #: The name from the client; not stored if originals are de-identified.
    name: Mapped[str | None]
    #: As announced. Both are compared with the received bytes.
    byte_count: Mapped[int | None] = mapped_column(sa.BigInteger)
    sha256: Mapped[str | None]
    state: Mapped[str] = mapped_column(default=FileState.EXPECTED)
    #: The submission's priority, copied for the order of claims.
    priority: Mapped[int] = mapped_column(sa.SmallInteger, default=5)
    #: For an entry of an archive: the file number of the archive, and the entry's position in it.
    archive_number: Mapped[int | None] = mapped_column(sa.BigInteger)
    entry_number: Mapped[int | None]
    #: For a file from a bucket: its key there, until the file is received or rejected.
    source_key: Mapped[str | None]
    #: For a large upload: the id of the multipart upload.
    upload_id: Mapped[str | None]
    image_id: Mapped[UUID | None] = mapped_column(ForeignKey("image.id"))
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("job.id"))
