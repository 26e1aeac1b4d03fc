"""The prepare worker in this process, with real decoder processes that a test may kill."""

import signal
import threading
from uuid import UUID

import numpy as np
import psutil
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from shared.imaging.isolation import DecoderPool
from shared.imaging.rendition import Rendition, make_rendition, read_rendition
from shared.object_store import original_key, rendition_key
from shared.queue.outcome import cancel
from shared.tables import Image
from tests.decoders import bytes_read, decoders, wait_for_request
from tests.integration.workshop import Workshop, dicom
from tests.synthetic_dicom import make_dicom, make_image
from tests.waiting import DEADLINE_S, wait_for
from workers import slots
from workers.wakeups import Wakeups

FATAL = dicom(99)


class TrippedPool(DecoderPool):
    """Stops the decoder process that gets `FATAL`, and sends these signals while it has it; keeps count."""

    def __init__(self, *signals: int) -> None:
        super().__init__(1, DEADLINE_S)
        self._signals = signals
        self.trips = 0

    def render(self, data: bytes, rendition_px: int, max_image_pixels: int) -> Rendition:
        if data != FATAL:
            return super().render(data, rendition_px, max_image_pixels)
        super().render(dicom(0), rendition_px, max_image_pixels)  # so that there is a process
        (decoder,) = decoders()
        decoder.suspend()
        self.trips += 1
        if not self._signals:
            self._timeout_s = 1
        signalling = threading.Thread(target=self._signal, args=(decoder, bytes_read(decoder)))
        signalling.start()
        try:
            return super().render(data, rendition_px, max_image_pixels)
        finally:
            signalling.join()
            self._timeout_s = DEADLINE_S

    def _signal(self, decoder: psutil.Process, read_before: int) -> None:
        wait_for_request(decoder, read_before)
        for number in self._signals:
            decoder.send_signal(number)


def image_of(workshop: Workshop, job_id: UUID) -> Image:
    with workshop.database.begin() as session:
        image = session.get_one(Image, workshop.job(job_id).image_id)
        session.expunge(image)
        return image


def test_a_image_becomes_the_rendition_that_the_function_makes(workshop: Workshop) -> None:
    file = make_dicom(make_image(317, 211))
    (job_id,) = workshop.queue(file)
    with workshop.preparing(rendition_px=100) as prepare:
        prepare.run()
    assert workshop.states([job_id]) == ["ready"]
    image, expected = image_of(workshop, job_id), make_rendition(file, rendition_px=100, max_image_pixels=10**6)
    png = workshop.store.get(rendition_key(image.rendition_sha256), sha256=image.rendition_sha256)
    assert np.array_equal(read_rendition(png), read_rendition(expected.png))
    assert (image.rendition_height_px, image.rendition_width_px, image.rendition_version) == (100, 67, 2)
    assert (image.height_px, image.width_px) == (317, 211)


@pytest.mark.parametrize(
    "signals",
    [(), (signal.SIGKILL,), (signal.SIGSEGV, signal.SIGCONT)],
    ids=["hangs", "dies", "crashes"],
)
def test_an_image_that_brings_down_its_decoder_is_tried_alone_and_then_rejected(
    workshop: Workshop, signals: tuple[int, ...]
) -> None:
    jobs = workshop.queue(dicom(1), FATAL, dicom(2), dicom(3))
    fatal = jobs.pop(1)
    pool = TrippedPool(*signals)
    with workshop.preparing(pool, prepare_threads=1, retry_backoff_s=0) as prepare:
        prepare.run()
        prepare.run()
    assert workshop.states(jobs) == ["ready"] * 3
    last = workshop.job(fatal)
    assert (last.state, last.code, last.attempt, last.alone) == ("rejected", "decoder_crashed", 2, True)
    assert pool.trips == 2
    assert decoders() == []


def test_an_unfit_file_is_rejected_at_once_and_the_others_go_on(workshop: Workshop) -> None:
    cut_short = dicom(1)[:-500]
    jobs = workshop.queue(cut_short, dicom(2))
    with workshop.preparing() as prepare:
        prepare.run()
    assert workshop.states(jobs) == ["rejected", "ready"]
    assert (workshop.job(jobs[0]).code, workshop.job(jobs[0]).attempt) == ("undecodable_pixel_data", 1)


def test_an_original_that_is_gone_fails_its_job_once_attempts_are_used_up(workshop: Workshop) -> None:
    lost, corrupt, fine = workshop.queue(dicom(1), dicom(2), dicom(3))
    with workshop.database.begin() as session:
        gone = sa.update(Image).where(Image.id == workshop.job(lost).image_id)
        session.execute(gone.values(sha256="0" * 64))
    workshop.store.put(original_key(image_of(workshop, corrupt).sha256), b"not these bytes")
    with workshop.preparing(max_attempts=2, retry_backoff_s=0) as prepare:
        for _ in range(2):
            prepare.run()
    assert workshop.states([lost, corrupt, fine]) == ["failed", "failed", "ready"]
    assert [workshop.job(job_id).code for job_id in (lost, corrupt)] == ["object_missing", "object_corrupt"]


def test_an_outage_of_the_object_store_costs_no_attempt(workshop: Workshop) -> None:
    (job_id,) = workshop.queue(dicom(1))
    with workshop.preparing(s3_endpoint_url="http://127.0.0.1:9", max_attempts=1, retry_backoff_s=3600) as cut_off:
        cut_off.run()
    assert (workshop.job(job_id).state, workshop.job(job_id).attempt) == ("queued", 0)
    workshop.set(job_id, available_at="epoch")
    with workshop.preparing(max_attempts=1) as prepare:
        prepare.run()
    assert workshop.states([job_id]) == ["ready"]


def test_a_wrong_key_of_the_object_store_costs_no_attempt(workshop: Workshop) -> None:
    (job_id,) = workshop.queue(dicom(1))
    with workshop.preparing(s3_secret_access_key=SecretStr("wrong"), max_attempts=1) as refused:
        for _ in range(3):
            refused.run()
            workshop.set(job_id, available_at="epoch")
    assert (workshop.job(job_id).state, workshop.job(job_id).attempt) == ("queued", 0)
    with workshop.preparing(max_attempts=1) as prepare:
        prepare.run()
    assert workshop.states([job_id]) == ["ready"]


class SlowPool(DecoderPool):
    """Calls `during` while an image is in the works."""

    def __init__(self, during: object) -> None:
        super().__init__(1, DEADLINE_S)
        self._during = during

    def render(self, data: bytes, rendition_px: int, max_image_pixels: int) -> Rendition:
        self._during()
        return super().render(data, rendition_px, max_image_pixels)


def test_a_job_cancelled_before_or_during_preparation_stays_cancelled(workshop: Workshop) -> None:
    before, during = workshop.queue(dicom(1), dicom(2))

    def cancel_one(job_id: UUID) -> None:
        with workshop.database.begin() as session:
            assert cancel(session, workshop.project_id, job_id)

    cancel_one(before)
    with workshop.preparing(SlowPool(lambda: cancel_one(during)), prepare_threads=1) as prepare:
        prepare.run()
    assert workshop.states([before, during]) == ["cancelled"] * 2
    assert image_of(workshop, during).rendition_sha256 is None


def test_leases_are_renewed_while_a_decode_takes_longer_than_a_lease(workshop: Workshop) -> None:
    (job_id,) = workshop.queue(dicom(1))

    slow = SlowPool(lambda: workshop.sweep_until_renewed(job_id))
    with workshop.preparing(slow, prepare_threads=1, lease_s=24) as prepare:
        prepare.run()
    assert (workshop.job(job_id).state, workshop.job(job_id).attempt) == ("ready", 0)
    assert workshop.job(job_id).ready_at is not None


def test_the_stop_flag_ends_it_with_nothing_leased(workshop: Workshop) -> None:
    stop = threading.Event()
    jobs = workshop.queue(*(dicom(number) for number in range(8)))
    with workshop.preparing(SlowPool(stop.set), stop, prepare_threads=2) as prepare:
        prepare.run()
    states = workshop.states(jobs)
    assert states == ["ready"] * 2 + ["queued"] * 6


class HeldPool(DecoderPool):
    """Holds the slot that gets `FATAL` until it is released, as a slow or hung decoder does."""

    def __init__(self) -> None:
        super().__init__(2, DEADLINE_S)
        self.is_held, self.released = threading.Event(), threading.Event()

    def render(self, data: bytes, rendition_px: int, max_image_pixels: int) -> Rendition:
        if data == FATAL:
            self.is_held.set()
            assert self.released.wait(DEADLINE_S)
        return super().render(data, rendition_px, max_image_pixels)


@pytest.mark.parametrize("hinted", [True, False], ids=["hinted", "not hinted"])
def test_a_free_slot_claims_while_another_one_is_held(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, hinted: bool
) -> None:
    (slow,) = workshop.queue(FATAL)
    pool, wakeups = HeldPool(), Wakeups()
    monkeypatch.setattr(slots, "LOOK_S", DEADLINE_S if hinted else 0.1)
    with workshop.preparing(pool, wakeups=wakeups, prepare_threads=2) as prepare:
        running = threading.Thread(target=prepare.run)
        running.start()
        try:
            assert pool.is_held.wait(DEADLINE_S)
            small = workshop.queue(*(dicom(number) for number in range(6)))
            if hinted:
                threading.Thread(target=wakeups.ask, daemon=True).start()
            wait_for(lambda: workshop.states(small) == ["ready"] * 6)
            assert workshop.states([slow]) == ["preparing"]
        finally:
            pool.released.set()
            running.join()
    assert workshop.states([slow]) == ["ready"]


def test_a_worker_without_a_free_slot_leaves_hints_to_others(workshop: Workshop) -> None:
    (slow,) = workshop.queue(FATAL)
    pool, wakeups = HeldPool(), Wakeups()
    with workshop.preparing(pool, wakeups=wakeups, prepare_threads=1) as prepare:
        running = threading.Thread(target=prepare.run)
        running.start()
        try:
            assert pool.is_held.wait(DEADLINE_S)
            taker = threading.Thread(target=wakeups.ask, daemon=True)
            taker.start()
            taker.join(2 * slots.LOOK_S)
            assert taker.is_alive()  # the consumer takes no further hint
        finally:
            pool.released.set()
            running.join()
            wakeups.stop()
    assert workshop.states([slow]) == ["ready"]


def test_the_more_urgent_image_is_prepared_first(workshop: Workshop) -> None:
    jobs = workshop.queue(*(dicom(number) for number in range(4)))
    workshop.set(jobs[2], priority=9)
    stop = threading.Event()
    with workshop.preparing(SlowPool(stop.set), stop, prepare_threads=1) as prepare:
        prepare.run()
    assert workshop.states(jobs) == ["queued", "queued", "ready", "queued"]
