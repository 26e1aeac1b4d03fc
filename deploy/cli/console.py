"""What the command line prints with."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

#: Ids must stay whole where the output goes into a file or another program.
PIPED_WIDTH = 200

out = Console(highlight=False)
if not out.is_terminal:
    out = Console(highlight=False, width=PIPED_WIDTH)
err = Console(stderr=True, highlight=False)


def complain(message: str, *, hint: str | None = None) -> None:
    """Print an error on standard error, and what to do about it."""
    # As text: brackets, as those of `carina[worker]` or of a path, are no markup.
    err.print(Text.assemble(("error", "bold red"), f" {message}"), soft_wrap=True)
    if hint:
        err.print(Text(f"  {hint}"), soft_wrap=True)


def print_json(value: object) -> None:
    """Print a value as JSON on standard output, undecorated."""
    out.print_json(json.dumps(value, default=str))


@contextmanager
def opened(output: Path | None) -> Iterator[IO[str]]:
    """A file that is there as a whole or not at all; without a path, standard output."""
    if output is None:
        yield sys.stdout
        return
    part = output.with_name(f"{output.name}.part")
    with part.open("w", newline="") as file:
        yield file
    part.replace(output)


def explain(error: ValidationError) -> str:
    """Say in one line what is wrong with which of the values that were chosen."""
    return "; ".join(
        ": ".join(filter(None, (".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, "))))
        for each in error.errors(include_url=False)
    )
