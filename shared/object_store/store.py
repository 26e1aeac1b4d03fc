"""The object store: immutable bytes under content-addressed keys, verified on read.

Nothing here depends on a server's conditional writes: the same key always means the same bytes, so writing it twice is
harmless and concurrent writers need no lock.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from functools import cached_property, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
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

#: Parts of a multipart upload; also the most that an upload keeps in memory. S3's least part is 5 MiB.
PART_BYTES = 8 * 1024 * 1024
#: Of an object that is read as a stream.
_CHUNK_BYTES = 256 * 1024

#: An empty object that is written where it cannot be asked for the bucket; it is collected with old uploads.
_ACCESS_CHECK = "incoming/access-check"
#: Statuses of a HEAD whose reason only another request tells.
_UNCLEAR = {"400", "403", "404"}


def original_key(sha256: str) -> str:
    """Where an uploaded file lies."""
    return f"originals/{sha256[:2]}/{sha256}"


def rendition_key(sha256: str) -> str:
    """Where a rendition lies."""
    return f"renditions/{sha256[:2]}/{sha256}.png"


def weights_key(sha256: str) -> str:
    """Where a model's weights lie."""
    return f"models/{sha256}.safetensors"


def dataset_key(sha256: str) -> str:
    """Where a dataset's document lies."""
    return f"datasets/{sha256}.json"


def checkpoint_key(run_id: UUID, sha256: str) -> str:
    """Where a checkpoint of a training lies."""
    return f"checkpoints/{run_id}/{sha256}.pt"


def result_key(sha256: str, suffix: str) -> str:
    """Where something that the trainer wrote lies: a report, detections, a list of failures, a batch."""
    return f"results/{sha256[:2]}/{sha256}.{suffix}"


class ObjectStore:
    """One bucket of an S3-compatible server. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        """Raises `ObjectStoreUnavailable` where the credentials' configuration cannot be read."""
        self._bucket = settings.s3_bucket
        self._region = settings.s3_region
        with self._translated(self._bucket):
            self._access = S3Access(settings)
            self._s3 = self._access.client(settings.s3_endpoint_url)
            #: Signs for clients, who may know the server by another name; never asks anything of it.
            self._signer = self._access.client(settings.s3_public_url) if settings.s3_public_url else self._s3

    def close(self) -> None:
        """Close every pooled connection."""
        self._s3.close()
        self._signer.close()

    def ensure_bucket(self) -> None:
        """Create the bucket if it is not there; raises `ObjectStoreUnavailable`."""
        try:
            self.ping()
        except BucketMissing:
            self._create_bucket()

    def _create_bucket(self) -> None:
        where: CreateBucketConfigurationTypeDef = {"LocationConstraint": cast("Any", self._region)}
        try:
            if self._region == "us-east-1":  # which S3 knows by no name
                self._s3.create_bucket(Bucket=self._bucket)
            else:
                self._s3.create_bucket(Bucket=self._bucket, CreateBucketConfiguration=where)
        except self._s3.exceptions.BucketAlreadyOwnedByYou:
            pass  # another process was quicker
        except ClientError as exc:
            if exc.response["ResponseMetadata"].get("HTTPStatusCode") != HTTPStatus.FORBIDDEN:
                with self._translated(self._bucket):
                    raise
            raise BucketMissing(
                f"There is no bucket {self._bucket}, and the credentials may not create it: "
                "create it, or allow s3:CreateBucket."
            ) from exc

    def ping(self) -> None:
        """Raise `ObjectStoreUnavailable`, or one of its kinds that says why, when the bucket cannot be used."""
        self._may_list()

    def _may_list(self) -> bool:
        """Whether the bucket may be listed, without which S3 answers 403 for an object that is not there.

        Raises as `ping` does.
        """
        with self._translated(self._bucket):
            try:
                self._s3.head_bucket(Bucket=self._bucket)
            except ClientError as exc:
                if exc.response["Error"]["Code"] not in _UNCLEAR or names_region(exc):
                    raise
            else:
                return True
            # HEAD has no words for why. And who may not list a bucket may still read and write in it.
            self._s3.put_object(Bucket=self._bucket, Key=_ACCESS_CHECK, Body=b"")
            self._s3.get_object(Bucket=self._bucket, Key=_ACCESS_CHECK)["Body"].close()
        return False

    def put(self, key: str, data: bytes) -> None:
        """Store bytes under a key that their digest determines."""
        with self._translated(key):
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=data)

    def get(self, key: str, *, sha256: str) -> bytes:
        """Return an object's bytes; raise `ObjectMissing`, or `ObjectCorrupt` when they do not match the digest."""
        with self._translated(key):
            data = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ObjectCorrupt(f"The object {key} does not match its digest.")
        return data

    def get_prefix(self, key: str, byte_count: int) -> bytes:
        """Return so many bytes of an object's start, which it must have; unlike `get`, without a look at the digest."""
        with self._translated(key):
            answer = self._s3.get_object(Bucket=self._bucket, Key=key, Range=f"bytes=0-{byte_count - 1}")
            return answer["Body"].read()

    def stream(self, key: str, *, sha256: str) -> Iterator[bytes]:
        """Open an object and return its chunks; raise as `get` does, `ObjectCorrupt` in place of the last one."""
        with self._translated(key):
            body = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"]
        return _verified(key, self._bucket, body, sha256)

    def has(self, key: str) -> bool:
        """Whether there is such an object."""
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
        """Yield the keys that begin so, in order."""
        with self._translated(prefix):
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
                yield from (entry["Key"] for entry in page.get("Contents", ()))

    def read(self, key: str) -> bytes:
        """Return an object of somebody else's, whose digest is not known; raise `ObjectMissing`."""
        with self._translated(key):
            return self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is none the worse for it."""
        with self._translated(key):
            self._s3.delete_object(Bucket=self._bucket, Key=key)

    def erase(self, key: str) -> None:
        """Remove an object with every version of it, where the bucket keeps versions and they may be listed.

        Erasing a missing object is a no-op.
        """
        self.delete(key)  # which adds a marker, where there are versions
        for version_id in self._versions(key):
            with self._translated(key):
                self._s3.delete_object(Bucket=self._bucket, Key=key, VersionId=version_id)

    def _versions(self, key: str) -> list[str]:
        """The versions of an object and its deletions; none where the server keeps none, or does not say."""
        try:
            pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=key)
            entries = [entry for page in pages for entry in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))]
        except ClientError as exc:
            # The object itself is removed all the same. Which server is down is found out there.
            log.info("versions_not_listed", code=exc.response["Error"].get("Code"))
            return []
        except BotoCoreError:
            with self._translated(key):
                raise
        return [entry["VersionId"] for entry in entries if entry["Key"] == key]

    def put_stream(self, parts: Iterable[bytes], *, sha256: Callable[[], str]) -> None:
        """Store a stream whose digest is only known at its end, as an original; `sha256` is called then.

        Each part has `PART_BYTES`, but for the last. A stream that raises leaves no object.
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
        """Store a stream under a key, each part of `PART_BYTES` but for the last; one that raises leaves no object."""
        with self._translated(key):
            self._upload(key, parts)

    def presign_put(self, key: str, byte_count: int, *, expires_s: int) -> str:
        """Return a URL under which anybody may put an object of exactly this size."""
        # As `generate_presigned_url` does, which takes three times as long: these are made by the thousand.
        with self._translated(key):
            credentials = self._access.credentials()
            if credentials is None:
                raise NoCredentialsError
            request = AWSRequest("PUT", self._url_base + quote(key), headers={"Content-Length": str(byte_count)})
        S3SigV4QueryAuth(credentials, "s3", self._region, expires=expires_s).add_auth(request)
        return str(request.url)

    @cached_property
    def _url_base(self) -> str:
        """What an object's URL begins with, by whichever style of address is set."""
        url = self._signer.generate_presigned_url("put_object", Params={"Bucket": self._bucket, "Key": "-"})
        return url.partition("?")[0].removesuffix("-")

    def url_lifetime_s(self, wanted_s: int) -> int:
        """Return for how long a URL that is signed now is good: temporary credentials may expire before."""
        with self._translated(self._bucket):
            return max(1, int(min(wanted_s, self._access.valid_for_s())))

    def create_upload(self, key: str) -> str:
        """Begin an upload in parts; return the server's name for it."""
        with self._translated(key):
            return self._s3.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]

    def presign_part(self, key: str, upload_id: str, part_number: int, byte_count: int, *, expires_s: int) -> str:
        """Return a URL under which anybody may put a part of exactly this size; parts count from 1."""
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
        """Return the sizes in bytes of the parts that have arrived; raise `ObjectMissing` for no such upload."""
        with self._translated(key):
            return {number: size for number, size, _ in self._parts(key, upload_id)}

    def complete_upload(self, key: str, upload_id: str) -> None:
        """Make an object of the parts that have arrived; raise `ObjectMissing` for none. The second time does nothing.

        Parts may be missing in between: compare the object's size.
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
        """Drop an upload in parts and what has arrived of it; one that is not there is none the worse for it."""
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
