"""`make fuzz-files`: hostile files by the thousand, each made from its number, sent on every way that files take."""

import json
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from tests.fuzz.corpus import read_corpus
from tests.fuzz.mutation import make_case
from tests.fuzz.trial import Outcome, Trial
from tests.requirements import SHARED_DATA

_BATCH = 250


@dataclass
class Report:
    """What many cases came to."""

    cases: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: Case number, what it was made from, and what went wrong.
    findings: list[tuple[int, str, Outcome]] = field(default_factory=list)
    #: By way: seconds, and the case's number.
    slowest: dict[str, tuple[float, int]] = field(default_factory=dict)
    decoder_rss_bytes: int = 0

    def add(self, number: int, original: str, outcome: Outcome) -> None:
        """Take in one outcome."""
        self.slowest[outcome.way] = max(self.slowest.get(outcome.way, (0.0, 0)), (outcome.seconds, number))
        if outcome.is_finding:
            self.findings.append((number, original, outcome))
            self.outcomes[outcome.way, "finding"] += 1
        else:
            self.outcomes[outcome.way, outcome.code] += 1

    def merge(self, other: "Report") -> None:
        """Take in another report."""
        self.cases += other.cases
        self.outcomes += other.outcomes
        self.findings += other.findings
        for way, slowest in other.slowest.items():
            self.slowest[way] = max(self.slowest.get(way, (0.0, 0)), slowest)
        self.decoder_rss_bytes = max(self.decoder_rss_bytes, other.decoder_rss_bytes)


def run_cases(numbers: range, seed: int, *, real: Path | None = None, findings: Path | None = None) -> Report:
    """Make and try cases in this process; files of findings are kept in the folder `findings`."""
    corpus = read_corpus(real)
    report = Report()
    with Trial() as trial:
        for number in numbers:
            case = make_case(number, seed, corpus)
            for outcome in trial.run(case.data, number):
                report.add(number, case.original, outcome)
                if outcome.is_finding and findings is not None:
                    findings.mkdir(parents=True, exist_ok=True)
                    (findings / f"{seed}-{number}").write_bytes(case.data)
            report.cases += 1
        report.decoder_rss_bytes = trial.decoder_rss_bytes
    return report


def main(
    cases: Annotated[int, typer.Option(help="How many.")] = 20_000,
    jobs: Annotated[int, typer.Option(help="Processes that try them.")] = max(1, (os.cpu_count() or 2) // 2),
    seed: Annotated[int, typer.Option(help="The same number makes the same files.")] = 1,
    first: Annotated[int, typer.Option(help="Number of the first case, to try one again.")] = 0,
    findings: Annotated[Path, typer.Option(help="Where files are kept that something went wrong with.")] = Path(
        "build/fuzz"
    ),
) -> None:
    """Try hostile files; the exit status is 1 where one was let do harm."""
    begun, report = time.monotonic(), Report()
    real = SHARED_DATA / "dicom" if SHARED_DATA.exists() else None
    batches = [range(start, min(start + _BATCH, first + cases)) for start in range(first, first + cases, _BATCH)]
    console = Console(stderr=True)
    with (
        ProcessPoolExecutor(jobs) as pool,
        Progress(
            *Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(), console=console
        ) as progress,
    ):
        bar = progress.add_task("Fuzzing", total=cases)
        for done in pool.map(_Batch(seed, real, findings), batches):
            for number, original, outcome in done.findings:
                progress.console.print(f"case {number} ({original}), {outcome.way}: {outcome.code}", highlight=False)
            report.merge(done)
            progress.advance(bar, done.cases)
    _show(report, time.monotonic() - begun)
    sys.exit(bool(report.findings))


@dataclass(frozen=True)
class _Batch:
    """`run_cases`, as a process pool can call it."""

    seed: int
    real: Path | None
    findings: Path

    def __call__(self, numbers: range) -> Report:
        return run_cases(numbers, self.seed, real=self.real, findings=self.findings)


def _show(report: Report, seconds: float) -> None:
    table = Table("way", "outcome", "cases", "share")
    totals: Counter[str] = Counter()
    for (way, _), count in report.outcomes.items():
        totals[way] += count
    for (way, code), count in sorted(report.outcomes.items(), key=lambda each: (each[0][0], -each[1])):
        table.add_row(way, code, f"{count:,}", f"{count / totals[way]:.2%}")
    console = Console()
    console.print(table)
    summary = {
        "cases": report.cases,
        "findings": len(report.findings),
        "seconds": round(seconds),
        "slowest_ms": {way: (round(1000 * each[0], 1), each[1]) for way, each in report.slowest.items()},
        "decoder_rss_mib": report.decoder_rss_bytes >> 20,
    }
    console.print(json.dumps(summary), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
