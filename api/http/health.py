"""Liveness of the process, and readiness of the servers that it needs."""

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api.contract.health import DependencyState, Health, Readiness
from api.http.auth import public
from api.http.resource import as_json
from api.http.services import services

blueprint = APIBlueprint("health", __name__, abp_tags=[Tag(name="health")])


@blueprint.get("/healthz", responses={200: Health})
@public
def healthz() -> Response:
    """Check that the process is alive.

    Does not contact any other server.
    """
    return as_json(Health())


@blueprint.get("/readyz", responses={200: Readiness, 503: Readiness})
@public
def readyz() -> Response:
    """Check that the API can accept work.

    Contacts every server that the API needs, all at the same time. Status 503 means that a required server does not
    answer. Without Redis the API is ready, but work waits longer.
    """
    outcome = services().readiness.look()
    answer = Readiness(
        status="not_ready" if outcome.not_ready else "ready",
        dependencies={
            name: DependencyState(ok=each.ok, code=each.code, detail=each.detail)
            for name, each in outcome.answers.items()
        },
        degraded=sorted(outcome.degraded),
    )
    return as_json(answer, 503 if outcome.not_ready else 200)
