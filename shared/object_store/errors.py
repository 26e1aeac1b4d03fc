"""Translates errors of the object store into ours, with a message that states the cause and the remedy."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from botocore import exceptions
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import NameResolutionError

from shared.errors import (
    BucketMissing,
    ClockSkew,
    ObjectMissing,
    ObjectStoreBusy,
    ObjectStoreRefused,
    ObjectStoreUnavailable,
)

_MISSING = {"NoSuchKey", "NoSuchUpload", "404", "NotFound"}
#: Permissions whose name differs from that of their operation.
_PERMISSIONS = {
    "HeadBucket": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "HeadObject": "GetObject",
    "CopyObject": "PutObject",
    "UploadPart": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "ListParts": "ListMultipartUploadParts",
    "ListMultipartUploads": "ListBucketMultipartUploads",
}
_KEYS = "CARINA_S3_ACCESS_KEY_ID and CARINA_S3_SECRET_ACCESS_KEY"


@dataclass(frozen=True)
class _Meaning:
    """The error for some codes. Its message may contain {bucket}, {code}, {permission}, {region} and {server}."""

    codes: frozenset[str]
    error: type[ObjectStoreUnavailable]
    sentence: str


def _meaning(codes: str, error: type[ObjectStoreUnavailable], sentence: str) -> _Meaning:
    return _Meaning(frozenset(codes.split()), error, sentence)


_MEANINGS = (
    _meaning(
        "SlowDown 503 ServiceUnavailable Throttling ThrottlingException ThrottledException RequestThrottled "
        "RequestThrottledException RequestLimitExceeded TooManyRequests TooManyRequestsException 429",
        ObjectStoreBusy,
        "{server} has too many requests ({code}); it is asked again later.",
    ),
    _meaning(
        "InvalidAccessKeyId",
        ObjectStoreRefused,
        "The object store does not know the access key: check CARINA_S3_ACCESS_KEY_ID.",
    ),
    _meaning(
        "SignatureDoesNotMatch",
        ObjectStoreRefused,
        "The object store finds the signature wrong: check CARINA_S3_SECRET_ACCESS_KEY, and that no proxy on the way "
        "changes the host or the path.",
    ),
    _meaning(
        "ExpiredToken ExpiredTokenException InvalidToken TokenRefreshRequired",
        ObjectStoreRefused,
        "The object store does not accept the session token ({code}): renew CARINA_S3_SESSION_TOKEN with its keys, or "
        "leave all three empty to use the credentials of the machine.",
    ),
    _meaning(
        "AccessDenied 403 Forbidden AllAccessDisabled AccountProblem UnauthorizedAccess",
        ObjectStoreRefused,
        "The object store denies s3:{permission} on the bucket {bucket}: allow it for these credentials.",
    ),
    _meaning(
        "NoSuchBucket", BucketMissing, "There is no bucket {bucket}: create it, or set CARINA_S3_BUCKET to another one."
    ),
    _meaning(
        "BucketAlreadyExists",
        ObjectStoreRefused,
        "The bucket {bucket} belongs to another account: set CARINA_S3_BUCKET to another name.",
    ),
    _meaning(
        "PermanentRedirect TemporaryRedirect Redirect 301 307 AuthorizationHeaderMalformed InvalidRegion "
        "IllegalLocationConstraintException",
        ObjectStoreRefused,
        "The bucket {bucket} is in {region}: set CARINA_S3_REGION, and CARINA_S3_ENDPOINT_URL if it names a region.",
    ),
    _meaning(
        "InvalidObjectState",
        ObjectStoreRefused,
        "An object of the bucket {bucket} is archived: restore it, and keep the bucket out of archive tiers.",
    ),
)


@contextmanager
def translated(key: str, *, bucket: str) -> Iterator[None]:
    """Translate errors of botocore: into `ObjectMissing`, `ObjectStoreUnavailable` or a subclass of that."""
    try:
        yield
    except ClientError as exc:
        if exc.response["Error"]["Code"] in _MISSING:
            raise ObjectMissing(f"The object store holds no {key}.") from exc
        raise _explain_refusal(exc, bucket) from exc
    except BotoCoreError as exc:
        raise _explain_failure(exc) from exc


def names_region(exc: ClientError) -> bool:
    """Whether the answer to a HEAD request, which has no body, says that the bucket is in another region."""
    headers = exc.response["ResponseMetadata"].get("HTTPHeaders", {})
    return exc.response["Error"]["Code"] == "400" and "x-amz-bucket-region" in headers


def _explain_refusal(exc: ClientError, bucket: str) -> ObjectStoreUnavailable:
    error: Mapping[str, str] = exc.response["Error"]  # type: ignore[assignment]  # contains all elements of the answer
    code, operation = error["Code"], exc.operation_name
    headers = exc.response["ResponseMetadata"].get("HTTPHeaders", {})
    is_role = operation.startswith(("AssumeRole", "GetRoleCredentials"))
    server = _credential_server(operation) if is_role else "The object store"
    status = exc.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    if is_role and code not in _MEANINGS[0].codes and status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return ObjectStoreRefused(f"The role for the object store cannot be assumed ({code}): check its trust policy.")
    if code == "RequestTimeTooSkewed":
        ours, theirs = error.get("RequestTime", "another time"), error.get("ServerTime") or headers.get("date")
        return ClockSkew(f"This machine's clock says {ours}, the object store's {theirs}: set the one that is wrong.")
    region = headers.get("x-amz-bucket-region") or error.get("Region")
    if names_region(exc):
        code = "301"
    for meaning in _MEANINGS:
        if code in meaning.codes:
            return meaning.error(
                meaning.sentence.format(
                    bucket=bucket,
                    code=code,
                    permission=_PERMISSIONS.get(operation, operation),
                    server=server,
                    region=f"the region {region}" if region else "another region",
                )
            )
    return ObjectStoreUnavailable(f"{server} answered {operation} with the error {code}.")


def _credential_server(asked_for: str) -> str:
    """Return the service that issues temporary credentials, by its operation or botocore's name of the provider."""
    return "AWS SSO" if asked_for.startswith(("GetRoleCredentials", "sso")) else "AWS STS"


def _explain_failure(exc: BotoCoreError, server: str = "The object store") -> ObjectStoreUnavailable:
    if about_credentials := _explain_credentials(exc):
        return about_credentials
    named = server.replace("The ", "the ")
    host = urlsplit(str(exc.kwargs.get("endpoint_url", ""))).netloc or named
    cause = exc.kwargs.get("error")
    match exc:
        case exceptions.SSLError():
            return ObjectStoreUnavailable(
                f"The certificate of {host} cannot be verified ({_reason(cause)}): set CARINA_CA_BUNDLE to a PEM file "
                "of the authority that signed it."
            )
        case exceptions.ProxyConnectionError():
            proxy = urlsplit(str(exc.kwargs.get("proxy_url", ""))).netloc.rpartition("@")[2]
            return ObjectStoreUnavailable(f"The proxy {proxy} to {named} does not answer: check HTTPS_PROXY.")
        case exceptions.EndpointConnectionError() if isinstance(cause, NameResolutionError):
            return ObjectStoreUnavailable(f"The name {host} of {named} cannot be resolved.")
        case exceptions.EndpointConnectionError():
            return ObjectStoreUnavailable(f"{server} at {host} refuses connections or cannot be reached.")
        case exceptions.ConnectTimeoutError() | exceptions.ReadTimeoutError():
            return ObjectStoreUnavailable(f"{server} at {host} does not answer in time.")
        case exceptions.ConnectionClosedError():
            return ObjectStoreUnavailable(f"{server} at {host} closed the connection.")
    return ObjectStoreUnavailable(f"{server} does not answer as it should ({type(exc).__name__}).")


def _explain_credentials(exc: BotoCoreError) -> ObjectStoreUnavailable | None:
    match exc:
        case exceptions.NoCredentialsError():
            return ObjectStoreRefused(
                f"There are no credentials for the object store: set {_KEYS}, or give this machine a role."
            )
        case exceptions.CredentialRetrievalError(__cause__=BotoCoreError() as unreachable):
            return _explain_failure(unreachable, _credential_server(exc.kwargs["provider"]))
        case exceptions.CredentialRetrievalError():
            # Its text may contain output of a helper program.
            provider, why = exc.kwargs["provider"], _explain_fetch(exc.__cause__)
            return ObjectStoreRefused(f"The credentials for the object store cannot be read from {provider}{why}.")
        case (
            exceptions.PartialCredentialsError()
            | exceptions.ProfileNotFound()
            | exceptions.ConfigNotFound()
            | exceptions.ConfigParseError()
            | exceptions.InvalidConfigError()
            | exceptions.RefreshWithMFAUnsupportedError()
            | exceptions.SSOError()
            | exceptions.UnknownCredentialError()
        ):
            return ObjectStoreRefused(f"The credentials for the object store cannot be read: {exc}")
    return None


def _explain_fetch(cause: BaseException | None) -> str:
    match cause:
        case None:
            return ""
        case OSError(filename=str() as name, strerror=str() as why):
            return f" ({name}: {why})"
        case RuntimeError() if type(cause) is RuntimeError:
            return " (they have expired already: check this machine's clock)"
    return f" ({type(cause).__name__})"


def _reason(cause: object) -> str:
    """Return the message of OpenSSL from a chain of errors: `self-signed certificate in certificate chain`."""
    while isinstance(cause, BaseException):
        if message := getattr(cause, "verify_message", ""):
            return str(message)
        cause = next((inner for inner in (*cause.args, cause.__cause__) if isinstance(inner, BaseException)), None)
    return "TLS failed"
