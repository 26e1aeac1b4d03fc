"""Every error answer: RFC 9457 `application/problem+json` with a stable code."""

import re
import time
from contextlib import suppress
from http import HTTPStatus
from typing import IO, NoReturn

import structlog
from flask import Flask, Response, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from api.schemas import InvalidParameter, Problem
from shared.errors import CarinaError, InvalidRequest, LimitExceeded, RequestError, TransientError, Unauthorized

log = structlog.get_logger()

#: What a 503 tells the client to wait.
RETRY_AFTER_S = 5
#: How long an early error answer waits for a client that is still sending, which would miss it otherwise.
DRAIN_S = 5.0


def install(app: Flask) -> None:
    """Make `app` answer every error with a problem document."""
    app.register_error_handler(CarinaError, _answer_ours)
    app.register_error_handler(HTTPException, _answer_http)
    app.register_error_handler(Exception, _answer_unknown)
    app.after_request(_drain_after_error)


def reject_parameters(error: ValidationError) -> NoReturn:
    """Raise `InvalidRequest` for what pydantic found; the values themselves are not repeated."""
    invalid = InvalidRequest()
    invalid.__cause__ = error
    raise invalid


def _answer_ours(error: CarinaError) -> Response:
    problem = Problem(title="", status=500, detail=error.detail, code=error.code)
    headers = {}
    if isinstance(error, RequestError):
        problem.status = error.status
    elif isinstance(error, TransientError):
        problem.status, headers["Retry-After"] = 503, str(RETRY_AFTER_S)
        log.warning("request_failed", code=error.code, route=str(request.url_rule))
    else:
        log.error("request_failed", code=error.code, route=str(request.url_rule), exc_info=error)
    if isinstance(error, LimitExceeded):
        problem.limit = error.limit
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error.__cause__, ValidationError):
        problem.errors = [
            InvalidParameter(name=".".join(map(str, found["loc"])), detail=found["msg"])
            for found in error.__cause__.errors(include_url=False, include_context=False, include_input=False)
        ]
    return _respond(problem, headers)


def _answer_http(error: HTTPException) -> Response | HTTPException:
    if error.code is None or error.code < 400:
        return error  # a redirect
    headers = {name: value for name, value in error.get_headers() if name.lower() != "content-type"}
    code = re.sub(r"[^a-z]+", "_", error.name.lower())
    return _respond(Problem(title="", status=error.code, detail=error.description or error.name, code=code), headers)


def _answer_unknown(error: Exception) -> Response:
    log.error("request_crashed", route=str(request.url_rule), exc_info=error)
    return _respond(Problem(title="", status=500, detail=CarinaError().detail, code=CarinaError.code), {})


def _respond(problem: Problem, headers: dict[str, str]) -> Response:
    problem.title = HTTPStatus(problem.status).phrase
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, problem.status, headers, content_type="application/problem+json")


def _drain_after_error(response: Response) -> Response:
    if response.status_code >= 400 and request.method == "POST":
        # The request's own stream refuses to go beyond its limits; the server's knows where the body ends.
        body: IO[bytes] = request.environ["wsgi.input"]
        response.call_on_close(lambda: _drain(body))
    return response


def _drain(body: IO[bytes]) -> None:
    deadline = time.monotonic() + DRAIN_S
    # Whatever the server raises for a body that ends early: the answer is out, and nobody waits for this.
    with suppress(Exception):
        while time.monotonic() < deadline and body.read(64 * 1024):
            pass
