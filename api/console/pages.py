"""The parts that every page of the console shares: the frame, the headers, the error pages."""

from collections.abc import Mapping
from urllib.parse import quote

from flask import Blueprint, Response, g, redirect, render_template, request
from markupsafe import Markup
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from api.console.assets import asset_url
from api.contract.findings import NOTICE
from api.http import session
from api.http.auth import identity
from api.http.errors import answer_unforeseen, status_of
from shared.errors import CarinaError, Unauthorized
from shared.vocabulary.states import Scope

#: No content from other sites, no inline scripts or styles, and no embedding in frames.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

#: The pages in the menu, below the prefix of a proxy.
MENU = (
    ("/console/studies", "Studies"),
    ("/console/queue", "Queue"),
    ("/console/training", "Training"),
    ("/console/models", "Models"),
    ("/console/schedules", "Schedules"),
)

#: The titles of error pages.
_TITLES = {
    403: "Not allowed with this key",
    404: "Page not found",
    429: "Too many requests",
    503: "Temporarily unavailable",
}


def console_blueprint(name: str) -> Blueprint:
    """Return a blueprint whose pages have the console's headers and error pages."""
    made = Blueprint(name, __name__, template_folder="templates")
    made.after_request(_harden)
    made.register_error_handler(CarinaError, _show_error)
    made.register_error_handler(HTTPException, _show_http_error)
    made.register_error_handler(Exception, _show_unknown)
    return made


def show(template: str, status: int = 200, **values: object) -> Response:
    """Render a template that extends `base.html`, with the values of `_frame`."""
    return Response(render_template(template, **_frame(), **values), status, content_type="text/html; charset=utf-8")


def show_problem(status: int, code: str, detail: str | None) -> Response:
    """Return an error page in the console's frame, with a button to retry if this can help."""
    title, may_retry = _TITLES.get(status, "Something went wrong"), status >= 500 or status == 429
    return show("error.html", status, title=title, code=code, detail=detail, may_retry=may_retry)


def _frame() -> Mapping[str, object]:
    signed_in = session.current() if "identity" in g else None
    return {
        "asset_url": asset_url,
        "csrf_token": signed_in.csrf_token if signed_in else "",
        "key_name": identity().name if signed_in else None,
        "may": {scope.value: signed_in is not None and identity().may(scope) for scope in Scope},
        "menu": MENU,
        "notice": NOTICE,
        "path": request.path,
        "reader": f"{identity().project_id}:{identity().key_id}" if signed_in else "",
        "root": request.script_root,
    }


def _harden(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "same-origin"
    return response


def _show_error(error: CarinaError) -> AnyResponse:
    if isinstance(error, Unauthorized):
        going = request.script_root + request.full_path.rstrip("?")
        return redirect(f"{request.script_root}/console/sign-in?next={quote(going)}")
    return show_problem(status_of(type(error)), error.code, error.public_detail)


def _show_http_error(error: HTTPException) -> AnyResponse:
    if error.code is None or error.code < 400:
        return Response(error.get_body(), error.code, error.get_headers())
    return show_problem(error.code, error.name, error.description)


def _show_unknown(error: Exception) -> Response:
    problem = answer_unforeseen(error).get_json()
    return show_problem(problem["status"], problem["code"], problem["detail"])


def as_data(json: str) -> Markup:
    """Return JSON that a template can insert into `<script type="application/json">`."""
    return Markup(json.replace("<", "\\u003c"))  # prevents tags in the JSON
