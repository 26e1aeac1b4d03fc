"""Error answers: RFC 9457 `application/problem+json` with a stable code."""

from collections.abc import Callable
from http import HTTPStatus
from typing import NoReturn, TypeVar
from uuid import UUID

import structlog
from flask import Flask, Response, request
from psycopg.errors import ForeignKeyViolation
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from sqlalchemy.exc import DataError, IntegrityError
from werkzeug.exceptions import HTTPException

from api.contract.problems import InvalidParameter, Problem
from api.http import path_ids
from shared.errors import (
    CODES,
    BucketMissing,
    CarinaError,
    ClockSkew,
    Forbidden,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    ObjectCorrupt,
    ObjectMissing,
    ObjectStoreBusy,
    ObjectStoreRefused,
    ObjectStoreUnavailable,
    Place,
    PlainCode,
    RequestError,
    TransientError,
    Unauthorized,
    UnsupportedMediaType,
    plain_code,
)
from shared.suggestions import AmbiguousName, suggest_choice

log = structlog.get_logger()

#: The value of `Retry-After` in answers with status 503.
RETRY_AFTER_S = 5
#: Codes of the errors that Flask and gunicorn find by themselves.
STATUS_CODES = {
    400: RequestError.code,
    401: Unauthorized.code,
    403: Forbidden.code,
    404: NotFound.code,
    405: plain_code("method_not_allowed", "The route has no such method.", Place.REQUEST, status=405),
    411: plain_code("length_required", "Send the body with `Content-Length`.", Place.REQUEST, status=411),
    413: plain_code(
        "request_entity_too_large", "The body is larger than this route accepts.", Place.REQUEST, status=413
    ),
    414: plain_code("uri_too_long", "The URL is too long.", Place.REQUEST, status=414),
    415: UnsupportedMediaType.code,
    431: plain_code(
        "request_header_fields_too_large", "The headers of the request are too large.", Place.REQUEST, status=431
    ),
    500: CarinaError.code,
    501: plain_code("not_implemented", "The transfer encoding is not supported.", Place.REQUEST, status=501),
    505: plain_code("http_version_not_supported", "Use HTTP/1.1.", Place.REQUEST, status=505),
}


#: The errors of a view that uses the object store, and of one that reads objects from it.
STORE_ERRORS = (ObjectStoreUnavailable, ObjectStoreBusy, ObjectStoreRefused, BucketMissing, ClockSkew)
READS_OBJECTS = (*STORE_ERRORS, ObjectMissing, ObjectCorrupt)
#: An error that a view may answer: its class, or its code if no class has it.
Answerable = type[CarinaError] | str
View = TypeVar("View", bound=Callable[..., object])


def may_raise(*errors: Answerable) -> Callable[[View], View]:
    """State the errors of a view in the API's description, beyond those that follow from its other decorators."""

    def mark(view: View) -> View:
        view.errors = errors  # type: ignore[attr-defined]
        return view

    return mark


def entry_of(error: Answerable) -> type[CarinaError] | PlainCode:
    """Return the class, or the entry of a code that no class has."""
    return CODES[error] if isinstance(error, str) else error


def status_of(entry: type[CarinaError] | PlainCode) -> int:
    """Return the status of an answer with this error; 0 if none has it."""
    if isinstance(entry, PlainCode):
        return entry.status or 0
    if issubclass(entry, RequestError):
        return entry.status
    return HTTPStatus.SERVICE_UNAVAILABLE if issubclass(entry, TransientError) else HTTPStatus.INTERNAL_SERVER_ERROR


def install(app: Flask) -> None:
    """Answer every error of `app` with a problem document."""
    app.register_error_handler(CarinaError, answer)
    app.register_error_handler(HTTPException, _answer_http)
    app.register_error_handler(Exception, answer_unforeseen)


def reject_parameters(error: ValidationError) -> NoReturn:
    """Raise `InvalidRequest` for errors of pydantic. The message does not repeat the values."""
    invalid = InvalidRequest()
    invalid.__cause__ = error
    raise invalid


def answer(error: CarinaError) -> Response:
    """Return the problem document of an error."""
    headers = {}
    if isinstance(error, NotFound):
        error = path_ids.explain(error)
    if isinstance(error, RequestError):
        if error.retry_after_s is not None:
            headers["Retry-After"] = str(error.retry_after_s)
    elif isinstance(error, TransientError):
        headers["Retry-After"] = str(RETRY_AFTER_S)
        log.warning("request_failed", route=str(request.url_rule), code=error.code, detail=error.detail)
    else:
        log.error("request_failed", route=str(request.url_rule), code=error.code, exc_info=error)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    limit = error.limit if isinstance(error, LimitExceeded) else None
    errors = _explain(error) if isinstance(error, RequestError) else None
    candidates = list(error.candidates) or None if isinstance(error, NotFound | AmbiguousName) else None
    detail = error.public_detail + _suggest(error)
    status = status_of(type(error))
    return _respond(status, error.code, detail, headers, limit=limit, errors=errors, candidates=candidates)


def _explain(error: RequestError) -> list[InvalidParameter] | None:
    """Name the invalid parameters; those of pydantic are below the error's own parameter."""
    within = [error.parameter] if error.parameter else []
    if not (isinstance(error, InvalidRequest) and isinstance(error.__cause__, ValidationError)):
        return [InvalidParameter(name=name, detail=error.detail) for name in within] or None
    return [
        InvalidParameter(name=".".join(map(str, (*within, *each["loc"]))), detail=each["msg"] + suggestion_for(each))
        for each in error.__cause__.errors(include_url=False)
    ]


def suggestion_for(found: ErrorDetails) -> str:
    """Suggest a value if an invalid one is similar to an allowed one; else return an empty string."""
    expected = found.get("ctx", {}).get("expected", "") if found["type"] in ("enum", "literal_error") else ""
    return suggest_choice(found["input"], expected)


def _suggest(error: CarinaError) -> str:
    cause = error.__cause__ if isinstance(error, InvalidRequest) else None
    found = cause.errors(include_url=False) if isinstance(cause, ValidationError) else []
    suggested = ((each, suggestion_for(each)) for each in found)
    return next((f" {each['loc'][-1]}:{meant}" for each, meant in suggested if meant and each["loc"]), "")


def _answer_unfit_value(error: DataError) -> Response:
    """Answer 422: a value that PostgreSQL cannot store, such as a NUL character, is an error of the request."""
    log.warning("value_refused", route=str(request.url_rule), error=type(error.orig).__name__)
    return answer(InvalidRequest("The request holds a value that cannot be stored, such as a NUL character."))


def answer_unforeseen(error: Exception) -> Response:
    """Return the problem document of an error that is not a `CarinaError`."""
    if isinstance(error, DataError):
        return _answer_unfit_value(error)
    return _answer_conflict(error) if isinstance(error, IntegrityError) else _answer_unknown(error)


def _answer_conflict(error: IntegrityError) -> Response:
    """Answer 404 if a row that the request refers to was erased during the request."""
    if isinstance(error.orig, ForeignKeyViolation):
        return answer(NotFound())
    return _answer_unknown(error)


def _answer_http(error: HTTPException) -> Response | HTTPException:
    if error.code is None or error.code < 400:
        return error  # a redirect
    headers = {name: value for name, value in error.get_headers() if name.lower() != "content-type"}
    return _respond(error.code, _code_of(error.code), error.description or error.name, headers)


def _answer_unknown(error: Exception) -> Response:
    log.error("request_crashed", route=str(request.url_rule), exc_info=error)
    return _respond(500, CarinaError.code, CarinaError().detail)


def _respond(
    status: int,
    code: str,
    detail: str,
    headers: dict[str, str] | None = None,
    *,
    limit: str | None = None,
    errors: list[InvalidParameter] | None = None,
    candidates: list[UUID] | None = None,
) -> Response:
    title = HTTPStatus(status).phrase
    problem = Problem(
        title=title, status=status, detail=detail, code=code, limit=limit, errors=errors, candidates=candidates
    )
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, status, headers, content_type="application/problem+json")


def problem_for(status: int, detail: str, code: str = "") -> bytes:
    """Return the document of an error that is found before a route is chosen."""
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, code=code or _code_of(status))
    return problem.model_dump_json(exclude_none=True).encode()


def _code_of(status: int) -> str:
    return STATUS_CODES.get(status) or HTTPStatus(status).name.lower()
