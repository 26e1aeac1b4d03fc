"""The queue and its workers, for Prometheus."""

from flask import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.contract.health import METRICS
from api.http.audit import unaudited
from api.http.auth import requires
from api.http.resource import resource
from api.http.services import services
from shared.vocabulary.states import Scope

blueprint = resource("metrics")


@blueprint.get("/metrics", responses={200: METRICS})
@requires(Scope.READ)
@unaudited("It shows counts.")
def show() -> Response:
    """Show the state of the queue in Prometheus' text format."""
    return Response(generate_latest(services().registry), content_type=CONTENT_TYPE_LATEST)
