"""The errors that a caller of the client meets, beside `ApiUnavailable`."""

import httpx
from pydantic import ValidationError

from api.contract.problems import Problem
from shared.errors import CarinaError, Place, plain_code

#: Of an error answer that a proxy made.
UNKNOWN_ERROR = plain_code("unknown_error", "A proxy or another server answered with an error.", Place.PYTHON_CLIENT)


class RequestRefused(CarinaError, shares_code=True):
    """The API answered with an error; `code` and the message are those of the answer."""

    def __init__(self, problem: Problem) -> None:
        named = [f"{each.name}: {each.detail}" for each in problem.errors or () if each.detail not in problem.detail]
        super().__init__(" ".join([problem.detail, *named]))
        self.code = problem.code
        self.status = problem.status
        #: Of `not_found` and `ambiguous_name`: the ids of things that may have been meant.
        self.candidates = problem.candidates or []


class UnexpectedAnswer(CarinaError):
    """The server does not answer as Carina's API does. Check the URL and the version of the server."""

    code = "unexpected_answer"


class InvalidUrl(CarinaError):
    """The URL of the API is not valid."""

    code = "invalid_url"


class InvalidKey(CarinaError):
    """The API key contains a character that no key contains. Copy the key again."""

    code = "invalid_key"


class UnfitText(CarinaError):
    """A value cannot be sent: it is too long or is not valid Unicode text."""

    code = "unfit_text"


class UploadRefused(CarinaError):
    """The object store refused an upload."""

    code = "upload_refused"


class StoreUnreachable(CarinaError):
    """The object store's address cannot be reached from this machine."""

    code = "object_store_unreachable"


class UrlExpired(UploadRefused, shares_code=True):
    """The object store refused a presigned URL, most likely because it has expired."""


def read_problem(response: httpx.Response) -> Problem | None:
    """Return the problem document of an error answer; None for an answer of a proxy or of another server."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        return None


def problem_of(response: httpx.Response) -> Problem:
    """Return the problem document of an error answer; for one of a proxy, a document that names its status."""
    phrase = response.reason_phrase or "error"
    detail = f"The server answered {response.status_code} {phrase}."
    return read_problem(response) or Problem(
        title=phrase, status=response.status_code, detail=detail, code=UNKNOWN_ERROR
    )
