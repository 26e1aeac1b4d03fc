"""One campaign: a stack, clients, a calm time, a time of faults, a calm time, rest, and the checks."""

import math
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import sqlalchemy as sa
import torch

from api.client import Carina
from deploy.stack import processes
from deploy.stack.folder import Folder
from shared.errors import CarinaError
from shared.leases import leased_tables
from shared.object_store import ObjectStore
from shared.tables import Submission, WebhookDelivery
from shared.training.tasks import KINDS
from shared.vocabulary.states import DeliveryState, SubmissionState, TaskState
from tests.chaos import faults
from tests.chaos.invariants import Evidence, violations
from tests.chaos.ledger import Ledger, Routes
from tests.chaos.load import DATASET, Load, count_open
from tests.chaos.result import Injected, Result, Size, figures_of
from tests.chaos.samples import Sampler
from tests.chaos.supply import Supply
from tests.e2e.conftest import Stack, running_stack
from tests.e2e.sent_images import ImageSender
from tests.integration.receiver import Receiver
from tests.tiny_dataset import store_dataset

#: How long the stack may take to come to rest once no more work comes.
REST_WITHIN_S = 900.0
#: One message of so many is answered with an error, so that it is sent again.
_REFUSED_OF = 20
_SETTINGS = {
    "CARINA_WEBHOOK_ALLOW_PRIVATE": "true",
    "CARINA_TRAINER_POLL_S": "0.5",
    # Long enough for a process on a busy machine to renew it.
    "CARINA_LEASE_S": f"{faults.LEASE_S:g}",
    # A fault is not the fault of a job.
    "CARINA_MAX_ATTEMPTS": "100",
}
Say = Callable[[str], object]


def run(size: Size, seed: int, say: Say) -> Result:
    """Run a campaign in a temporary folder, of which nothing is left."""
    result = Result(seed, size)
    torch.set_num_threads(1)  # the stack needs the cores
    with tempfile.TemporaryDirectory(prefix="carina-chaos-") as folder:
        data = Path(folder) / "stack"
        data.mkdir()
        with running_stack(data, **_SETTINGS) as stack:
            say(f"the stack is up; seed {seed}")
            _Campaign(stack, Path(folder), result, say).run()
        result.violations += _left_running(Folder(stack.data))
    return result


class _Campaign:
    def __init__(self, stack: Stack, folder: Path, result: Result, say: Say) -> None:
        self._stack, self._result, self._say = stack, result, say
        self._size, self._draw = result.size, random.Random(result.seed)
        store_dataset(stack.database, ObjectStore(stack.settings), name=DATASET, count=12)
        self._supply = Supply(ImageSender(folder, stack), folder)
        self._ledger = Ledger()
        self._routes = Routes(stack.client._http.get("/openapi.json").json())
        self._load = Load(stack, self._supply, self._ledger, self._routes, result.seed)
        self._receiver = Receiver()
        self._begun = time.monotonic()

    def run(self) -> None:
        with ExitStack() as running:
            running.enter_context(self._receiver.serving())
            self._receiver.answer = self._answer
            client = running.enter_context(self._load.client())
            client.create_webhook(self._receiver.url)
            sampler = running.enter_context(Sampler(self._stack, self._size.sample_every_s))
            times = self._disturb(client)
            self._come_to_rest()
            self._result.lives = sampler.lives()
            evidence = Evidence(
                self._stack, client, self._ledger, self._supply, self._routes, list(self._receiver.messages)
            )
            self._result.violations += violations(evidence)
            self._result.violations += [sentence for life in self._result.lives for sentence in life.growth]
            self._result.violations += self._unexplained_restarts()
            self._result.figures = figures_of(evidence, self._result, times)

    def _disturb(self, client: Carina) -> list[datetime]:
        """Keep the stack busy, and disturb it; return when faults begin and end, within the first and last time."""
        times = [datetime.now(UTC)]
        self._load.start()
        try:
            for phase in (self._wait_calmly, self._inject_faults, self._wait_calmly):
                phase(client)
                times.append(datetime.now(UTC))
        finally:
            self._load.abandon()
        self._say("no more work is sent")
        self._load.stop()
        return times

    def _wait_calmly(self, client: Carina) -> None:
        until = time.monotonic() + self._size.calm_s
        while time.monotonic() < until:
            self._result.calm_urgent_s.append(self._time_urgent(client))
            time.sleep(max(0, min(5.0, until - time.monotonic())))

    def _inject_faults(self, client: Carina) -> None:
        until = time.monotonic() + self._size.faults_s
        for number, fault in enumerate(faults.bag(self._stack, self._draw)):
            if number >= self._size.least_faults and time.monotonic() > until:
                return
            following = time.monotonic() + self._size.fault_every_s * self._draw.uniform(0.7, 1.3)
            at_s = time.monotonic() - self._begun
            urgent: list[float] = []
            beside = threading.Thread(target=lambda: urgent.append(self._time_urgent(client)), daemon=True)  # noqa: B023
            beside.start()
            try:
                back_s = faults.apply(self._stack, fault)
            except (faults.NotBack, CarinaError, OSError) as exc:
                self._result.violations.append(f"{fault.name}: {exc}")
                back_s = math.nan
            beside.join()
            injected = Injected(fault.name, at_s, back_s, *urgent)
            self._result.injected.append(injected)
            self._say(f"{at_s:6.0f} s  {fault.name:<28} back {back_s:5.1f} s, urgent image {injected.urgent_s:5.1f} s")
            time.sleep(max(0, following - time.monotonic()))

    def _time_urgent(self, client: Carina) -> float:
        """Send an image with the highest priority; return the seconds until its result."""
        (file,) = self._supply.make(1)
        begun = time.monotonic()
        try:
            (outcome,) = client.submit([file.path], priority=9)
            self._ledger.accept("urgent", file.sha256)
            client.wait([outcome.job_id] if outcome.job_id else [])
        except CarinaError as exc:
            self._ledger.fail(f"urgent: {type(exc).__name__}: {exc}")
        return time.monotonic() - begun

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(500 if random.randrange(_REFUSED_OF) == 0 else 200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def _come_to_rest(self) -> None:
        """Wait until nothing is open; what stays open is found by the checks."""
        deadline = time.monotonic() + REST_WITHIN_S
        while time.monotonic() < deadline:
            try:
                if not any(self._open()):
                    break
            except CarinaError as exc:
                self._say(f"at rest: {exc}")
            time.sleep(0.5)
        self._say(f"at rest, {time.monotonic() - self._begun:.0f} s after the beginning")

    def _open(self) -> Sequence[int]:
        unfinished = sa.select(sa.func.count()).where(
            Submission.state.in_([SubmissionState.OPEN, SubmissionState.PROCESSING])
        )
        unsent = sa.select(sa.func.count()).where(WebhookDelivery.state.in_(DeliveryState.open()))
        leased = [sa.select(sa.func.count()).where(table.lease_owner.is_not(None)) for table in leased_tables()]
        tasks = [sa.select(sa.func.count()).where(kind.state.in_(TaskState.open())) for kind in KINDS.values()]
        counts = [self._stack.query(each)[0][0] for each in (unfinished, unsent, *tasks, *leased)]
        return [count_open(self._stack), *counts]

    def _unexplained_restarts(self) -> list[str]:
        """Processes that were started again more often than a fault ended them."""
        ends = ("kill ", "terminate ")
        ended = Counter(
            each.name.split()[-1]
            for each in self._result.injected
            if each.name.startswith(ends) and "child of" not in each.name
        )
        restarts = {name: entry.restarts for name, entry in self._stack.processes().items()}
        return [
            f"{name} was started again {count} times; faults ended it {ended[name]} times"
            for name, count in restarts.items()
            if count > ended[name] + _slow_starts(self._stack, name)
        ]


def _slow_starts(stack: Stack, name: str) -> int:
    """How often the supervisor lost its patience with a start, as it does on an overloaded machine."""
    return stack.said.read_text().count(f"{name:<10} died (no answer")


def _left_running(folder: Folder) -> list[str]:
    mark = folder.mark.encode()
    left = [each for each in processes.every() if each.runs and mark in processes.environment(each.pid)]
    return [f"process {each.name} (pid {each.pid}) outlives the stack" for each in left]
