"""What the command line prints with."""

import json

from rich.console import Console

#: Ids must stay whole where the output goes into a file or another program.
PIPED_WIDTH = 200

out = Console(highlight=False)
if not out.is_terminal:
    out = Console(highlight=False, width=PIPED_WIDTH)
err = Console(stderr=True, highlight=False)


def complain(message: str, *, hint: str | None = None) -> None:
    """Print an error on standard error, and what to do about it."""
    err.print(f"[bold red]error[/] {message}", soft_wrap=True)
    if hint:
        err.print(f"  {hint}", soft_wrap=True)


def print_json(value: object) -> None:
    """Print a value as JSON on standard output, undecorated."""
    out.print_json(json.dumps(value, default=str))
