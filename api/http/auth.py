"""Who may call what. Each view says so in a decorator; a view that says nothing can be called by nobody."""

import time
from collections.abc import Callable
from typing import TypeVar

from flask import current_app, g, request
from sqlalchemy.orm import Session

from api.http import session
from api.http.keyring import KEPT_S, key_credential
from api.http.services import services
from shared.access.keys import Identity
from shared.errors import Forbidden, Unauthorized
from shared.training.config import GateConfig
from shared.vocabulary.states import Scope

View = TypeVar("View", bound=Callable[..., object])

_PUBLIC = "public"


def requires(scope: Scope) -> Callable[[View], View]:
    """Let a view be called with a key that has this scope only."""

    def mark(view: View) -> View:
        view.access = scope  # type: ignore[attr-defined]
        return view

    return mark


def public(view: View) -> View:
    """Let a view be called by anybody."""
    view.access = _PUBLIC  # type: ignore[attr-defined]
    return view


def is_public(view: object) -> bool:
    """Whether anybody may call a view."""
    return getattr(view, "access", None) == _PUBLIC


def authenticate() -> None:
    """Check the request's key before anything else of it is read; raise `Unauthorized` or `Forbidden`."""
    if request.endpoint is None:
        return  # there is no such route; the answer is 404 or 405
    access = getattr(current_app.view_functions[request.endpoint], "access", None)
    if access == _PUBLIC:
        return
    key = _key()
    credential = session.credential() if key is None else key_credential(key)
    g.identity = services().keyring.look_up(credential)
    if access is None or not identity().may(access):
        raise Forbidden
    g.credential, g.checked = credential, time.monotonic()


def check_again(open_session: Session | None = None) -> None:
    """Raise `Unauthorized` or `KeyExpired` once the request's key or session has ended, `KEPT_S` late at most.

    Call it while a request lasts, also within a transaction, whose connection is used then.
    """
    if open_session is None:
        services().keyring.look_up(g.credential)
    elif time.monotonic() - g.checked > KEPT_S:
        g.credential.find(open_session)
        g.checked = time.monotonic()


def _key() -> str | None:
    """The key as the request carries it: a bearer token, or Basic's password, as many DICOM systems send no other.

    None where it carries none; then whoever is signed in to the console may have sent it.
    """
    try:
        authorization = request.authorization
    except ValueError as exc:  # werkzeug decodes Basic's base64, which takes ASCII only
        raise Unauthorized from exc
    if authorization is None:
        return None
    key = {"bearer": authorization.token, "basic": authorization.password}.get(authorization.type)
    if not key:
        raise Unauthorized
    return key


def require_to_promote(gate: GateConfig | None) -> None:
    """Raise `Forbidden` where a gate is to promote a model for all projects and the key may not."""
    if gate is not None and gate.promote and not identity().may(Scope.SYSTEM):
        raise Forbidden(
            "A gate that promotes changes the active model for all projects, which needs a key with the scope `system`."
            " Set the gate's `promote` to false to have the comparison only.",
            parameter="gate.promote",
        )


def identity() -> Identity:
    """Return whom the request's key stands for."""
    found: Identity = g.identity
    return found
