"""The viewer: a study's films with what was found on them, and what readers say of that."""

from uuid import UUID

from flask import Response, request

from api.auth import identity, requires
from api.console.assets import paths_under
from api.console.pages import as_data, console_blueprint, show
from api.console.viewer_data import read_study
from api.services import services
from shared.queue.states import Scope

blueprint = console_blueprint("viewer")


@blueprint.get("/console/studies/<uuid:study_id>")
@requires(Scope.READ)
def study(study_id: UUID) -> Response:
    """Show one study; `from` is the worklist's query, to return to."""
    with services().database.begin() as session:
        viewed = read_study(session, study_id, identity())
    return show(
        "viewer.html",
        study=viewed,
        study_json=as_data(viewed.model_dump_json()),
        worklist_query=request.args.get("from", ""),
        modules=paths_under("js/viewer/"),
    )
