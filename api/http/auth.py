"""Access control: each view states in a decorator who may call it. A view without one refuses every request."""

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
    """Require a key with this scope to call a view."""

    def mark(view: View) -> View:
        view.access = scope  # type: ignore[attr-defined]
        return view

    return mark


def public(view: View) -> View:
    """Allow calls without a key."""
    view.access = _PUBLIC  # type: ignore[attr-defined]
    return view


def is_public(view: object) -> bool:
    """Whether a view needs no key."""
    return getattr(view, "access", None) == _PUBLIC


def authenticate() -> None:
    """Check the request's key before its body is read; raise `Unauthorized` or `Forbidden`."""
    if request.endpoint is None:
        return  # no such route: the answer is 404 or 405
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
    """Raise `Unauthorized` or `KeyExpired` if the request's key or session has ended, at most `KEPT_S` late.

    Long-lived requests call it repeatedly. Within a transaction, pass its session to use the same connection.
    """
    if open_session is None:
        services().keyring.look_up(g.credential)
    elif time.monotonic() - g.checked > KEPT_S:
        g.credential.find(open_session)
        g.checked = time.monotonic()


def _key() -> str | None:
    """Return the request's key: a bearer token, or the password of Basic, the only scheme of many DICOM systems.

    None if there is no `Authorization` header; the request may then come from a user of the console.
    """
    try:
        authorization = request.authorization
    except ValueError as exc:  # werkzeug's base64 decoder accepts ASCII only
        raise Unauthorized from exc
    if authorization is None:
        return None
    key = {"bearer": authorization.token, "basic": authorization.password}.get(authorization.type)
    if not key:
        raise Unauthorized
    return key


def require_to_promote(gate: GateConfig | None) -> None:
    """Raise `Forbidden` if the gate promotes models, which affects all projects, and the key lacks `system`."""
    if gate is not None and gate.promote and not identity().may(Scope.SYSTEM):
        raise Forbidden(
            "A gate that promotes changes the active model for all projects, which needs a key with the scope `system`."
            " Set the gate's `promote` to false to have the comparison only.",
            parameter="gate.promote",
        )


def identity() -> Identity:
    """Return the project, scopes and limits of the request's key."""
    found: Identity = g.identity
    return found
