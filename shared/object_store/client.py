"""Creates clients of the object store: credentials, endpoint, and trusted certificate authorities."""

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
#: The longest time that a request waits for an object store that does not answer, in seconds.
MAX_REQUEST_S = float(_TRIES * _READ_S)
#: Caches the descriptions of the services between sessions: reading them takes 0.2 s.
_LOADER = Loader(include_default_search_paths=True)


class S3Access:
    """The credentials of one process, and clients that use them. Thread-safe.

    If the settings contain no keys, the AWS SDK finds the credentials: environment, shared files and profiles, web
    identity (IRSA), container or instance role. Temporary credentials are renewed before they expire. Raises errors of
    botocore.
    """

    def __init__(self, settings: Settings) -> None:
        core = botocore.session.Session()
        core.register_component("data_loader", _LOADER)
        if path := find_ca_bundle(settings.ca_bundle):
            core.set_config_variable("ca_bundle", path)  # also for clients that fetch credentials
        self._session = boto3.Session(
            aws_access_key_id=settings.s3_access_key_id.get_secret_value() or None,
            aws_secret_access_key=settings.s3_secret_access_key.get_secret_value() or None,
            aws_session_token=settings.s3_session_token.get_secret_value() or None,
            region_name=settings.s3_region,
            botocore_session=core,
        )
        self._addressing = settings.s3_addressing

    def client(self, endpoint_url: str) -> "S3Client":
        """Return a client for an endpoint; if it is empty, for AWS in the region."""
        # `auto` is resolved here, because botocore's own `auto` presigns URLs for the global endpoint, which redirects.
        self._find()  # before the client does, so that all errors are errors of botocore
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
                # We verify our own digest; not every server supports the newer checksums of AWS.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        client.meta.events.register_last("before-parameter-build.s3", _follow_no_redirect)
        client.meta.events.register_first("before-sign.s3", self._renew)
        return client

    def credentials(self) -> Credentials | None:
        """Return the current credentials, renewed if they are about to expire; None if there are none."""
        self._renew()
        found = self._find()
        frozen = found.get_frozen_credentials() if found is not None else None
        if frozen is None or frozen.access_key is None or frozen.secret_key is None:
            return None
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    def valid_for_s(self) -> float:
        """Return for how many seconds a request signed now is valid; infinite if the keys do not expire."""
        self._renew()
        found = self._find()
        # botocore has no public attribute for the expiry of temporary credentials.
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
    """Raise `CredentialRetrievalError` for errors that botocore does not translate, such as a missing token file.

    Others are invalid output of a helper program, and expired keys. Connection errors are translated too: the server
    that provides the credentials cannot be reached, not the object store.
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
    """Keep botocore from repeating HeadBucket to find the bucket's region, which would recurse without end.

    The error of a wrong region is raised instead.
    """
    if model.name == "HeadBucket":
        context["s3_redirect"]["redirected"] = True
