"""Sessions of the console: a signed cookie with the id of the session's row. It never contains an API key."""

import hmac
import secrets
from dataclasses import dataclass
from uuid import UUID

from flask import request
from itsdangerous import BadSignature, URLSafeTimedSerializer
from werkzeug.wrappers import Response

from api.http.keyring import Credential, session_credential
from api.http.services import services
from shared.access.console_sessions import SESSION
from shared.errors import RequestError, Unauthorized

CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELD = "csrf_token"
_SAFE = {"GET", "HEAD", "OPTIONS"}


class ConsoleOff(RequestError):
    """The console is off. Set `CARINA_SESSION_SECRET` to turn it on."""

    code = "console_off"
    status = 503


class CsrfTokenWrong(RequestError):
    """The form is outdated or was not sent from this console. Reload the page."""

    code = "csrf_token_wrong"
    status = 403


@dataclass(frozen=True)
class Cookie:
    """The contents of the cookie."""

    session_id: UUID
    #: Sent back with every change; pages of other sites cannot know it.
    csrf_token: str


def require_secret() -> str:
    """Return the secret that signs cookies; raise `ConsoleOff` if there is none."""
    secret = services().settings.session_secret.get_secret_value()
    if not secret:
        raise ConsoleOff
    return secret


def begin(response: Response, session_id: UUID) -> None:
    """Sign in: set the cookie, for this site only."""
    value = {"session": str(session_id), "csrf": secrets.token_urlsafe(24)}
    response.set_cookie(
        _cookie_name(),
        _signer().dumps(value),
        max_age=SESSION,
        path=_cookie_path(),
        secure=request.is_secure,
        httponly=True,
        samesite="Strict",
    )


def end(response: Response) -> None:
    """Sign out: delete the cookie."""
    response.delete_cookie(
        _cookie_name(), path=_cookie_path(), secure=request.is_secure, httponly=True, samesite="Strict"
    )


def current() -> Cookie | None:
    """Return the request's cookie, whose session may have ended; None if nobody is signed in."""
    cookie = request.cookies.get(_cookie_name())
    if not cookie or not services().settings.session_secret.get_secret_value():
        return None
    try:
        value = _signer().loads(cookie, max_age=int(SESSION.total_seconds()))
        return Cookie(UUID(value["session"]), str(value["csrf"]))
    except (BadSignature, KeyError, TypeError, ValueError):
        return None


def credential() -> Credential:
    """Return the credential of the request's session; raise `Unauthorized` or `CsrfTokenWrong`."""
    session = current()
    if session is None:
        raise Unauthorized
    if request.method not in _SAFE and not hmac.compare_digest(_sent_token().encode(), session.csrf_token.encode()):
        raise CsrfTokenWrong
    return session_credential(session.session_id)


def _sent_token() -> str:
    """Return the CSRF token from the header of a script or the field of a form."""
    token = request.headers.get(CSRF_HEADER)
    if token is None and request.mimetype == "application/x-www-form-urlencoded":
        token = request.form.get(CSRF_FIELD)
    return token or ""


def _cookie_name() -> str:
    # With these prefixes browsers refuse cookies set by another host of the same domain. They require HTTPS, and
    # `__Host-` requires the path `/`.
    if not request.is_secure:
        return "carina"
    return "__Secure-carina" if request.script_root else "__Host-carina"


def _cookie_path() -> str:
    return request.script_root or "/"


def _signer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(require_secret(), salt="carina-console")
