"""The viewer: the images of a study with their findings and reviews."""

from urllib.parse import parse_qsl
from uuid import UUID

from flask import Response, request
from pydantic import ValidationError

from api.console.assets import paths_under
from api.console.pages import as_data, console_blueprint, show
from api.console.viewer_data import read_study
from api.contract.study_list import StudiesQuery
from api.http.auth import identity, requires
from api.http.services import services
from shared.vocabulary.flags import Flag
from shared.vocabulary.states import JobState, Scope

blueprint = console_blueprint("viewer")


@blueprint.get("/console/studies/<uuid:study_id>")
@requires(Scope.READ)
def study(study_id: UUID) -> Response:
    """Show one study; `from` is the query of the worklist to return to, in which its neighbours are looked for."""
    worklist_query = request.args.get("from", "")
    with services().database.begin() as session:
        viewed = read_study(session, study_id, identity(), _understand(worklist_query))
    return show(
        "viewer.html",
        study=viewed,
        study_json=as_data(viewed.model_dump_json()),
        state_words={state: state.words for state in JobState},
        flag_words={flag: {"label": flag.label, "meaning": flag.meaning} for flag in Flag},
        worklist_query=worklist_query,
        modules=paths_under("js/viewer/"),
    )


def _understand(worklist_query: str) -> StudiesQuery:
    """Return the query of the worklist; an invalid query means all studies."""
    try:
        return StudiesQuery.model_validate(dict(parse_qsl(worklist_query)))
    except ValidationError:
        return StudiesQuery()
