"""The file that tells everybody else how to reach a stack: `NAME=value` lines that a shell can source."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from deploy.stack.folder import write_private


def write(path: Path, variables: Mapping[str, str]) -> None:
    """Write the file, readable for its owner alone; whoever reads meanwhile sees all of it or nothing."""
    write_private(path, "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items()))


def read(path: Path) -> dict[str, str]:
    """Return the variables of a file that `write` wrote; raises `OSError`."""
    pairs = (line.partition("=") for line in path.read_text().splitlines())
    return {name: "".join(shlex.split(value)) for name, _, value in pairs}
