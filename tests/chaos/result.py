"""What a campaign is asked for, and what it comes to."""

import os
import platform
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from shared.tables import Job
from shared.vocabulary.states import JobState
from tests.chaos.invariants import Evidence
from tests.chaos.ledger import Ledger
from tests.chaos.samples import Life


@dataclass(frozen=True)
class Size:
    """How long a campaign takes, and how dense its faults are."""

    calm_s: float
    faults_s: float
    #: From one fault to the next, on average, unless a process needs longer to answer again.
    fault_every_s: float
    #: The least number of faults, however slow the machine is.
    least_faults: int = 1
    sample_every_s: float = 15.0


SIZES = {
    "smoke": Size(calm_s=3, faults_s=0, fault_every_s=3, least_faults=5, sample_every_s=2),
    "soak": Size(calm_s=60, faults_s=18 * 60, fault_every_s=60),
    "hour": Size(calm_s=120, faults_s=56 * 60, fault_every_s=60),
}


@dataclass(frozen=True)
class Injected:
    """A fault as it went."""

    name: str
    at_s: float
    #: Until its process answered again.
    back_s: float
    #: Until an image that was sent at that moment with the highest priority had its result.
    urgent_s: float


@dataclass
class Result:
    """What a campaign came to."""

    seed: int
    size: Size
    violations: list[str] = field(default_factory=list)
    injected: list[Injected] = field(default_factory=list)
    #: The same of urgent images in calm times.
    calm_urgent_s: list[float] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def figures_of(evidence: Evidence, result: Result, times: Sequence[datetime]) -> dict[str, Any]:
    """The figures of a campaign, by their names. `times`: its begin, the begin and end of faults, its end."""
    ledger = evidence.ledger
    jobs = dict(evidence.rows(sa.select(Job.state, sa.func.count()).group_by(Job.state)))
    calm_per_s = _per_s(evidence, [(times[0], times[1]), (times[2], times[3])])
    faults_per_s = _per_s(evidence, [(times[1], times[2])])
    ids = [message.id for message in evidence.messages]
    ways: Counter[str] = sum(ledger.accepted.values(), Counter())
    return {
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "load": round(os.getloadavg()[0], 1),
            "Python": platform.python_version(),
        },
        "lasted_s": round((times[3] - times[0]).total_seconds()),
        "files by way": dict(ways),
        "files": len(ledger.accepted),
        "jobs": sum(jobs.values()),
        "jobs by state": jobs,
        "most attempts of a job": evidence.rows(sa.select(sa.func.max(Job.attempt)))[0][0],
        "submissions": len(ledger.bulks),
        "actions": dict(ledger.actions),
        "messages": len(ids),
        "messages sent again": len(ids) - len(set(ids)),
        "answers by status": dict(_by_status(ledger)),
        "faults": len(result.injected),
        "faults by kind": dict(Counter(each.name for each in result.injected)),
        "lost": sum("was accepted" in sentence for sentence in result.violations),
        "twice": sum("two results" in sentence for sentence in result.violations),
        "back_s p50, p95": _quantiles([each.back_s for each in result.injected]),
        "urgent image under faults, s p50, p95": _quantiles([each.urgent_s for each in result.injected]),
        "urgent image in calm times, s p50, p95": _quantiles(result.calm_urgent_s),
        "jobs/s in calm times": round(calm_per_s, 2),
        "jobs/s under faults": round(faults_per_s, 2),
        "of the calm pace": round(faults_per_s / calm_per_s, 2) if calm_per_s else None,
    }


def _per_s(evidence: Evidence, spans: Sequence[tuple[datetime, datetime]]) -> float:
    done = 0
    for begin, end in spans:
        within = sa.select(sa.func.count()).where(
            Job.state == JobState.SUCCEEDED, Job.finished_at >= begin, Job.finished_at < end
        )
        done += evidence.rows(within)[0][0]
    return float(done / sum((end - begin).total_seconds() for begin, end in spans))


def _quantiles(seconds: Sequence[float]) -> list[float]:
    known = sorted(each for each in seconds if each == each)
    if not known:
        return []
    return [round(statistics.median(known), 2), round(known[min(len(known) - 1, int(0.95 * len(known)))], 2)]


def _by_status(ledger: Ledger) -> Counter[int]:
    counted: Counter[int] = Counter()
    for (_, _, status), count in ledger.answers.items():
        counted[status] += count
    return counted
