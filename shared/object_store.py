"""The object store: immutable bytes under content-addressed keys, verified on read.

Nothing here depends on a server's conditional writes: the same key always means the same bytes, so writing it twice is
harmless and concurrent writers need no lock.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from uuid import UUID

import boto3
import botocore.config
from botocore.exceptions import BotoCoreError, ClientError

from shared.errors import ObjectCorrupt, ObjectMissing, ObjectStoreUnavailable
from shared.ids import new_id
from shared.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, CopySourceTypeDef

#: Parts of a multipart upload; also the most that an upload keeps in memory. S3's least part is 5 MiB.
PART_BYTES = 8 * 1024 * 1024

_MISSING = {"NoSuchKey", "404", "NotFound"}


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
        self._bucket = settings.s3_bucket
        self._s3 = boto3.client(
            "s3",
            endpoint_url=settings.s3_endpoint_url,
            region_name=settings.s3_region,
            aws_access_key_id=settings.s3_access_key_id.get_secret_value(),
            aws_secret_access_key=settings.s3_secret_access_key.get_secret_value(),
            config=botocore.config.Config(
                signature_version="s3v4",
                connect_timeout=3,
                read_timeout=30,
                retries={"mode": "standard", "max_attempts": 3},
                max_pool_connections=64,
                s3={"addressing_style": "path"},
                # We keep our own digest; not every server knows AWS' newer checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def ensure_bucket(self) -> None:
        """Create the bucket if it is not there."""
        with _translated(self._bucket):
            if self._bucket not in {bucket["Name"] for bucket in self._s3.list_buckets()["Buckets"]}:
                self._s3.create_bucket(Bucket=self._bucket)

    def ping(self) -> None:
        """Raise `ObjectStoreUnavailable` or `ObjectMissing` when the bucket cannot be reached."""
        with _translated(self._bucket):
            self._s3.head_bucket(Bucket=self._bucket)

    def put(self, key: str, data: bytes) -> None:
        """Store bytes under a key that their digest determines."""
        with _translated(key):
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=data)

    def get(self, key: str, *, sha256: str) -> bytes:
        """Return an object's bytes; raise `ObjectMissing`, or `ObjectCorrupt` when they do not match the digest."""
        with _translated(key):
            data = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ObjectCorrupt(f"The object {key} does not match its digest.")
        return data

    def has(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            with _translated(key):
                self._s3.head_object(Bucket=self._bucket, Key=key)
        except ObjectMissing:
            return False
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin so, in order."""
        with _translated(prefix):
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
                yield from (entry["Key"] for entry in page.get("Contents", ()))

    def read(self, key: str) -> bytes:
        """Return an object of somebody else's, whose digest is not known; raise `ObjectMissing`."""
        with _translated(key):
            return self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is none the worse for it."""
        with _translated(key):
            self._s3.delete_object(Bucket=self._bucket, Key=key)

    def put_stream(self, parts: Iterable[bytes], *, digest: "hashlib._Hash") -> str:
        """Store a stream whose digest is only known at its end, as an original; return the hex digest.

        `digest` is updated by whoever yields the parts, each of `PART_BYTES` but for the last. A stream that raises
        leaves no object: the upload is aborted, and the error goes on.
        """
        incoming = f"incoming/{new_id()}"
        with _translated(incoming):
            self._upload(incoming, parts)
            try:
                sha256 = digest.hexdigest()
                source: CopySourceTypeDef = {"Bucket": self._bucket, "Key": incoming}
                self._s3.copy_object(Bucket=self._bucket, Key=original_key(sha256), CopySource=source)
            finally:
                self._s3.delete_object(Bucket=self._bucket, Key=incoming)
        return sha256

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


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except ClientError as exc:
        if exc.response["Error"]["Code"] in _MISSING:
            raise ObjectMissing(f"The object store holds no {key}.") from exc
        raise ObjectStoreUnavailable(f"The object store refused: {exc.response['Error']['Code']}.") from exc
    except BotoCoreError as exc:
        raise ObjectStoreUnavailable from exc
