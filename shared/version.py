"""The versions of Carina and of its renditions, which models and results record."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

#: The version of the function that makes renditions, stored with each rendition, dataset, model and result. Increase it
#: with each change that changes a pixel.
RENDITION_VERSION = 2


@cache
def code_version() -> str:
    """Return the installed version of Carina; empty if it is not installed."""
    try:
        return version("carina")
    except PackageNotFoundError:
        return ""
