"""The output of commands: to the terminal, as `--json`, or reduced by `--quiet`."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ValidationError
from rich.console import Console, ConsoleDimensions
from rich.progress import Progress, ProgressColumn
from rich.text import Text

#: Ids must not be shortened if the output goes into a file or another program.
PIPED_WIDTH = 200


class _Output(Console):
    """Standard output: `COLUMNS` wide where that is set, else as wide as the terminal, else `PIPED_WIDTH`."""

    @property
    def size(self) -> ConsoleDimensions:
        columns = os.environ.get("COLUMNS", "")
        if columns.isdecimal() and int(columns):
            return ConsoleDimensions(int(columns), super().size.height)
        return super().size if self.is_terminal else ConsoleDimensions(PIPED_WIDTH, super().size.height)

    @size.setter
    def size(self, _: tuple[int, int]) -> None:
        raise AttributeError("The size is that of the terminal, or of COLUMNS.")


out = _Output(highlight=False)
err = Console(stderr=True, highlight=False)


@dataclass
class _Asked:
    """The global options of the current command."""

    json: bool = False
    quiet: bool = False


_asked = _Asked()


def ask(*, as_json: bool, quiet: bool) -> None:
    """Set the global options of the current command."""
    _asked.json, _asked.quiet = as_json, quiet


def is_json() -> bool:
    """Whether standard output is to hold JSON and nothing else."""
    return _asked.json


def is_quiet() -> bool:
    """Whether standard error is to hold errors and nothing else."""
    return _asked.quiet or _asked.json


def story() -> Console:
    """Return the console for progress messages: standard error if standard output holds JSON."""
    return err if is_json() else out


def complain(message: str, *, hint: str | None = None) -> None:
    """Print an error on standard error, and what to do about it."""
    # As text: brackets, as those of `carina[worker]` or of a path, are no markup.
    err.print(Text.assemble(("error", "bold red"), f" {message}"), soft_wrap=True)
    if hint:
        err.print(Text(f"  {hint}"), soft_wrap=True)


def remark(message: str) -> None:
    """Print a remark on standard error, unless only errors are wanted there."""
    if not is_quiet():
        err.print(Text(message), soft_wrap=True)


def show_result(value: object, *lines: str) -> None:
    """Print the result of a command: with `--json` the value, else the lines as they are, without markup.

    Here and below, answers of the API are printed as the API sends them.
    """
    if is_json():
        print_json(value)
        return
    for line in lines:
        out.print(Text(line), soft_wrap=True)


def tell(value: object, *lines: str) -> None:
    """Print one of several results as soon as it is known: with `--json` as one line."""
    if is_json():
        sys.stdout.write(json.dumps(value, default=_plain) + "\n")
        sys.stdout.flush()
    else:
        show_result(value, *lines)


def print_json(value: object) -> None:
    """Print a value as JSON on standard output, undecorated."""
    sys.stdout.write(json.dumps(value, default=_plain, indent=2) + "\n")


def _plain(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def progress_of(*columns: ProgressColumn) -> Progress:
    """Return a progress bar for standard error, which is not shown where only errors are wanted."""
    return Progress(*columns, console=err, disable=is_quiet())


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Show a message on standard error while the block runs."""
    if is_quiet():
        yield
        return
    with err.status(what):
        yield


@contextmanager
def opened(output: Path | None) -> Iterator[IO[str]]:
    """Open a file that appears only once it is complete; without a path, standard output."""
    if output is None:
        yield sys.stdout
        return
    part = output.with_name(f"{output.name}.part")
    with part.open("w", newline="") as file:
        yield file
    part.replace(output)


def explain(error: ValidationError) -> str:
    """Return in one line which values are not valid, and why."""
    return "; ".join(
        ": ".join(filter(None, (".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, "))))
        for each in error.errors(include_url=False)
    )
