"""The route `/metrics`, for Prometheus. The metrics themselves are in `api.operations.queue_metrics`."""

from flask import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.http.audit import unaudited
from api.http.auth import requires
from api.http.resource import file_answer, resource
from api.http.services import services
from shared.vocabulary.states import Scope

blueprint = resource("metrics")

_EXAMPLE = 'carina_jobs{state="queued"} 12.0\n'


@blueprint.get("/metrics", responses={200: file_answer("text/plain", "The metrics.", _EXAMPLE)})
@requires(Scope.READ)
@unaudited("It shows counts.")
def show() -> Response:
    """Show metrics for Prometheus.

    The state of the queue and of the workers, in Prometheus' text format.
    """
    return Response(generate_latest(services().registry), content_type=CONTENT_TYPE_LATEST)
