"""Signs users in with an API key, and out."""

from contextlib import suppress
from datetime import timedelta

from flask import redirect, request
from werkzeug.wrappers import Response

from api.console.pages import console_blueprint, show
from api.http import session
from api.http.audit import record_sign
from api.http.auth import public
from api.http.keyring import session_credential
from api.http.services import services
from shared.access.console_sessions import SESSION, begin_session, end_session
from shared.bounded import is_odd
from shared.errors import KeyExpired, RequestError, Unauthorized
from shared.vocabulary.states import Scope

blueprint = console_blueprint("sign_in")

_FIRST_PAGE = "/console/studies"


class SentFromElsewhere(RequestError):
    """The form was not sent from this console. Sign in from the console's own page; behind a proxy, check its host
    headers."""

    code = "sent_from_elsewhere"
    status = 403


@blueprint.get("/")
@blueprint.get("/console/")
@public
def enter() -> Response:
    """Lead to the first page."""
    return redirect(request.script_root + _FIRST_PAGE)


@blueprint.get("/console/sign-in")
@public
def ask() -> Response:
    """Ask for a key; raise `ConsoleOff`."""
    session.require_secret()
    asked = request.args.get("next")
    return _show_form(_inside(asked), goes_on=asked is not None)


@blueprint.post("/console/sign-in")
@public
def begin() -> Response:
    """Take a key, and go where the visitor was going; raise `SentFromElsewhere`."""
    _refuse_other_sites()
    following = _inside(request.form.get("next"))
    try:
        found = services().keyring.identify(request.form.get("key", "").strip())
    except Unauthorized as error:
        why = error.detail if isinstance(error, KeyExpired) else "The API key is not valid."
        return _show_form(following, 401, why)
    if not found.may(Scope.READ):
        return _show_form(following, 403, "This key cannot read. The console needs the scope “read”.")
    with services().installation.begin() as rows:
        session_id = begin_session(rows, found.key_id)
        record_sign(rows, found)
    response = redirect(following, 303)
    session.begin(response, session_id)
    return response


@blueprint.post("/console/sign-out")
@public  # also for a key that has expired
def finish() -> Response:
    """End the session, for every copy of its cookie; raise `SentFromElsewhere`."""
    _refuse_other_sites()
    if (signed_in := session.current()) is not None:
        credential = session_credential(signed_in.session_id)
        with suppress(Unauthorized), services().installation.begin() as rows:
            record_sign(rows, credential.find(rows))
            end_session(rows, signed_in.session_id)
        services().keyring.forget(credential)
    response = redirect(f"{request.script_root}/console/sign-in", 303)
    session.end(response)
    return response


def _show_form(following: str, status: int = 200, error: str | None = None, *, goes_on: bool = False) -> Response:
    hours = SESSION // timedelta(hours=1)
    return show("sign_in.html", status, next=following, error=error, goes_on=goes_on, session_hours=hours)


def _refuse_other_sites() -> None:
    """Raise `SentFromElsewhere` for forms of other sites, which must not sign a user in or out.

    Before sign-in, there is no session with a token to check. Browsers state the origin of a form: with HTTPS in
    `Sec-Fetch-Site`, else in `Origin`. A client that sends neither is not a browser.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        is_own = site in ("same-origin", "none")
    else:
        is_own = origin is None or origin.partition("://")[2] == request.host
    if not is_own:
        raise SentFromElsewhere


def _inside(path: str | None) -> str:
    """Return the path if it belongs to the console, so that a link to the sign-in page cannot lead to another site."""
    console = f"{request.script_root}/console/"
    if path is None or not path.startswith(console) or "\\" in path or is_odd(path):
        return request.script_root + _FIRST_PAGE
    return path
