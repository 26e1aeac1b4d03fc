"""Imports httpx without its command line, since importing click, rich and Pygments takes as long as all else.

The client's package imports this module first. If a program has imported httpx before, all of it is loaded already.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_CLI = "httpx._main"


def main(*args: Any, **options: Any) -> Any:
    """Load and run the command line of httpx."""
    return import_module(_CLI).main(*args, **options)


if "httpx" not in sys.modules:
    stand_in = ModuleType(_CLI)
    stand_in.__dict__["main"] = main
    sys.modules[_CLI] = stand_in
    try:
        import_module("httpx")
    finally:
        del sys.modules[_CLI]
