"""The console's stylesheet and scripts, under a path that changes with their content, so that browsers cache them."""

import hashlib
import mimetypes
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from flask import Blueprint, Response, request

from api.http.auth import public
from shared.errors import NotFound

blueprint = Blueprint("assets", __name__)

_FOLDER = files("api.console") / "static"
_KEPT_FOR_GOOD = "public, max-age=31536000, immutable"


@cache
def _contents() -> dict[str, bytes]:
    """Return all files by their path in the folder."""
    return dict(_walk(_FOLDER, ""))


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        path = prefix + entry.name
        found += _walk(entry, f"{path}/") if entry.is_dir() else [(path, entry.read_bytes())]
    return found


@cache
def version() -> str:
    """Return the version in the path of the files: a digest of all files."""
    digest = hashlib.sha256()
    for path, content in _contents().items():
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def paths_under(folder: str) -> list[str]:
    """Return the files of a folder of `static` as arguments for `asset_url`, so that a page can preload them."""
    return [path for path in _contents() if path.startswith(folder)]


def asset_url(path: str) -> str:
    """Return the URL of a file in `static`."""
    return f"{request.script_root}/console/static/{version()}/{path}"


@blueprint.get("/console/static/<digest>/<path:path>")
@public
def asset(digest: str, path: str) -> Response:
    """Send one file."""
    content = _contents().get(path)
    if content is None:
        raise NotFound
    kept = _KEPT_FOR_GOOD if digest == version() else "no-store"  # a page of an older release requests its version
    media_type = mimetypes.guess_type(path)[0] or "application/octet-stream"
    return Response(content, headers={"Cache-Control": kept}, content_type=media_type)
