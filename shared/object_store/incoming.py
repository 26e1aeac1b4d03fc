"""Objects written by clients: uploads, and files in buckets from which submissions are read.

Their keys are not content-addressed, and a client may overwrite an object at any time. So the `ETag` of each read is
compared with the first one: bytes of two versions are never mixed.
"""

import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Self

from botocore.exceptions import ClientError

from shared.errors import (
    DigestMismatch,
    NotUploaded,
    ObjectMissing,
    ObjectStoreRefused,
    ObjectStoreUnavailable,
    Place,
    TransientError,
)
from shared.object_store import ObjectStore
from shared.object_store.errors import translated

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from mypy_boto3_s3 import S3Client

#: The prefix of uploads, and of streams before they are copied to `originals/`.
INCOMING = "incoming/"

_CHUNK_BYTES = 1024 * 1024
#: Error codes that concern one object or bucket, and are not an outage.
_REFUSED = {"AccessDenied", "InvalidObjectState", "NoSuchBucket"}


class SourceRefused(TransientError):
    """The source bucket does not exist, or does not allow Carina to read the object."""

    code = "source_refused"
    places = Place.FILE


@dataclass(frozen=True)
class StaleUpload:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str
    initiated_at: datetime


class IncomingFile:
    """One object, as it was when it was opened. `read` raises `DigestMismatch` if it has been overwritten since."""

    def __init__(self, s3: "S3Client", bucket: str, key: str) -> None:
        """Open the object; raise `NotUploaded`, `SourceRefused` and `ObjectStoreUnavailable`."""
        self._s3, self._bucket, self._key = s3, bucket, key
        with _readable(key, bucket):
            answer = s3.get_object(Bucket=bucket, Key=key)
        self.byte_count, self._etag, self._body = answer["ContentLength"], answer["ETag"], answer["Body"]

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes of the object. Can be called once."""
        with _readable(self._key, self._bucket), self:
            while chunk := self._body.read(_CHUNK_BYTES):
                yield chunk

    def read(self, start: int, count: int) -> bytes:
        """Return `count` bytes from `start` on; fewer at the end of the object."""
        count = min(count, self.byte_count - start)
        if count <= 0:
            return b""
        with _readable(self._key, self._bucket):
            wanted = f"bytes={start}-{start + count - 1}"
            answer = self._s3.get_object(Bucket=self._bucket, Key=self._key, Range=wanted)
            with closing(answer["Body"]) as body:
                data = body.read()
        if answer["ETag"] != self._etag:
            raise DigestMismatch("The file was overwritten while it was read.")
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._body.close()


class SeekableFile(io.RawIOBase):
    """An `IncomingFile` as a file object. Each read is a request: wrap it in a large `io.BufferedReader`."""

    def __init__(self, file: IncomingFile) -> None:
        super().__init__()
        self._file, self._position = file, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position, without a request."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.byte_count}[whence]
        if base + offset < 0:
            raise ValueError("There is nothing before the start of the file.")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position of the next read."""
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill the buffer with one request; return the number of bytes read."""
        with memoryview(buffer).cast("B") as view:
            data = self._file.read(self._position, len(view))
            view[: len(data)] = data
        self._position += len(data)
        return len(data)


class Incoming(ObjectStore):
    """The object store, with access to objects written by clients."""

    def open(self, key: str, *, bucket: str | None = None) -> IncomingFile:
        """Open an object of our bucket or of another one; raises the errors of `IncomingFile`."""
        if bucket is not None:
            return IncomingFile(self._s3, bucket, key)
        refused: BaseException
        try:
            return IncomingFile(self._s3, self._bucket, key)
        except SourceRefused as exc:
            refused = exc.__cause__ or exc  # our own bucket is not the source of a submission
        except ObjectStoreRefused as exc:
            refused = exc
        if self._may_list():
            raise refused
        raise NotUploaded from refused

    def list_page(self, bucket: str, prefix: str, *, after: str | None, limit: int) -> tuple[list[str], bool]:
        """Return the next keys with a prefix, sorted, and whether there are more; raise `SourceRefused`."""
        with _readable(prefix, bucket):
            page = self._s3.list_objects_v2(Bucket=bucket, Prefix=prefix, StartAfter=after or "", MaxKeys=limit)
        return [entry["Key"] for entry in page.get("Contents", ())], page["IsTruncated"]

    def unfinished_uploads(self) -> Iterator[StaleUpload]:
        """Yield the multipart uploads to our bucket that are in progress or abandoned."""
        with self._translated(INCOMING):
            for page in self._s3.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket):
                for entry in page.get("Uploads", ()):
                    yield StaleUpload(entry["Key"], entry["UploadId"], entry["Initiated"])


@contextmanager
def _readable(key: str, bucket: str) -> Iterator[None]:
    try:
        with translated(key, bucket=bucket):
            yield
    except ObjectMissing as exc:
        raise NotUploaded from exc
    except ObjectStoreUnavailable as exc:
        cause = exc.__cause__
        if isinstance(cause, ClientError) and cause.response["Error"]["Code"] in _REFUSED:
            raise SourceRefused from exc
        raise
