"""The page of the queue: waiting jobs, workers, failures and history."""

from flask import Response

from api.console import formatting
from api.console.pages import console_blueprint, show
from api.http.audit import unaudited
from api.http.auth import identity, requires
from api.operations.queue_watch import queue_watch
from shared.queue.stages import STAGES
from shared.vocabulary.states import Scope

blueprint = console_blueprint("queue_page")


@blueprint.get("/console/queue")
@requires(Scope.READ)
@unaudited("It shows counts, codes and workers.")
def queue() -> Response:
    """Show the queue as it is now; the script keeps it up to date."""
    return show("queue.html", queue=queue_watch().look(identity().project_id), stages=STAGES, formatting=formatting)
