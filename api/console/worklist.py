"""The worklist: the studies of a project, the newest first."""

from flask import Response

from api.auth import requires
from api.console.pages import console_blueprint, show
from shared.queue.states import Scope

blueprint = console_blueprint("worklist")


@blueprint.get("/console/studies")
@requires(Scope.READ)
def studies() -> Response:
    """Show the studies."""
    return show("worklist.html")


@blueprint.get("/console/<path:_>")
@requires(Scope.READ)
def nothing(_: str) -> Response:
    """Say that there is no such page, in the console's own frame."""
    return show("error.html", 404, code="not_found", detail="There is no such page.")
