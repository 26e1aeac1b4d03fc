"""What all resources' blueprints have in common."""

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api.schemas import PROBLEMS


def resource(name: str) -> APIBlueprint:
    """Return a blueprint whose routes take a bearer key and answer errors as problems."""
    return APIBlueprint(
        name, __name__, abp_tags=[Tag(name=name)], abp_security=[{"bearer": []}], abp_responses={**PROBLEMS}
    )
