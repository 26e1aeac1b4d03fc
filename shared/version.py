"""Which Carina this is: part of what every model and every result says about itself."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def code_version() -> str:
    """Return the installed version; empty in a checkout that is not installed."""
    try:
        return version("carina")
    except PackageNotFoundError:
        return ""
