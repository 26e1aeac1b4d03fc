"""CORS: lets web pages of the origins in `CARINA_CORS_ORIGINS` read the API's answers (Fetch standard, section 3.3).

A page sends an API key of its own. Cookies of other origins are never accepted, because no answer allows credentials.
"""

from http import HTTPStatus

from flask import Flask, Response, request

from shared.settings import Settings

#: DICOMweb and the API, but not the console, which other origins need not read.
_PATHS = ("/dicom-web/", "/v1/")
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_REQUEST_HEADERS = "Accept, Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID"
_ANSWER_HEADERS = "Content-Disposition, ETag, Idempotency-Replayed, Location, Retry-After, Warning"
#: How long a browser may cache the answer to a preflight request.
_MAX_AGE_S = 600


def install(app: Flask, settings: Settings) -> None:
    """Add the headers to all answers of `app`, including errors. Call it before the key is checked."""
    origins = frozenset(settings.cors_origins.split(",")) - {""}
    if not origins:
        return

    def allowed() -> str | None:
        origin = request.headers.get("Origin")
        return origin if origin in origins and request.path.startswith(_PATHS) else None

    def answer_preflight() -> Response | None:
        """Answer a preflight request, which carries no key."""
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers or not allowed():
            return None
        headers = {
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": _REQUEST_HEADERS,
            "Access-Control-Max-Age": str(_MAX_AGE_S),
        }
        return Response(status=HTTPStatus.NO_CONTENT, headers=headers)

    def add(response: Response) -> Response:
        if request.path.startswith(_PATHS):
            response.vary.add("Origin")
            if origin := allowed():
                response.headers["Access-Control-Allow-Origin"] = origin
                response.headers["Access-Control-Expose-Headers"] = _ANSWER_HEADERS
        return response

    app.before_request(answer_preflight)
    app.after_request(add)
