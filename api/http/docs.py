"""The API's description: `/openapi.json`, and `/docs`, which shows it without loading anything from other servers."""

import threading
from functools import cache
from importlib.resources import files
from typing import Any

import flask_openapi3_swagger
from flask import Blueprint, Response, current_app
from flask_openapi3.openapi import OpenAPI

from api.http.address import absolute
from api.http.auth import public
from api.http.description import complete
from shared.errors import NotFound

blueprint = Blueprint("docs", __name__)

_making = threading.Lock()

_SWAGGER = files(flask_openapi3_swagger) / "templates" / "swagger"
_PAGE = files("api.http") / "docs_page"
#: The beginning of the description of the API.
INTRODUCTION = (_PAGE / "introduction.md").read_text()
_ASSETS = {
    "swagger-ui.css": (_SWAGGER / "css" / "swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": (_SWAGGER / "js" / "swagger-ui-bundle.js", "text/javascript"),
    "start.js": (_PAGE / "start.js", "text/javascript"),
}
#: Swagger UI sets style attributes and draws with data URLs. Other origins are never contacted.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@blueprint.get("/openapi.json")
@public
def description() -> dict[str, Any]:
    """Return the description."""
    app = current_app
    assert isinstance(app, OpenAPI)
    with _making:
        if not app.spec_json:
            complete(app)
    found: dict[str, Any] = app.spec_json
    return {**found, "servers": [{"url": absolute("")}]}


@blueprint.get("/docs")
@public
def page() -> Response:
    """Show the description in the browser."""
    return _send((_PAGE / "index.html").read_bytes(), "text/html; charset=utf-8")


@blueprint.get("/docs/<name>")
@public
def asset(name: str) -> Response:
    """Send a file of the page."""
    if name not in _ASSETS:
        raise NotFound
    return _send(_content(name), _ASSETS[name][1])


@cache
def _content(name: str) -> bytes:
    """Return a file's bytes, which are read once."""
    return _ASSETS[name][0].read_bytes()


def _send(content: bytes, media_type: str) -> Response:
    headers = {"Content-Security-Policy": _POLICY}
    return Response(content, headers=headers, content_type=media_type)
