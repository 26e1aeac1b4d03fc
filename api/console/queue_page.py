"""The queue's page: what waits, who works, what failed, and how it has been."""

from flask import Response

from api.audit import unaudited
from api.auth import identity, requires
from api.console import words
from api.console.pages import console_blueprint, show
from api.services import services
from shared.queue.states import Scope

blueprint = console_blueprint("queue_page")


@blueprint.get("/console/queue")
@requires(Scope.READ)
@unaudited("It shows counts, codes and workers.")
def queue() -> Response:
    """Show the queue as it is; the script goes on from there."""
    return show("queue.html", queue=services().queue.look(identity().project_id), words=words)
