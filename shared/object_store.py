"""The object store: immutable bytes under content-addressed keys, verified on read.

Nothing here depends on a server's conditional writes: the same key always means the same bytes, so writing it twice is
harmless and concurrent writers need no lock.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import UUID

import boto3
import botocore.config
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError

from shared.errors import ObjectCorrupt, ObjectMissing, ObjectStoreUnavailable
from shared.ids import new_id
from shared.proxies import is_loopback
from shared.settings import Settings
from shared.tls import find_ca_bundle

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, CopySourceTypeDef

#: Parts of a multipart upload; also the most that an upload keeps in memory. S3's least part is 5 MiB.
PART_BYTES = 8 * 1024 * 1024
#: Of an object that is read as a stream.
_CHUNK_BYTES = 256 * 1024

_MISSING = {"NoSuchKey", "NoSuchUpload", "404", "NotFound"}


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


def _client(settings: Settings, endpoint_url: str) -> "S3Client":
    return boto3.client(
        "s3",
        verify=find_ca_bundle(settings.ca_bundle),
        endpoint_url=endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key_id.get_secret_value(),
        aws_secret_access_key=settings.s3_secret_access_key.get_secret_value(),
        config=botocore.config.Config(
            signature_version="s3v4",
            connect_timeout=3,
            read_timeout=30,
            retries={"mode": "standard", "max_attempts": 3},
            max_pool_connections=64,
            proxies={} if is_loopback(endpoint_url) else None,
            s3={"addressing_style": "path"},
            # We keep our own digest; not every server knows AWS' newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


class ObjectStore:
    """One bucket of an S3-compatible server. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._bucket = settings.s3_bucket
        self._s3 = _client(settings, settings.s3_endpoint_url)
        self._credentials = Credentials(
            settings.s3_access_key_id.get_secret_value(), settings.s3_secret_access_key.get_secret_value()
        )
        self._region = settings.s3_region
        self._public_url = (settings.s3_public_url or settings.s3_endpoint_url).rstrip("/")
        #: Signs for clients, who may know the server by another name; never asks anything of it.
        self._signer = _client(settings, settings.s3_public_url) if settings.s3_public_url else self._s3

    def close(self) -> None:
        """Close every pooled connection."""
        self._s3.close()

    def ensure_bucket(self) -> None:
        """Create the bucket if it is not there."""
        with translated(self._bucket):
            if self._bucket not in {bucket["Name"] for bucket in self._s3.list_buckets()["Buckets"]}:
                self._s3.create_bucket(Bucket=self._bucket)

    def ping(self) -> None:
        """Raise `ObjectStoreUnavailable` or `ObjectMissing` when the bucket cannot be reached."""
        with translated(self._bucket):
            self._s3.head_bucket(Bucket=self._bucket)

    def put(self, key: str, data: bytes) -> None:
        """Store bytes under a key that their digest determines."""
        with translated(key):
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=data)

    def get(self, key: str, *, sha256: str) -> bytes:
        """Return an object's bytes; raise `ObjectMissing`, or `ObjectCorrupt` when they do not match the digest."""
        with translated(key):
            data = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ObjectCorrupt(f"The object {key} does not match its digest.")
        return data

    def get_prefix(self, key: str, byte_count: int) -> bytes:
        """Return so many bytes of an object's start, which it must have; unlike `get`, without a look at the digest."""
        with translated(key):
            answer = self._s3.get_object(Bucket=self._bucket, Key=key, Range=f"bytes=0-{byte_count - 1}")
            return answer["Body"].read()

    def stream(self, key: str, *, sha256: str) -> Iterator[bytes]:
        """Open an object and return its chunks; raise as `get` does, `ObjectCorrupt` in place of the last one."""
        with translated(key):
            body = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"]
        return _verified(key, body, sha256)

    def has(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            with translated(key):
                self._s3.head_object(Bucket=self._bucket, Key=key)
        except ObjectMissing:
            return False
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin so, in order."""
        with translated(prefix):
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
                yield from (entry["Key"] for entry in page.get("Contents", ()))

    def read(self, key: str) -> bytes:
        """Return an object of somebody else's, whose digest is not known; raise `ObjectMissing`."""
        with translated(key):
            return self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is none the worse for it."""
        with translated(key):
            self._s3.delete_object(Bucket=self._bucket, Key=key)

    def put_stream(self, parts: Iterable[bytes], *, digest: "hashlib._Hash") -> str:
        """Store a stream whose digest is only known at its end, as an original; return the hex digest.

        `digest` is updated by whoever yields the parts, each of `PART_BYTES` but for the last. A stream that raises
        leaves no object: the upload is aborted, and the error goes on.
        """
        incoming = f"incoming/{new_id()}"
        with translated(incoming):
            self._upload(incoming, parts)
            try:
                sha256 = digest.hexdigest()
                source: CopySourceTypeDef = {"Bucket": self._bucket, "Key": incoming}
                self._s3.copy_object(Bucket=self._bucket, Key=original_key(sha256), CopySource=source)
            finally:
                self._s3.delete_object(Bucket=self._bucket, Key=incoming)
        return sha256

    def put_parts(self, key: str, parts: Iterable[bytes]) -> None:
        """Store a stream under a key, each part of `PART_BYTES` but for the last; one that raises leaves no object."""
        with translated(key):
            self._upload(key, parts)

    def presign_put(self, key: str, byte_count: int, *, expires_s: int) -> str:
        """Return a URL under which anybody may put an object of exactly this size."""
        # As `generate_presigned_url` does, which takes three times as long: these are made by the thousand.
        url = f"{self._public_url}/{self._bucket}/{quote(key)}"
        request = AWSRequest("PUT", url, headers={"Content-Length": str(byte_count)})
        S3SigV4QueryAuth(self._credentials, "s3", self._region, expires=expires_s).add_auth(request)
        return str(request.url)

    def create_upload(self, key: str) -> str:
        """Begin an upload in parts; return the server's name for it."""
        with translated(key):
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
        return self._signer.generate_presigned_url("upload_part", Params=params, ExpiresIn=expires_s)

    def uploaded_parts(self, key: str, upload_id: str) -> dict[int, int]:
        """Return the sizes in bytes of the parts that have arrived; raise `ObjectMissing` for no such upload."""
        with translated(key):
            return {number: size for number, size, _ in self._parts(key, upload_id)}

    def complete_upload(self, key: str, upload_id: str) -> None:
        """Make an object of the parts that have arrived; raise `ObjectMissing` for none. The second time does nothing.

        Parts may be missing in between: compare the object's size.
        """
        try:
            with translated(key):
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
        with suppress(ObjectMissing), translated(key):
            self._s3.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)

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


def _verified(key: str, body: "StreamingBody", sha256: str) -> Iterator[bytes]:
    """Yield what a body holds, one chunk behind, so that a reader never gets all of a corrupt object."""
    digest, held = hashlib.sha256(), b""
    with closing(body), translated(key):
        while chunk := body.read(_CHUNK_BYTES):
            digest.update(chunk)
            if held:
                yield held
            held = chunk
    if digest.hexdigest() != sha256:
        raise ObjectCorrupt(f"The object {key} does not match its digest.")
    if held:
        yield held


@contextmanager
def translated(key: str) -> Iterator[None]:
    """Raise our errors for those of botocore: `ObjectMissing` and `ObjectStoreUnavailable`."""
    try:
        yield
    except ClientError as exc:
        if exc.response["Error"]["Code"] in _MISSING:
            raise ObjectMissing(f"The object store holds no {key}.") from exc
        raise ObjectStoreUnavailable(f"The object store refused: {exc.response['Error']['Code']}.") from exc
    except BotoCoreError as exc:
        raise ObjectStoreUnavailable from exc
