"""The audit rows of the API: one for each request with a key, except failed reads and views marked `unaudited`.

A change and its audit row are one transaction: `Database.before_commit` writes the row if a transaction of a POST, PUT,
PATCH or DELETE has changed anything. Reads are recorded before the first byte of the answer is sent.
"""

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

import sqlalchemy as sa
import structlog
from flask import Response, current_app, g, has_request_context, request
from flask_openapi3.openapi import OpenAPI
from sqlalchemy.orm import Session

from api.http.auth import check_again, identity
from api.http.errors import answer
from api.http.services import NAME, services
from shared.access.audit import record
from shared.access.keys import Identity
from shared.errors import CarinaError

log = structlog.get_logger()

View = TypeVar("View", bound=Callable[..., object])

_CHANGES = {"POST", "PUT", "PATCH", "DELETE"}
#: Set in `Session.info`: the transaction writes a row even if it changes nothing.
_ALWAYS = "audit_always"


def install(app: OpenAPI) -> None:
    """Record the requests of every view. Call it after all other functions that handle requests."""
    app.extensions[NAME].installation.before_commit = _record_change
    app.before_request(_begin)
    app.after_request(_end)


def unaudited(reason: str, *, only: HTTPStatus | None = None) -> Callable[[View], View]:
    """Do not record reads of this view, or only those with status `only`; `reason` explains why.

    Only for answers without pixels, patient data and findings. Changes are always recorded.
    """

    def mark(view: View) -> View:
        view.unaudited = (reason, only)  # type: ignore[attr-defined]
        return view

    return mark


def note(**subject: object) -> None:
    """Add ids or counts to the subject of this request's next row; never names or patient data."""
    g.audit_subject = {**g.get("audit_subject", {}), **subject}


def recorded(session: Session) -> None:
    """Make a transaction write a row even if it changes nothing."""
    session.info[_ALWAYS] = True


def record_sign(session: Session, signed: Identity) -> None:
    """Write the row of a public view that signs somebody in or out."""
    _write(session, signed, HTTPStatus.SEE_OTHER)


def _begin() -> None:
    """Record transactions from here on; earlier ones belong to the framework."""
    if "identity" in g and request.method in _CHANGES:
        g.audit_changes = 0


def _record_change(session: Session) -> None:
    """Write the row of a change in its own transaction; raise if the key or session has ended meanwhile."""
    if not has_request_context() or "audit_changes" not in g:
        return
    check_again(session)
    if _write(session, identity(), _expected_status(), only_if_changed=_ALWAYS not in session.info):
        sa.event.listen(session, "after_commit", _count_change, once=True)


def _count_change(_: Session) -> None:
    g.audit_changes += 1


def _end(response: Response) -> Response:
    if "identity" not in g or request.endpoint is None or not _is_recorded(response.status_code):
        return response
    changes = g.pop("audit_changes", 0)
    if changes and response.status_code == _expected_status():
        return response
    try:
        with services().database.begin() as session:
            _write(session, identity(), response.status_code)
    except CarinaError as exc:
        log.error("audit_event_lost", action=request.endpoint, status=response.status_code, error=exc.code)
        # Changes have their rows already, and refusals show nothing. Any other answer is withheld without its row.
        if not changes and response.status_code < 400:
            response.close()
            return answer(exc)
    return response


def _is_recorded(status: int) -> bool:
    if request.method in _CHANGES:
        return g.get("audit_changes", 0) > 0 or not (status == HTTPStatus.TOO_MANY_REQUESTS or "replayed" in g)
    if request.method == "OPTIONS" or status >= 400:
        return False
    _, only = getattr(current_app.view_functions[request.endpoint or ""], "unaudited", (None, status + 1))
    return only is not None and only != status


def _expected_status() -> int | None:
    """Return the lowest success status that the API's description lists."""
    assert isinstance(current_app, OpenAPI)
    assert request.url_rule is not None
    item = current_app.paths.get(re.sub(r"<(?:[^:<>]+:)?(\w+)>", r"{\1}", request.url_rule.rule))
    operation = getattr(item, request.method.lower(), None)
    return min((int(status) for status in operation.responses if status[0] == "2"), default=None) if operation else None


def _write(session: Session, who: Identity, status: int | None, *, only_if_changed: bool = False) -> bool:
    subject = {**(request.view_args or {}), **g.get("audit_subject", {})}
    if request.method in _CHANGES and g.get("answer_id") is not None and (status or 0) < 400:
        subject.setdefault("id", g.answer_id)
    return record(
        session,
        action=request.endpoint or "",
        subject=subject,
        project_id=who.project_id,
        api_key_id=who.key_id,
        status=status,
        remote_address=request.remote_addr,
        only_if_changed=only_if_changed,
    )
