"""Which Carina this is: part of what every model and every result says about itself."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

#: Of the function that makes renditions; stored with every rendition, dataset, model and result. Raise it with any
#: change that moves a pixel.
RENDITION_VERSION = 2


@cache
def code_version() -> str:
    """Return the installed version; empty in a checkout that is not installed."""
    try:
        return version("carina")
    except PackageNotFoundError:
        return ""
