"""`make bench`: measures, each figure within one run, and says which targets are met. A missed target is no error."""

import json as jsonlib
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from enum import StrEnum
from importlib import import_module
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.table import Table

from tests.bench.figure import Figure


class Bench(StrEnum):
    """What can be measured, in the order in which it is; the modules of this package."""

    CLAIM = "claim"
    INTAKE = "intake"
    SUBMISSIONS = "submissions"
    HOSTILE_CLIENTS = "hostile_clients"
    WORKLIST = "worklist"
    CLIENT_IMPORT = "client_import"
    FAKE_DEVICE = "fake_device"
    END_TO_END = "end_to_end"
    DECODE = "decode"
    PREPARE_SLOTS = "prepare_slots"
    THROUGHPUT = "throughput"
    DATASET_TABLE = "dataset_table"
    EVALUATION = "evaluation"
    LOADER = "loader"
    CHECKPOINTS = "checkpoints"
    TRAINING = "training"
    REAL_IMAGES = "real_images"
    RECIPES = "recipes"
    LABELS = "labels"
    ABNORMALITY = "abnormality"
    OVERLAYS = "overlays"
    JOB_ROWS = "job_rows"
    WAITING = "waiting"
    IDLE = "idle"


#: They take the better part of an hour, or hours.
LONG = (Bench.REAL_IMAGES, Bench.RECIPES, Bench.LABELS, Bench.ABNORMALITY)


def main(
    names: Annotated[
        list[Bench] | None,
        typer.Argument(help="Which; by default all but the long real_images, recipes, labels and abnormality."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure Carina on this machine. Every bench starts servers of its own and leaves nothing behind."""
    # Ended from outside, a bench takes its servers along, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    errors = Console(stderr=True)
    results: dict[str, list[Figure]] = {}
    for name in names or [bench for bench in Bench if bench not in LONG]:
        measure = cast(Callable[[], Iterator[Figure]], import_module(f"tests.bench.{name}").measure)
        begun = time.monotonic()
        figures = results[name] = []
        for figure in measure():
            figures.append(figure)
            errors.print(f"{name}: {figure.what}: {_shown(figure)} {figure.verdict}", highlight=False)
        errors.print(f"{name}: {time.monotonic() - begun:.0f} s")
    if json:
        figures_of = {
            name: [asdict(figure) | {"verdict": figure.verdict} for figure in figures]
            for name, figures in results.items()
        }
        sys.stdout.write(jsonlib.dumps({"machine": _machine(), "figures": figures_of}, indent=2) + "\n")
    else:
        Console().print(_table(results))


def _table(results: dict[str, list[Figure]]) -> Table:
    table = Table("bench", "what", title=", ".join(f"{name} {value}" for name, value in _machine().items()))
    for heading in ("measured", "target"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for name, figures in results.items():
        for number, figure in enumerate(figures):
            table.add_row(
                "" if number else name,
                figure.what,
                _shown(figure),
                f"{figure.sense} {figure.target:g}" if figure.target is not None else "",
                {"ok": "[green]ok", "missed": "[red]missed"}.get(figure.verdict, ""),
                end_section=number == len(figures) - 1,
            )
    return table


def _shown(figure: Figure) -> str:
    if isinstance(figure.measured, int):
        return f"{figure.measured:,} {figure.unit}".rstrip()
    digits = max(0, 2 - int(math.log10(max(1, figure.measured))))
    return f"{figure.measured:,.{digits}f} {figure.unit}".rstrip()


def _machine() -> dict[str, str | int]:
    import torch

    return {
        "cores": len(os.sched_getaffinity(0)),
        "load": f"{os.getloadavg()[0]:.1f}",
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    app()
