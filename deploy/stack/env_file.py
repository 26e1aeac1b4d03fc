"""The file with the addresses and keys of a stack, to be sourced by a shell: `. .carina/env`."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from deploy.stack.errors import StackError
from deploy.stack.folder import write_private


class EnvFileUnreadable(StackError):
    """The file with the addresses of the stack cannot be read."""

    code = "env_file_unreadable"


def write(path: Path, variables: Mapping[str, str]) -> None:
    """Write the file atomically, readable only for its owner."""
    lines = (f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    write_private(path, "".join(lines))


def read(path: Path) -> dict[str, str]:
    """Return the variables of `NAME=value` lines, with or without `export`; comments are ignored.

    Raises `FileNotFoundError` or `NotADirectoryError` if the file does not exist, otherwise `EnvFileUnreadable`.
    """
    try:
        words = [shlex.split(line, comments=True) for line in path.read_text().splitlines()]
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError) as exc:  # permission denied, not text, or an unclosed quote
        reason = exc.strerror if isinstance(exc, OSError) else "it is damaged"
        raise EnvFileUnreadable(f"{path} cannot be read: {reason}. The next `carina up` writes it anew.") from exc
    pairs = [word.partition("=") for line in words for word in line if word != "export"]
    if any(not separator or not name.isidentifier() for name, separator, _ in pairs):
        raise EnvFileUnreadable(f"{path} cannot be read: it is damaged. The next `carina up` writes it anew.")
    return {name: value for name, _, value in pairs}
