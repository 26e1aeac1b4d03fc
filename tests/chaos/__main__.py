"""`make chaos`: a campaign of load and faults against a whole stack; the exit status is 1 if anything was violated."""

import json
import random
import signal
import sys
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tests.chaos.campaign import run
from tests.chaos.result import SIZES, Result
from tests.chaos.samples import longest


class SizeName(StrEnum):
    """The sizes that have a name."""

    SMOKE = "smoke"
    SOAK = "soak"
    HOUR = "hour"


def main(
    size: Annotated[SizeName, typer.Option(help="Half a minute, 20 minutes or an hour.")] = SizeName.SMOKE,
    minutes: Annotated[float | None, typer.Option(help="How long faults are injected.")] = None,
    fault_every: Annotated[float | None, typer.Option(help="Seconds from one fault to the next, on average.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed makes the same choices; by default a new one.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the result as JSON to this file.")] = None,
) -> None:
    """Keep a stack of its own busy, disturb it, and check from outside that nothing was lost, doubled or leaked."""
    # Ended from outside, the stack ends, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    chosen = SIZES[size]
    if minutes is not None:
        chosen = replace(chosen, faults_s=60 * minutes)
    if fault_every is not None:
        chosen = replace(chosen, fault_every_s=fault_every)
    errors = Console(stderr=True, highlight=False)
    result = run(chosen, random.randrange(2**31) if seed is None else seed, errors.print)
    if out is not None:
        out.write_text(json.dumps(as_json(result), indent=2) + "\n")
    show(result, Console(highlight=False))
    sys.exit(bool(result.violations))


def as_json(result: Result) -> dict[str, Any]:
    """The whole result, for programs."""
    return {
        "seed": result.seed,
        "size": asdict(result.size),
        "violations": result.violations,
        **result.figures,
        "processes": [life.as_json() for life in longest(result.lives)],
        "injected": [asdict(each) for each in result.injected],
    }


def show(result: Result, console: Console) -> None:
    """Print the figures, the processes and the violations."""
    figures = Table("figure", "value", title=f"campaign with seed {result.seed}")
    for name, value in result.figures.items():
        shown = ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else str(value)
        figures.add_row(name, shown)
    console.print(figures)
    lives = Table("process", "longest life, s", "memory, MiB", "descriptors", "threads", title="first and last third")
    for life in longest(result.lives):
        pairs = [
            f"{getattr(life.first, what):.0f} → {getattr(life.last, what):.0f}"
            for what in ("private_mib", "descriptors", "threads")
        ]
        lives.add_row(life.name, f"{life.lasted_s:.0f}", *pairs)
    console.print(lives)
    for sentence in result.violations:
        console.print(f"violated: {sentence}", style="red", soft_wrap=True)
    if not result.violations:
        console.print("All invariants hold.")


if __name__ == "__main__":
    typer.run(main)
