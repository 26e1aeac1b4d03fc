"""The audit of a project: who changed what, and who viewed which images. `api.http.audit` writes its rows."""

from flask import Response, current_app

from api.contract.audit import AuditEventAnswer, AuditEventsAnswer, AuditQuery
from api.http.auth import identity, requires
from api.http.errors import may_raise
from api.http.resource import as_json, resource
from api.http.rows import read_page
from api.http.services import services
from shared.access.audit import require_action
from shared.access.keys import find_key, find_project, read_prefixes
from shared.errors import Forbidden, NotFound
from shared.tables import AuditEvent
from shared.vocabulary.states import Scope

blueprint = resource("audit")


@blueprint.get("/v1/audit-events", responses={200: AuditEventsAnswer})
@requires(Scope.ADMIN)
@may_raise("unknown_action", NotFound)
def show_all(query: AuditQuery) -> Response:
    """List audit events.

    Who changed what and who viewed which images in this project, the newest first. To read the audit of another
    project, name it in `project`; the key then needs the scope `system` too.
    """
    if query.project is not None and not identity().may(Scope.SYSTEM):
        raise Forbidden("To read another project's audit, the API key needs the scope `system`.", parameter="project")
    where = [
        *((AuditEvent.action == query.action,) if query.action is not None else ()),
        *((AuditEvent.api_key_id == query.api_key_id,) if query.api_key_id is not None else ()),
        *((AuditEvent.created_at >= query.since,) if query.since is not None else ()),
    ]
    # Without `project` the session itself is limited to the key's own.
    database = services().database if query.project is None else services().installation
    with database.begin() as session:
        if query.project not in (None, "*"):
            where.append(AuditEvent.project_id == find_project(session, query.project or ""))
        if query.action is not None:
            require_action(session, query.action, lambda: current_app.view_functions)
        if query.api_key_prefix is not None:
            where.append(AuditEvent.api_key_id == find_key(session, query.api_key_prefix))
        rows, following = read_page(session, AuditEvent, query, *where)
        prefixes = read_prefixes(session, {row.api_key_id for row in rows if row.api_key_id is not None})
        events = [
            AuditEventAnswer.model_validate(row).model_copy(
                update={"api_key_prefix": prefixes.get(row.api_key_id) if row.api_key_id else None}
            )
            for row in rows
        ]
        return as_json(AuditEventsAnswer(events=events, next=following))
