"""Lists and searches studies."""

from http import HTTPStatus
from uuid import UUID

from flask import Response, request

from api.contract.study_list import StudiesAnswer, StudiesQuery
from api.http.audit import note, unaudited
from api.http.auth import identity, requires
from api.http.errors import may_raise
from api.http.resource import as_json, resource
from api.http.services import services
from api.studies.answers import refer_to
from api.studies.search import find
from api.studies.summaries import summarize
from shared.models import registry
from shared.vocabulary.states import Scope

blueprint = resource("study_list", tag="studies")


@blueprint.get("/v1/studies", responses={200: StudiesAnswer})
@requires(Scope.READ)
@unaudited("Nothing is shown if nothing has changed.", only=HTTPStatus.NOT_MODIFIED)
@may_raise("unknown_class")
def show_all(query: StudiesQuery) -> Response:
    """List and search studies.

    Returns the studies that meet every condition, the newest first. Send the answer's `ETag` in `If-None-Match` to get
    status 304 when nothing has changed.
    """
    response = as_json(list_studies(identity().project_id, query))
    response.add_etag()
    response.make_conditional(request)
    return response


def list_studies(project_id: UUID, query: StudiesQuery) -> StudiesAnswer:
    """Return the page of a project's studies for a query."""
    with services().database.begin() as session:
        found = find(session, project_id, query)
        studies = summarize(session, found.study_ids, query.min_score)
        active = registry.active(session)
        active_model = refer_to(active) if active else None
    note(study_ids=[str(study_id) for study_id in found.study_ids])
    return StudiesAnswer(studies=studies, active_model=active_model, next=found.older, previous=found.newer)
