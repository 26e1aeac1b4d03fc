"""The audit rows of the API: one for each change that somebody made or tried, and for each look at a study's pixels."""

import structlog
from flask import Flask, Response, current_app, g, request
from sqlalchemy.exc import SQLAlchemyError

from api.audit_schemas import AuditEventAnswer, AuditEventsAnswer, AuditQuery
from api.auth import identity, requires
from api.errors import answer
from api.idempotency import was_replayed
from api.pages import read_page
from api.resource import as_json, resource
from api.services import services
from shared.audit import record
from shared.errors import CarinaError, DatabaseUnavailable
from shared.queue.states import Scope
from shared.tables import AuditEvent

log = structlog.get_logger()

blueprint = resource("audit")

_CHANGES = {"POST", "PUT", "PATCH", "DELETE"}


def install(app: Flask) -> None:
    """Write a row for each request of a key that changes something, or is shown pixels."""
    app.after_request(_record)


def note(**subject: object) -> None:
    """Add ids or counts to what this request's row says that it acted upon; never a name or a patient's data."""
    g.audit_subject = {**g.get("audit_subject", {}), **subject}


@blueprint.get("/v1/audit-events", responses={200: AuditEventsAnswer})
@requires(Scope.ADMIN)
def show_all(query: AuditQuery) -> Response:
    """Show who did what and who saw whose pixels in this project, the newest first."""
    where = [AuditEvent.project_id == identity().project_id]
    if query.action is not None:
        where.append(AuditEvent.action == query.action)
    if query.api_key_id is not None:
        where.append(AuditEvent.api_key_id == query.api_key_id)
    with services().database.begin() as session:
        rows, following = read_page(session, AuditEvent, query, *where)
        return as_json(AuditEventsAnswer(events=[AuditEventAnswer.of(row) for row in rows], next=following))


def _record(response: Response) -> Response:
    if "identity" not in g or request.endpoint is None:
        return response
    shows_pixels = response.status_code < 400 and hasattr(current_app.view_functions[request.endpoint], "reads_pixels")
    changes = request.method in _CHANGES and response.status_code != 429 and not was_replayed()
    if not shows_pixels and not changes:
        return response
    subject = {**(request.view_args or {}), **_created(response), **g.get("audit_subject", {})}
    try:
        with services().database.begin() as session:
            record(
                session,
                action=request.endpoint,
                subject=subject,
                project_id=identity().project_id,
                api_key_id=identity().key_id,
                status=response.status_code,
                remote_address=request.remote_addr,
            )
    except (CarinaError, SQLAlchemyError) as exc:
        # A change is made already, and the log is what is left; pixels can still be kept back.
        log.error("audit_event_lost", action=request.endpoint, status=response.status_code, error=type(exc).__name__)
        if shows_pixels:
            response.close()
            return answer(exc if isinstance(exc, CarinaError) else DatabaseUnavailable())
    return response


def _created(response: Response) -> dict[str, object]:
    """Return the id in the answer, which tells what was made."""
    if not response.is_json or response.is_streamed or response.status_code >= 400:
        return {}
    body = response.get_json(silent=True)
    made = body.get("id") if isinstance(body, dict) else None
    return {"id": made} if made is not None else {}
