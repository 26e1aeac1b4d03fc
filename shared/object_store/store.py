"""The object store: immutable bytes under content-addressed keys, verified when they are read.

No conditional writes are needed: a key always has the same bytes, so writing it twice is harmless and concurrent
writers need no lock.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from datetime import datetime
from functools import cached_property, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import quote
from uuid import UUID

import structlog
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from shared.errors import BucketMissing, DigestMismatch, ObjectCorrupt, ObjectMissing, ObjectStoreRefused
from shared.ids import new_id
from shared.object_store.checked_stream import CheckedStream
from shared.object_store.client import S3Access
from shared.object_store.errors import names_region, translated
from shared.settings import Settings

log = structlog.get_logger()

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, CopySourceTypeDef, CreateBucketConfigurationTypeDef

#: The size of a part of a multipart upload, and the most memory that an upload uses. S3 requires at least 5 MiB.
PART_BYTES = 8 * 1024 * 1024
#: The size of a chunk of an object that is read as a stream.
_CHUNK_BYTES = 256 * 1024

#: An empty object, written to find out why HeadBucket fails. The cleanup of old uploads deletes it.
_ACCESS_CHECK = "incoming/access-check"
#: Statuses of a HEAD request after which another request must find the reason.
_UNCLEAR = {"400", "403", "404"}


def original_key(sha256: str) -> str:
    """Return the key of an original."""
    return f"originals/{sha256[:2]}/{sha256}"


def rendition_key(sha256: str) -> str:
    """Return the key of a rendition."""
    return f"renditions/{sha256[:2]}/{sha256}.png"


def weights_key(sha256: str) -> str:
    """Return the key of a model's weights."""
    return f"models/{sha256}.safetensors"


def dataset_key(sha256: str) -> str:
    """Return the key of a dataset's document."""
    return f"datasets/{sha256}.json"


def checkpoint_key(run_id: UUID, sha256: str) -> str:
    """Return the key of a checkpoint of a training."""
    return f"checkpoints/{run_id}/{sha256}.pt"


def result_key(sha256: str, suffix: str) -> str:
    """Return the key of an output of the trainer: a report, detections, a list of failures, a batch."""
    return f"results/{sha256[:2]}/{sha256}.{suffix}"


def digest_in(key: str) -> str:
    """Return the digest in a content-addressed key."""
    return key.rpartition("/")[2].partition(".")[0]


class StoredObject(NamedTuple):
    """An object in a list of the bucket."""

    key: str
    byte_count: int
    written_at: datetime


class ObjectStore:
    """One bucket of an S3-compatible server. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        """Raise `ObjectStoreUnavailable` if the configuration of the credentials cannot be read."""
        self._bucket = settings.s3_bucket
        self._region = settings.s3_region
        with self._translated(self._bucket):
            self._access = S3Access(settings)
            self._s3 = self._access.client(settings.s3_endpoint_url)
            #: Signs URLs for clients, which may use another host name. It never sends a request.
            self._signer = self._access.client(settings.s3_public_url) if settings.s3_public_url else self._s3

    def close(self) -> None:
        """Close every pooled connection."""
        self._s3.close()
        self._signer.close()

    def ensure_bucket(self) -> None:
        """Create the bucket if it does not exist; raise `ObjectStoreUnavailable`."""
        try:
            self.ping()
        except BucketMissing:
            self._create_bucket()

    def _create_bucket(self) -> None:
        where: CreateBucketConfigurationTypeDef = {"LocationConstraint": cast("Any", self._region)}
        try:
            if self._region == "us-east-1":  # has no LocationConstraint
                self._s3.create_bucket(Bucket=self._bucket)
            else:
                self._s3.create_bucket(Bucket=self._bucket, CreateBucketConfiguration=where)
        except self._s3.exceptions.BucketAlreadyOwnedByYou:
            pass  # another process has created it
        except ClientError as exc:
            if exc.response["ResponseMetadata"].get("HTTPStatusCode") != HTTPStatus.FORBIDDEN:
                with self._translated(self._bucket):
                    raise
            raise BucketMissing(
                f"There is no bucket {self._bucket}, and the credentials may not create it: "
                "create it, or allow s3:CreateBucket."
            ) from exc

    def ping(self) -> None:
        """Raise `ObjectStoreUnavailable`, or the subclass for the reason, if the bucket cannot be used."""
        self._may_list()

    def _may_list(self) -> bool:
        """Whether the credentials may list the bucket. If not, S3 answers 403 for a missing object.

        Raises the errors of `ping`.
        """
        with self._translated(self._bucket):
            try:
                self._s3.head_bucket(Bucket=self._bucket)
            except ClientError as exc:
                if exc.response["Error"]["Code"] not in _UNCLEAR or names_region(exc):
                    raise
            else:
                return True
            # A HEAD answer gives no reason. Credentials that may not list the bucket may still read and write objects.
            self._s3.put_object(Bucket=self._bucket, Key=_ACCESS_CHECK, Body=b"")
            self._s3.get_object(Bucket=self._bucket, Key=_ACCESS_CHECK)["Body"].close()
        return False

    def put(self, key: str, data: bytes) -> None:
        """Store bytes under a content-addressed key."""
        with self._translated(key):
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=data)

    def get(self, key: str, *, sha256: str) -> bytes:
        """Return an object's bytes; raise `ObjectMissing`, or `ObjectCorrupt` if they do not match the digest."""
        with self._translated(key):
            data = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ObjectCorrupt(f"The object {key} does not match its digest.")
        return data

    def get_prefix(self, key: str, byte_count: int) -> bytes:
        """Return the first bytes of an object, which must have that many. Does not verify the digest."""
        with self._translated(key):
            answer = self._s3.get_object(Bucket=self._bucket, Key=key, Range=f"bytes=0-{byte_count - 1}")
            return answer["Body"].read()

    def stream(self, key: str, *, sha256: str) -> Iterator[bytes]:
        """Open an object; return its chunks. Raises the errors of `get`, `ObjectCorrupt` instead of the last chunk."""
        with self._translated(key):
            body = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"]
        return _verified(key, self._bucket, body, sha256)

    def has(self, key: str) -> bool:
        """Whether the object exists."""
        try:
            with self._translated(key):
                self._s3.head_object(Bucket=self._bucket, Key=key)
        except ObjectMissing:
            return False
        except ObjectStoreRefused:
            if self._may_list():
                raise
            return False
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys with a prefix, sorted."""
        return (found.key for found in self.objects(prefix))

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects whose key has a prefix, sorted by key."""
        with self._translated(prefix):
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    yield StoredObject(entry["Key"], entry["Size"], entry["LastModified"])

    def read(self, key: str) -> bytes:
        """Return an object without verifying its digest, which is not known; raise `ObjectMissing`."""
        with self._translated(key):
            return self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()

    def delete(self, key: str) -> None:
        """Delete an object. Deleting a missing object is a no-op."""
        with self._translated(key):
            self._s3.delete_object(Bucket=self._bucket, Key=key)

    def erase(self, key: str) -> None:
        """Delete an object and all its versions, if the bucket keeps versions and the credentials may list them.

        Erasing a missing object is a no-op.
        """
        self.delete(key)  # in a bucket with versions, this adds a delete marker
        for version_id in self._versions(key):
            with self._translated(key):
                self._s3.delete_object(Bucket=self._bucket, Key=key, VersionId=version_id)

    def _versions(self, key: str) -> list[str]:
        """Return the versions and delete markers of an object; none if the server has none or does not list them."""
        try:
            pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=key)
            entries = [entry for page in pages for entry in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))]
        except ClientError as exc:
            # The object itself has been deleted. An outage would have raised an error there.
            log.info("versions_not_listed", code=exc.response["Error"].get("Code"))
            return []
        except BotoCoreError:
            with self._translated(key):
                raise
        return [entry["VersionId"] for entry in entries if entry["Key"] == key]

    def put_stream(self, parts: Iterable[bytes], *, sha256: Callable[[], str]) -> None:
        """Store a stream as an original. `sha256` is called at its end, when the digest is known.

        Each part but the last has `PART_BYTES`. If the stream raises an error, no object remains.
        """
        incoming = f"incoming/{new_id()}"
        with self._translated(incoming):
            self._upload(incoming, parts)
            try:
                source: CopySourceTypeDef = {"Bucket": self._bucket, "Key": incoming}
                self._s3.copy_object(Bucket=self._bucket, Key=original_key(sha256()), CopySource=source)
            finally:
                self._s3.delete_object(Bucket=self._bucket, Key=incoming)

    def put_parts(self, key: str, parts: Iterable[bytes]) -> None:
        """Store a stream under a key. Each part but the last has `PART_BYTES`. After an error, no object remains."""
        with self._translated(key):
            self._upload(key, parts)

    def presign_put(self, key: str, byte_count: int, *, expires_s: int) -> str:
        """Return a URL to which any client can upload an object of exactly this size."""
        # `generate_presigned_url` takes three times as long, and thousands of these URLs are created.
        with self._translated(key):
            credentials = self._access.credentials()
            if credentials is None:
                raise NoCredentialsError
            request = AWSRequest("PUT", self._url_base + quote(key), headers={"Content-Length": str(byte_count)})
        S3SigV4QueryAuth(credentials, "s3", self._region, expires=expires_s).add_auth(request)
        return str(request.url)

    @cached_property
    def _url_base(self) -> str:
        """The URL of the bucket, for the configured addressing style. An object's key follows it."""
        url = self._signer.generate_presigned_url("put_object", Params={"Bucket": self._bucket, "Key": "-"})
        return url.partition("?")[0].removesuffix("-")

    def url_lifetime_s(self, wanted_s: int) -> int:
        """Return for how many seconds a URL signed now is valid: temporary credentials may expire earlier."""
        with self._translated(self._bucket):
            return max(1, int(min(wanted_s, self._access.valid_for_s())))

    def create_upload(self, key: str) -> str:
        """Begin a multipart upload; return its id."""
        with self._translated(key):
            return self._s3.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]

    def presign_part(self, key: str, upload_id: str, part_number: int, byte_count: int, *, expires_s: int) -> str:
        """Return a URL to which any client can upload a part of exactly this size. Parts are numbered from 1."""
        params = {
            "Bucket": self._bucket,
            "Key": key,
            "UploadId": upload_id,
            "PartNumber": part_number,
            "ContentLength": byte_count,
        }
        with self._translated(key):
            return self._signer.generate_presigned_url("upload_part", Params=params, ExpiresIn=expires_s)

    def uploaded_parts(self, key: str, upload_id: str) -> dict[int, int]:
        """Return the sizes of the uploaded parts in bytes, by number; raise `ObjectMissing` without such an upload."""
        with self._translated(key):
            return {number: size for number, size, _ in self._parts(key, upload_id)}

    def complete_upload(self, key: str, upload_id: str) -> None:
        """Create an object from the uploaded parts; raise `ObjectMissing` if there are none.

        Completing an upload again is a no-op. Parts in between may be missing: check the size of the object.
        """
        try:
            with self._translated(key):
                done: list[CompletedPartTypeDef] = [
                    {"PartNumber": number, "ETag": etag} for number, _, etag in self._parts(key, upload_id)
                ]
                if done:
                    self._s3.complete_multipart_upload(
                        Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": done}
                    )
                    return
        except ObjectMissing:
            if self.has(key):
                return
            raise
        raise ObjectMissing(f"No part of {key} has arrived.")

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Delete a multipart upload and its parts. Deleting a missing upload is a no-op."""
        with suppress(ObjectMissing), self._translated(key):
            self._s3.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)

    def _translated(self, key: str) -> AbstractContextManager[None]:
        return translated(key, bucket=self._bucket)

    def _parts(self, key: str, upload_id: str) -> Iterator[tuple[int, int, str]]:
        pages = self._s3.get_paginator("list_parts").paginate(Bucket=self._bucket, Key=key, UploadId=upload_id)
        for page in pages:
            yield from ((part["PartNumber"], part["Size"], part["ETag"]) for part in page.get("Parts", ()))

    def _upload(self, key: str, parts: Iterable[bytes]) -> None:
        upload_id = self._s3.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]
        done: list[CompletedPartTypeDef] = []
        try:
            for number, part in enumerate(parts, start=1):
                answer = self._s3.upload_part(
                    Bucket=self._bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=part
                )
                done.append({"PartNumber": number, "ETag": answer["ETag"]})
            self._s3.complete_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": done}
            )
        except BaseException:
            with suppress(BotoCoreError, ClientError):
                self._s3.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)
            raise


def _verified(key: str, bucket: str, body: "StreamingBody", sha256: str) -> Iterator[bytes]:
    with closing(body), translated(key, bucket=bucket):
        try:
            yield from CheckedStream(iter(partial(body.read, _CHUNK_BYTES), b""), sha256=sha256)
        except DigestMismatch as exc:
            raise ObjectCorrupt(f"The object {key} does not match its digest.") from exc
