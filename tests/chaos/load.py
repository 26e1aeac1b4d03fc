"""Clients that keep a stack busy: each in a thread of its own, with a random generator of its own."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from uuid import UUID, uuid4

import sqlalchemy as sa

from api.client import Carina
from api.client.errors import RequestRefused
from shared.errors import TransientError
from shared.tables import Job
from shared.vocabulary.states import JobState, TaskState
from tests.chaos.ledger import Bulk, Ledger, Routes
from tests.chaos.supply import File, Supply
from tests.e2e.conftest import Stack
from tests.integration.dicomweb import related

#: Far longer than any outage of a campaign: a client that gives up is a finding.
RETRY_FOR_S = 600.0
#: Sending pauses while so many jobs are open.
MOST_OPEN = 60
DATASET = "phantoms"
#: The same for each training: all of them have to end with the same weights.
TRAINING = {
    "architecture": "carina_small",
    "canvas_px": 128,
    "initial_weights": "none",
    "epochs": 4,
    "batch_size": 3,
    "loader_workers": 0,
    "precision": "fp32",
}
_FINAL = ("job_is_final", "submission_is_final")


class Load:
    """The clients of a campaign. What they are promised goes into the ledger."""

    def __init__(self, stack: Stack, supply: Supply, ledger: Ledger, routes: Routes, seed: int) -> None:
        self._stack, self._supply, self._ledger, self._routes, self._seed = stack, supply, ledger, routes, seed
        self._models = list(supply.models)
        self._stop = threading.Event()
        self._room = threading.Event()
        self._threads: list[threading.Thread] = []
        #: Ids that the API gave lately: of studies, images and submissions.
        self._studies: deque[UUID] = deque(maxlen=100)
        self._images: deque[UUID] = deque(maxlen=100)
        self._submissions: deque[UUID] = deque(maxlen=10)
        self._promotions = 0

    def start(self) -> None:
        """Start all clients."""
        self._spawn("room", self._watch_room)
        senders = {
            "single": (self._send_single, 0.3),
            "single-2": (self._send_single, 0.3),
            "bulk": (self._send_bulk, 1.0),
            "stow": (self._send_stow, 0.6),
        }
        others = {
            "reader": (self._read, 0.3),
            "promoter": (self._promote, 10.0),
            "repeater": (self._repeat, 3.0),
            "trainer": (self._train, 5.0),
        }
        for name, (step, pause_s) in (senders | others).items():
            self._spawn(name, self._client_of(name, step, pause_s, waits=name in senders))

    def abandon(self) -> None:
        """Stop sending, and do not wait for the clients."""
        self._stop.set()
        self._room.set()

    def stop(self) -> None:
        """Stop sending, and wait until the clients have finished what they began."""
        self.abandon()
        for thread in self._threads:
            thread.join()

    @contextmanager
    def client(self) -> Iterator[Carina]:
        """A client whose answers are counted."""
        api = self._stack.client.api_url
        with Carina(api, self._stack.api_key, retry_for_s=RETRY_FOR_S, on_retry=lambda _: None) as client:
            client._has_answered = True  # the stack answers already: an outage now is one of the campaign
            self._routes.watch(client._http, self._ledger)
            yield client

    def _spawn(self, name: str, run: Callable[[], None]) -> None:
        self._threads.append(thread := threading.Thread(target=run, name=name, daemon=True))
        thread.start()

    def _client_of(
        self, name: str, step: Callable[[Carina, Random], None], pause_s: float, *, waits: bool
    ) -> Callable[[], None]:
        def run() -> None:
            draw = Random(f"{self._seed} {name}")
            with self.client() as client:
                while not self._stop.wait(draw.uniform(0, 2 * pause_s)):
                    if waits:
                        self._room.wait()
                    try:
                        step(client, draw)
                    except Exception as exc:  # noqa: BLE001 - whatever it is, a client met it
                        self._ledger.fail(f"{name}: {type(exc).__name__}: {exc}")

        return run

    def _watch_room(self) -> None:
        while not self._stop.is_set():
            try:
                is_full = count_open(self._stack) >= MOST_OPEN
            except TransientError:
                is_full = True
            (self._room.clear if is_full else self._room.set)()
            time.sleep(0.3)

    # --- ways in -----------------------------------------------------------------------------------------------------

    def _send_single(self, client: Carina, draw: Random) -> None:
        files = self._supply.make(draw.randint(1, 3))
        extra = self._supply.again(draw) if draw.random() < 0.2 else []
        unfit = [self._supply.unfit(draw)] if draw.random() < 0.1 else []
        model_id = draw.choice(self._models) if draw.random() < 0.2 else None
        sent = files + extra + unfit
        outcomes = client.submit([file.path for file in sent], priority=draw.randint(0, 9), model_id=model_id)
        for file, outcome in zip(sent, outcomes, strict=True):
            if outcome.outcome == "rejected":
                if file not in unfit:
                    self._ledger.fail(f"single: a good file was rejected: {outcome.code}")
                continue
            if file in unfit:
                self._ledger.unfit.add(file.sha256)
            self._ledger.accept("single", file.sha256)
            self._remember(outcome.study_id, outcome.image_id)
        _delete(extra + unfit)
        job_id = outcomes[0].job_id
        if draw.random() < 0.08 and job_id is not None:
            time.sleep(draw.uniform(0, 0.5))
            self._cancel(client, job_id)

    def _send_bulk(self, client: Carina, draw: Random) -> None:
        files = self._supply.make(draw.randint(4, 12))
        extra = self._supply.again(draw) if draw.random() < 0.3 else []
        unfit = [self._supply.unfit(draw)] if draw.random() < 0.3 else []
        packed = self._supply.make(draw.randint(2, 5)) if draw.random() < 0.4 else []
        archives = [self._supply.pack(packed, draw)] if packed else []
        paths = [file.path for file in files + extra + unfit] + archives
        submission = client.submit_all(paths, priority=draw.randint(0, 9), threads=4)
        good = [file.sha256 for file in files + extra + packed]
        bulk = Bulk(good, archives=len(archives), unfit=len(unfit), is_cancelled=draw.random() < 0.15)
        with self._ledger.lock:
            self._ledger.bulks[submission.id] = bulk
        _delete(extra + unfit)
        for archive in archives:
            archive.unlink()
        if bulk.is_cancelled:
            time.sleep(draw.uniform(0, 1))
            with _unless_final():
                client.cancel_submission(submission.id)
                self._ledger.act("submissions cancelled")
        else:
            self._ledger.accept("bulk", *good)
        self._submissions.append(submission.id)

    def _send_stow(self, client: Carina, draw: Random) -> None:
        files = self._supply.make(draw.randint(1, 3))
        headers = {
            "Content-Type": 'multipart/related; type="application/dicom"; boundary=frontier',
            "Idempotency-Key": str(uuid4()),
        }
        body = related(*(file.path.read_bytes() for file in files))
        client._request("POST", "/dicom-web/studies", content=lambda: body, headers=headers)
        self._ledger.accept("STOW-RS", *(file.sha256 for file in files))

    # --- what else clients do ----------------------------------------------------------------------------------------

    def _cancel(self, client: Carina, job_id: UUID) -> None:
        with self._ledger.lock:
            self._ledger.cancels.add(job_id)
        with _unless_final():
            client.cancel(job_id)
            with self._ledger.lock:
                self._ledger.cancelled.add(job_id)
            self._ledger.act("jobs cancelled")

    def _read(self, client: Carina, draw: Random) -> None:
        looks: list[Callable[[], object]] = [client.queue, client.submissions, client.models]
        if self._studies:
            study, image = draw.choice(self._studies), draw.choice(self._images)
            looks += [lambda: client.study(study), lambda: client.findings(study)]
            looks += [lambda: client._request("GET", "/v1/studies", {"limit": 20})]
            looks += [lambda: client._request("GET", "/metrics")]
            looks += [lambda: client.overlay(image)] * 2
        if self._submissions:
            submission = draw.choice(self._submissions)
            looks += [lambda: list(client.manifest(submission))]
        try:
            draw.choice(looks)()
        except RequestRefused as exc:
            if exc.code != "not_ready":  # an overlay before the image is prepared
                raise
        self._ledger.act("reads")

    def _promote(self, client: Carina, draw: Random) -> None:
        """Promote the second model, then return to the first, in turn: two returns in a row would go further back."""
        self._promotions += 1
        if self._promotions % 2:
            client.promote(self._models[1], reason="The campaign promotes in turn.")
        else:
            try:
                client.roll_back()
            except TransientError:
                return  # it is sent only once; the next promotion is right either way
        self._ledger.act("promotions and rollbacks")

    def _repeat(self, client: Carina, draw: Random) -> None:
        """Process a study again with the active model, or retry what failed."""
        if draw.random() < 0.2:
            retried = client.retry_failed("worker_lost")
            self._ledger.act("jobs retried", retried.to_prepare + retried.to_detect)
        elif draw.random() < 0.2 and self._submissions:
            with _unless_final():
                client.retry_submission(draw.choice(self._submissions))
                self._ledger.act("submissions retried")
        elif self._studies:
            client.rerun(draw.choice(self._studies), priority=draw.randint(0, 9))
            self._ledger.act("studies processed again")

    def _train(self, client: Carina, draw: Random) -> None:
        training = client.train(DATASET, config=TRAINING, name="campaign")
        with self._ledger.lock:
            self._ledger.trainings.append(training.id)
        self._ledger.act("trainings")
        training = client.wait_training(training.id)
        if training.state is not TaskState.SUCCEEDED or self._stop.is_set():
            return
        evaluation = client.evaluate(DATASET, model=training.model_id or "active")
        with self._ledger.lock:
            self._ledger.evaluations.append(evaluation.id)
        self._ledger.act("evaluations")
        client.wait_evaluation(evaluation.id)

    def _remember(self, study_id: UUID | None, image_id: UUID | None) -> None:
        if study_id and image_id:
            self._studies.append(study_id)
            self._images.append(image_id)


def count_open(stack: Stack) -> int:
    """Count the jobs that are not final."""
    return int(stack.query(sa.select(sa.func.count()).where(Job.state.in_(JobState.open())))[0][0])


@contextmanager
def _unless_final() -> Iterator[None]:
    """Pass over the answer that it is too late to change something."""
    try:
        yield
    except RequestRefused as exc:
        if exc.code not in _FINAL:
            raise


def _delete(files: list[File]) -> None:
    for file in files:
        Path(file.path).unlink(missing_ok=True)
