"""The API's description: `/openapi.json`, and `/docs`, which shows it and asks no other server for anything."""

import re
import threading
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import flask_openapi3_swagger
from flask import Blueprint, Response, current_app
from flask_openapi3.openapi import OpenAPI

from api.contract.problems import PROBLEM
from api.http.address import absolute
from api.http.auth import is_public, public
from api.http.idempotency import HEADER, REPLAYED
from shared.errors import NotFound

blueprint = Blueprint("docs", __name__)

_making = threading.Lock()

_SWAGGER = files(flask_openapi3_swagger) / "templates" / "swagger"
_PAGE = files("api.http") / "docs_page"
_ASSETS = {
    "swagger-ui.css": (_SWAGGER / "css" / "swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": (_SWAGGER / "js" / "swagger-ui-bundle.js", "text/javascript"),
    "start.js": (_PAGE / "start.js", "text/javascript"),
}
#: Swagger UI sets style attributes and draws with data URLs; nothing comes from, or goes to, elsewhere.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_REASONS = {
    "400": "The body cannot be read, or did not arrive whole.",
    "401": "The request carries no valid API key.",
    "403": "The API key lacks the scope that this route needs.",
    "404": "There is no such thing in this project.",
    "408": "The body did not arrive in time.",
    "409": "It cannot be done as things stand.",
    "413": "The request is larger than a limit allows.",
    "415": "The body's media type is not one that this route takes.",
    "429": "The API key has asked for more than it may; `Retry-After` says when to come back.",
    "503": "A server that the API needs does not answer; `Retry-After` says when to come back.",
}
_IDEMPOTENCY = {
    "name": HEADER,
    "in": "header",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$", "maxLength": 255},
    "description": "Makes it safe to send the request again: within 48 hours the same key, route and body get the same "
    f"answer, marked `{REPLAYED}: true`, and nothing is done twice. Another body is refused with 409.",
}


@blueprint.get("/openapi.json")
@public
def description() -> dict[str, Any]:
    """Show the description."""
    app = current_app
    assert isinstance(app, OpenAPI)
    with _making:
        if not app.spec_json:
            for rule, method, operation in _operations(app):
                _complete(operation, method, rule, app.view_functions[rule.endpoint])
    found: dict[str, Any] = app.spec_json
    return {**found, "servers": [{"url": absolute("")}]}


@blueprint.get("/docs")
@public
def page() -> Response:
    """Show the description to people."""
    return _send((_PAGE / "index.html").read_bytes(), "text/html; charset=utf-8")


@blueprint.get("/docs/<name>")
@public
def asset(name: str) -> Response:
    """Send what the page is made of."""
    if name not in _ASSETS:
        raise NotFound
    return _send(_content(name), _ASSETS[name][1])


@cache
def _content(name: str) -> bytes:
    """An asset's bytes, which all answers share."""
    return _ASSETS[name][0].read_bytes()


def _send(content: bytes, media_type: str) -> Response:
    headers = {"Content-Security-Policy": _POLICY}
    return Response(content, headers=headers, content_type=media_type)


def _operations(app: OpenAPI) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """Yield each rule with its method and its operation in the description."""
    paths = app.api_doc["paths"]
    for rule in app.url_map.iter_rules():
        item = paths.get(re.sub(r"<(?:[^:<>]+:)?(\w+)>", r"{\1}", rule.rule), {})
        for method in item.keys() & {name.lower() for name in rule.methods or ()}:
            yield rule, method, item[method]


def _complete(operation: dict[str, Any], method: str, rule: Any, view: Any) -> None:
    """Add what follows from how a view is marked: what it may answer, and the headers that it knows."""
    if is_public(view):
        return
    statuses = {"401", "403", "429", "503"}
    if rule.arguments:
        statuses.add("404")
    if "requestBody" in operation:
        statuses |= {"400", "408", "413"}
    if hasattr(view, "idempotent"):
        statuses.add("409")
        operation.setdefault("parameters", []).append(_IDEMPOTENCY)
    for status in sorted(statuses):
        response = operation["responses"].setdefault(status, {"description": _REASONS[status]})
        response["content"] = {**PROBLEM["content"], **response.get("content", {})}
