"""What all resources' blueprints have in common."""

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel

from api.schemas import PROBLEMS


def resource(name: str) -> APIBlueprint:
    """Return a blueprint whose routes take a bearer key and answer errors as problems."""
    return APIBlueprint(
        name, __name__, abp_tags=[Tag(name=name)], abp_security=[{"bearer": []}], abp_responses={**PROBLEMS}
    )


def as_json(answer: BaseModel, status: int = 200) -> Response:
    """Return a model as a JSON response; times are UTC in ISO 8601."""
    return Response(answer.model_dump_json(), status, content_type="application/json")
