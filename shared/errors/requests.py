"""Errors that answer an HTTP request. Those of one subject are defined beside their subject."""

from collections.abc import Sequence
from uuid import UUID

from shared.errors.base import RequestError


class Unauthorized(RequestError):
    """The request carries no valid API key. Send `Authorization: Bearer KEY`."""

    code = "unauthorized"
    status = 401


class KeyExpired(Unauthorized):
    """The API key has expired. Ask an administrator for a new one."""

    code = "key_expired"


class Forbidden(RequestError):
    """The API key lacks the scope that this route needs."""

    code = "forbidden"
    status = 403


class NotFound(RequestError):
    """There is no such thing in this project."""

    code = "not_found"
    status = 404
    #: The ids of things that may have been meant.
    candidates: Sequence[UUID] = ()


class NotReady(RequestError):
    """The result does not exist yet. Try again later."""

    code = "not_ready"
    status = 409


class LimitExceeded(RequestError):
    """The request is larger than a limit allows; `limit` names the setting."""

    code = "limit_exceeded"
    status = 413

    def __init__(self, limit: str, most: int) -> None:
        super().__init__(f"The request is larger than {limit} allows, which is {most}.")
        #: The setting's name.
        self.limit = limit


class InvalidRequest(RequestError):
    """A parameter of the request is not valid; `errors` names it."""

    code = "invalid_request"
    status = 422


class NoFiles(RequestError):
    """The request is not a multipart form with at least one file in its field `files`."""

    code = "no_files"


class UnexpectedFile(RequestError):
    """The form has a file in another field than `files`."""

    code = "unexpected_file"


class MalformedUpload(RequestError):
    """The multipart form cannot be read."""

    code = "malformed_upload"


class UploadCutShort(RequestError):
    """The request body ended too early. Nothing of the incomplete file was kept; send it again."""

    code = "upload_cut_short"


class UnsupportedMediaType(RequestError):
    """The route does not accept the media type of the request body. Set the header `Content-Type` that it needs."""

    code = "unsupported_media_type"
    status = 415


class JobIsFinal(RequestError):
    """The job has finished and cannot be cancelled."""

    code = "job_is_final"
    status = 409
