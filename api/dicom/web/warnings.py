"""`Warning` headers of answers, PS3.18 sections 8.3.4 and 8.5."""

from collections.abc import Callable, Iterable

from flask import Response, g, request
from flask_openapi3.blueprint import APIBlueprint

from api.dicom.web.resources import service_url

_EVERYWHERE = {"accept", "charset"}
_MAX_NAMES, _MAX_CHARACTERS = 20, 64


def add_warnings(response: Response, texts: Iterable[str]) -> None:
    """Add a header for each text."""
    for text in texts:
        response.headers.add("Warning", f"299 {service_url()}: {text}")


def know_parameters(names: Iterable[str]) -> None:
    """Declare the parameters that this request's view reads."""
    g.known_parameters = frozenset(names)


def _is_known(name: str) -> bool:
    return name in g.get("known_parameters", ())


def warn_of_unknown(blueprint: APIBlueprint, is_known: Callable[[str], bool] = _is_known) -> None:
    """Add a warning to each answer of a blueprint that lists the ignored query parameters."""

    def warn(response: Response) -> Response:
        unknown = sorted(name for name in request.args if name not in _EVERYWHERE and not is_known(name))
        if response.status_code < 400 and unknown:
            names = ", ".join(_printable(name) for name in unknown[:_MAX_NAMES])
            more = f" and {len(unknown) - _MAX_NAMES} more" if len(unknown) > _MAX_NAMES else ""
            add_warnings(response, [f"These parameters are not supported and have been ignored: {names}{more}."])
        return response

    blueprint.after_request(warn)


def _printable(name: str) -> str:
    """Return a name in characters that a header allows."""
    return name[:_MAX_CHARACTERS].encode("ascii", "replace").decode() or "(no name)"
