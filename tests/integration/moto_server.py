"""AWS as moto plays it: S3, STS and IAM in a process of their own, whatever key a request is signed with."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.http_proxy import Request
from tests.ports import free_port

#: Subresources of a bucket or an object, by the method and the parameter that stand for them: the action of IAM.
_SUBRESOURCES = {
    ("GET", "uploads"): "s3:ListBucketMultipartUploads",
    ("GET", "uploadId"): "s3:ListMultipartUploadParts",
    ("DELETE", "uploadId"): "s3:AbortMultipartUpload",
    ("POST", "uploads"): "s3:PutObject",
    ("POST", "uploadId"): "s3:PutObject",
    ("PUT", "uploadId"): "s3:PutObject",
    ("GET", "location"): "s3:GetBucketLocation",
}
_OBJECT_ACTIONS = {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject", "DELETE": "s3:DeleteObject"}
_BUCKET_ACTIONS = {"GET": "s3:ListBucket", "HEAD": "s3:ListBucket", "PUT": "s3:CreateBucket"}


@contextmanager
def serving() -> Iterator[int]:
    """Run moto; yields its port."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    httpx.get(f"http://127.0.0.1:{port}/moto-api/", trust_env=False)
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            else:
                pytest.fail("moto did not come up.")
            yield port
        finally:
            process.terminate()


def action_of(request: Request) -> tuple[str, str]:
    """The action that a path-style request needs by AWS' list, and the resource."""
    bucket, _, key = request.path.lstrip("/").partition("/")
    resource = f"arn:aws:s3:::{bucket}/{key}" if key else f"arn:aws:s3:::{bucket}"
    if not bucket:
        return "s3:ListAllMyBuckets", "*"
    for (method, parameter), action in _SUBRESOURCES.items():
        if request.method == method and parameter in request.query:
            return action, resource
    actions = _OBJECT_ACTIONS if key else _BUCKET_ACTIONS
    return actions.get(request.method, f"s3:{request.method}"), resource


def error(code: str, message: str = "", **elements: str) -> bytes:
    """The document of an S3 error."""
    more = "".join(f"<{name}>{value}</{name}>" for name, value in elements.items())
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>".encode()
