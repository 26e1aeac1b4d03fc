"""Clients of the object store: with whose credentials, at which endpoint, trusting which certificate authorities."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
import botocore.config
import botocore.session
from botocore.credentials import Credentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own
    CredentialRetrievalError,
    HTTPClientError,
)
from botocore.loaders import Loader

from shared.network.tls import find_ca_bundle
from shared.network.urls import is_loopback
from shared.settings import Settings

if TYPE_CHECKING:
    from botocore.model import OperationModel
    from mypy_boto3_s3 import S3Client

_READ_S, _TRIES = 30, 3
#: How long a request may wait for an object store that is silent.
LONGEST_REQUEST_S = float(_TRIES * _READ_S)
#: Keeps the descriptions of the services, which take 0.2 s to read, from one session to the next.
_LOADER = Loader(include_default_search_paths=True)


class S3Access:
    """The credentials of one process, and clients that use them. Safe to share between threads.

    Without keys in the settings the credentials come from where the AWS SDK finds them: environment, shared files and
    profiles, web identity (IRSA), container or instance role. Temporary ones are renewed before they expire.
    Raises botocore's errors.
    """

    def __init__(self, settings: Settings) -> None:
        core = botocore.session.Session()
        core.register_component("data_loader", _LOADER)
        if path := find_ca_bundle(settings.ca_bundle):
            core.set_config_variable("ca_bundle", path)  # which clients that fetch credentials use, too
        self._session = boto3.Session(
            aws_access_key_id=settings.s3_access_key_id.get_secret_value() or None,
            aws_secret_access_key=settings.s3_secret_access_key.get_secret_value() or None,
            aws_session_token=settings.s3_session_token.get_secret_value() or None,
            region_name=settings.s3_region,
            botocore_session=core,
        )
        self._addressing = settings.s3_addressing

    def client(self, endpoint_url: str) -> "S3Client":
        """Return a client for an endpoint; an empty one is that of AWS in the region."""
        # As botocore's `auto`, but for presigned URLs, which would name the global endpoint: that redirects.
        self._find()  # before the client does, so that any error is one of botocore's
        style = "virtual" if self._addressing == "auto" and not endpoint_url else self._addressing
        client = self._session.client(
            "s3",
            endpoint_url=endpoint_url or None,
            config=botocore.config.Config(
                signature_version="s3v4",
                connect_timeout=3,
                read_timeout=_READ_S,
                retries={"mode": "standard", "max_attempts": _TRIES},
                max_pool_connections=64,
                proxies={} if is_loopback(endpoint_url) else None,
                s3={"addressing_style": style, "us_east_1_regional_endpoint": "regional"},
                # We keep our own digest; not every server knows AWS' newer checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        client.meta.events.register_last("before-parameter-build.s3", _follow_no_redirect)
        client.meta.events.register_first("before-sign.s3", self._renew)
        return client

    def credentials(self) -> Credentials | None:
        """Return the credentials as they are now, renewed if they are about to expire; None where there are none."""
        self._renew()
        found = self._find()
        frozen = found.get_frozen_credentials() if found is not None else None
        if frozen is None or frozen.access_key is None or frozen.secret_key is None:
            return None
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    def valid_for_s(self) -> float:
        """Return for how long what is signed now can be used, in seconds; infinite for keys that do not expire."""
        self._renew()
        found = self._find()
        # botocore tells nobody when temporary credentials expire.
        expires_at = getattr(found, "_expiry_time", None)
        return float("inf") if expires_at is None else (expires_at - datetime.now(UTC)).total_seconds()

    def _find(self) -> Credentials | None:
        with _one_error_for_all("the configuration of the AWS SDK"):
            return self._session.get_credentials()

    def _renew(self, **_: object) -> None:
        """Renew the credentials if they are about to expire."""
        found = self._find()
        if found is not None:
            with _one_error_for_all(found.method):
                found.get_frozen_credentials()


@contextmanager
def _one_error_for_all(provider: str) -> Iterator[None]:
    """Raise `CredentialRetrievalError` for what botocore lets through: no token file, a helper's rubbish, old keys.

    So it does for a server that gives the credentials and cannot be reached, which the object store is not.
    """
    try:
        yield
    except ClientError:
        raise
    except Exception as exc:
        if isinstance(exc, BotoCoreError) and not isinstance(exc, ConnectionError | HTTPClientError):
            raise
        raise CredentialRetrievalError(provider=provider, error_msg=type(exc).__name__) from exc


def _follow_no_redirect(model: "OperationModel", context: dict[str, Any], **_: object) -> None:
    """Keep botocore from asking for the bucket's region by this same request, again and again until the stack is full.

    So a wrong region is told, where the bucket is asked for.
    """
    if model.name == "HeadBucket":
        context["s3_redirect"]["redirected"] = True
