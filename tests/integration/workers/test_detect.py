"""The detect worker in this process, on a real detector that a test may trip up."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from uuid import UUID

import pytest
import sqlalchemy as sa

from shared.detector.card import ModelCard
from shared.detector.fitting import FittedImage, fit_to_canvas
from shared.detector.runtime import Detector
from shared.errors import DeviceOutOfMemory, ModelUnusable
from shared.models import registry
from shared.object_store import rendition_key, weights_key
from shared.queue.claim import expire_leases
from shared.queue.outcome import cancel
from shared.tables import Image, Job, Worker
from tests.integration.workshop import HEIGHT_PX, MARKED, WIDTH_PX, Workshop, grey_image, is_marked
from tests.requirements import REPOSITORY
from tests.tiny_model import make_tiny_model
from tests.waiting import DEADLINE_S
from workers.heartbeat import EXIT_STUCK
from workers.sweep import sweep

Before = Callable[[Sequence[FittedImage]], None]


def fail_on_the_marked(batch: Sequence[FittedImage]) -> None:
    if any(map(is_marked, batch)):
        raise RuntimeError("this image cannot be detected")


def once(action: Callable[[], object]) -> Before:
    """Do it at the first batch only."""
    actions = [action]

    def before(_: Sequence[FittedImage]) -> None:
        if actions:
            actions.pop()()

    return before


def test_detections_are_those_of_the_detector_in_original_pixels(
    workshop: Workshop, tiny_model: tuple[ModelCard, bytes], tiny_model_id: UUID
) -> None:
    images = [grey_image(number) for number in range(5)]
    jobs = workshop.ready(*images)
    with workshop.database.begin() as session:  # the originals were larger, one side more than the other
        session.execute(sa.update(Image).values(height_px=10 * HEIGHT_PX, width_px=7 * WIDTH_PX))
    with workshop.detecting(batch_size=3) as detect:
        detect.run()
    detector = Detector(*tiny_model, device="cpu", precision="fp32")
    for job_id, pixels in zip(jobs, images, strict=True):
        assert (workshop.job(job_id).state, workshop.job(job_id).model_id) == ("succeeded", tiny_model_id)
        (expected,) = detector.detect([fit_to_canvas(pixels, tiny_model[0].canvas_px)])
        assert len(expected.detections) == 3
        for row, detection in zip(workshop.found(job_id), expected.detections, strict=True):
            assert (row.class_id, row.class_name) == (detection.category_id, detection.category_name)
            assert row.score == pytest.approx(detection.score, abs=1e-5)
            box = [side * factor for side, factor in zip(detection.box_xyxy_px, (7, 10, 7, 10), strict=True)]
            assert [row.x_min_px, row.y_min_px, row.x_max_px, row.y_max_px] == pytest.approx(box, abs=0.05)


@pytest.mark.usefixtures("tiny_model_id")
def test_one_poison_image_in_a_batch_of_eight_fails_alone(workshop: Workshop) -> None:
    images = [grey_image(number) for number in range(7)]
    jobs = workshop.ready(*images[:3], MARKED, *images[3:])
    poison = jobs.pop(3)
    with workshop.detecting(fail_on_the_marked, batch_size=8, max_attempts=2, retry_backoff_s=0) as detect:
        detect.run()
        detect.run()  # what comes back at the very end waits for the next hint
    assert workshop.states(jobs) == ["succeeded"] * 7
    assert {workshop.job(job_id).attempt for job_id in jobs} == {1}
    assert all(workshop.found(job_id) for job_id in jobs)
    last = workshop.job(poison)
    assert (last.state, last.code, last.attempt, last.alone) == ("failed", "detection_failed", 2, True)
    assert workshop.found(poison) == []


@pytest.mark.usefixtures("tiny_model_id")
def test_an_unreadable_rendition_fails_alone(workshop: Workshop) -> None:
    jobs = workshop.ready(*(grey_image(number) for number in range(4)))
    with workshop.database.begin() as session:
        session.execute(
            sa.update(Image).where(Image.id == workshop.job(jobs[1]).image_id).values(rendition_sha256="0" * 64)
        )
        digest = session.scalar(sa.select(Image.rendition_sha256).where(Image.id == workshop.job(jobs[2]).image_id))
    workshop.store.put(rendition_key(digest), b"not these bytes")
    with workshop.detecting(batch_size=4, max_attempts=2, retry_backoff_s=0) as detect:
        detect.run()
        detect.run()  # what comes back at the very end waits for the next hint
    assert workshop.states(jobs) == ["succeeded", "failed", "failed", "succeeded"]
    assert [workshop.job(job_id).code for job_id in jobs] == [None, "object_missing", "object_corrupt", None]


@pytest.mark.usefixtures("tiny_model_id")
def test_a_device_out_of_memory_halves_the_batch_and_fails_nothing(workshop: Workshop) -> None:
    sizes: list[int] = []

    def hold_at_most_three(batch: Sequence[FittedImage]) -> None:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise DeviceOutOfMemory

    jobs = workshop.ready(*(grey_image(number) for number in range(24)))
    with workshop.detecting(hold_at_most_three, batch_size=8) as detect:
        detect.run()
    assert workshop.states(jobs) == ["succeeded"] * 24
    assert {workshop.job(job_id).attempt for job_id in jobs} == {1}
    # The second batch was claimed while the first was tried; from then on none is too large.
    assert sizes == [8, 4, 2, 2, 4, 2, 2] * 2 + [2] * 4


@pytest.mark.usefixtures("tiny_model_id")
def test_an_image_that_never_fits_in_memory_fails_under_that_code(workshop: Workshop) -> None:
    def exhaust(batch: Sequence[FittedImage]) -> None:
        if any(map(is_marked, batch)):
            raise DeviceOutOfMemory

    jobs = workshop.ready(MARKED, grey_image(1))
    with workshop.detecting(exhaust, batch_size=2, max_attempts=2, retry_backoff_s=0) as detect:
        detect.run()
        detect.run()  # what comes back at the very end waits for the next hint
    assert workshop.states(jobs) == ["failed", "succeeded"]
    assert workshop.job(jobs[0]).code == "device_out_of_memory"


@pytest.mark.usefixtures("tiny_model_id")
def test_a_job_cancelled_before_or_during_detection_has_no_result(workshop: Workshop) -> None:
    before, during, untouched = workshop.ready(grey_image(1), grey_image(2), grey_image(3))

    def cancel_one(job_id: UUID) -> None:
        with workshop.database.begin() as session:
            assert cancel(session, workshop.project_id, job_id)

    cancel_one(before)
    with workshop.detecting(once(lambda: cancel_one(during))) as detect:
        detect.run()
    assert workshop.states([before, during, untouched]) == ["cancelled", "cancelled", "succeeded"]
    assert [len(workshop.found(job_id)) for job_id in (before, during, untouched)] == [0, 0, 3]


@pytest.mark.usefixtures("tiny_model_id")
def test_leases_are_renewed_while_a_step_takes_longer_than_a_lease(workshop: Workshop) -> None:
    jobs = workshop.ready(*(grey_image(number) for number in range(4)))

    with workshop.detecting(once(lambda: workshop.sweep_until_renewed(jobs[0])), batch_size=2, lease_s=24) as detect:
        detect.run()
    assert workshop.states(jobs) == ["succeeded"] * 4
    assert [workshop.job(job_id).attempt for job_id in jobs] == [1] * 4


@pytest.mark.usefixtures("tiny_model_id")
def test_a_worker_that_lost_its_leases_drops_its_result(workshop: Workshop) -> None:
    """Time runs out behind its back, and another worker is quicker."""
    jobs = workshop.ready(grey_image(1), grey_image(2))

    def lose_and_be_overtaken() -> None:
        with workshop.database.begin() as session:
            session.execute(sa.update(Job).values(lease_expires_at="epoch"))
        with workshop.database.begin() as session:
            expire_leases(session, max_attempts=4)
        with workshop.detecting() as other:
            other.run()

    with workshop.detecting(once(lose_and_be_overtaken)) as late:
        late.run()
    assert workshop.states(jobs) == ["succeeded"] * 2
    assert [workshop.job(job_id).attempt for job_id in jobs] == [2, 2]
    assert [[row.rank for row in workshop.found(job_id)] for job_id in jobs] == [[0, 1, 2]] * 2


@pytest.mark.usefixtures("tiny_model_id")
def test_the_stop_flag_ends_it_after_this_batch_with_nothing_leased(workshop: Workshop) -> None:
    stop = threading.Event()
    jobs = workshop.ready(*(grey_image(number) for number in range(12)))
    with workshop.detecting(once(stop.set), stop, batch_size=2) as detect:
        detect.run()
    assert workshop.states(jobs) == ["succeeded"] * 2 + ["ready"] * 10
    assert [workshop.job(job_id).attempt for job_id in jobs[2:]] == [0] * 10


def test_a_change_of_model_takes_hold_between_two_batches(workshop: Workshop) -> None:
    detectors = {}
    for seed in (2, 1):
        model = make_tiny_model(seed)
        detectors[workshop.promote(*model)] = Detector(*model, device="cpu", precision="fp32")
    first, second = detectors

    def roll_back() -> None:
        with workshop.database.begin() as session:
            assert registry.roll_back(session).id == first

    jobs = workshop.ready(*(grey_image(number) for number in range(12)))
    (named,) = workshop.ready(grey_image(99), requested_model_id=second)
    with workshop.detecting(once(roll_back), batch_size=2) as detect:
        detect.run()
    under = [workshop.job(job_id).model_id for job_id in jobs]
    # The next batch was claimed while the first was on the device; all later ones know of the change.
    assert under[:2] == [second] * 2
    assert under[4:] == [first] * 8
    assert workshop.job(named).model_id == second
    for job_id, number in zip((*jobs, named), (*range(12), 99), strict=True):
        model_id, found = workshop.job(job_id).model_id, workshop.found(job_id)
        (expected,) = detectors[model_id].detect([detectors[model_id].fit_to_canvas(grey_image(number))])
        assert {row.model_id for row in found} == {model_id}
        assert [row.score for row in found] == pytest.approx(
            [detection.score for detection in expected.detections], abs=1e-4
        )


def test_a_model_whose_weights_are_gone_fails_only_the_jobs_that_name_it(
    workshop: Workshop, tiny_model_id: UUID
) -> None:
    card, weights = make_tiny_model(3)
    with workshop.database.begin() as session:
        broken = registry.register(session, workshop.store, card, weights).id
    workshop.store.put(weights_key(card.weights_sha256), b"not these bytes")
    (lost,) = workshop.ready(grey_image(1), requested_model_id=broken)
    (fine,) = workshop.ready(grey_image(2))
    with workshop.detecting(max_attempts=2, retry_backoff_s=0) as detect:
        detect.run()
        detect.run()  # what comes back at the very end waits for the next hint
    assert workshop.states([lost, fine]) == ["failed", "succeeded"]
    assert workshop.job(lost).code == ModelUnusable.code
    assert workshop.job(fine).model_id == tiny_model_id


def test_an_image_has_one_result_under_a_model(workshop: Workshop, tiny_model_id: UUID) -> None:
    """Sent twice, once naming the model that is active anyway: in one batch, in two, and after the other's end."""
    jobs = workshop.ready(*(grey_image(number) for number in range(4)))
    twins = []
    with workshop.database.begin() as session:
        for job_id in jobs:
            job = session.get_one(Job, job_id)
            twin = Job(project_id=job.project_id, image_id=job.image_id, study_id=job.study_id, state="ready")
            session.add(twin)
            session.flush()
            twins.append(twin.id)
        session.get_one(Job, twins[1]).requested_model_id = tiny_model_id
        session.get_one(Job, twins[2]).available_at = sa.func.now() + sa.text("interval '1 hour'")
    with workshop.detecting() as detect:
        detect.run()
        workshop.set(twins[2], available_at="epoch")
        detect.run()
    assert workshop.states(jobs) == ["succeeded"] * 4
    assert [len(workshop.found(job_id)) for job_id in jobs] == [3] * 4
    assert [len(workshop.found(job_id)) for job_id in twins] == [0] * 4
    assert workshop.states(twins) == ["cancelled"] * 4
    assert {workshop.job(job_id).code for job_id in twins} == {"duplicate"}


@pytest.mark.usefixtures("tiny_model_id")
def test_an_outage_of_the_object_store_costs_no_attempt(workshop: Workshop) -> None:
    jobs = workshop.ready(grey_image(1), grey_image(2))
    with workshop.detecting(s3_endpoint_url="http://127.0.0.1:9", max_attempts=1, retry_backoff_s=3600) as cut_off:
        cut_off.run()
    assert workshop.states(jobs) == ["ready"] * 2
    assert [workshop.job(job_id).attempt for job_id in jobs] == [0, 0]
    for job_id in jobs:
        workshop.set(job_id, available_at="epoch")
    with workshop.detecting(max_attempts=1) as detect:
        detect.run()
    assert workshop.states(jobs) == ["succeeded"] * 2


@pytest.mark.usefixtures("tiny_model_id")
def test_what_a_worker_did_is_counted(workshop: Workshop, tiny_model_id: UUID) -> None:
    workshop.ready(*(grey_image(number) for number in range(5)))
    with workshop.detecting(batch_size=2) as detect:
        detect.run()
    with workshop.database.begin() as session:
        worker = session.scalars(sa.select(Worker)).one()
        assert (worker.batches, worker.images, worker.model_id) == (3, 5, tiny_model_id)
        assert worker.step_s > 0
        assert worker.stopped_at is not None


HANGING = """
import time
from shared.database import Database
from shared.object_store import ObjectStore
from shared.queue.hints import Hints
from shared.settings import Settings
from tests.integration import workshop as shop

settings = Settings()
database = Database.from_settings(settings)
workshop = object.__new__(shop.Workshop)
workshop.settings, workshop.database, workshop.store = settings, database, ObjectStore(settings)
hang = lambda batch: any(map(shop.is_marked, batch)) and time.sleep(600)
with workshop.detecting(hang) as detect:
    detect.run()
"""


@pytest.mark.usefixtures("tiny_model_id")
def test_a_step_that_hangs_ends_the_process_and_another_does_its_jobs(
    workshop: Workshop, environ: dict[str, str]
) -> None:
    jobs = workshop.ready(grey_image(1), MARKED, grey_image(2))
    limits = {"CARINA_LEASE_S": "1", "CARINA_STEP_TIMEOUT_S": "2"}
    hanging = subprocess.run(
        [sys.executable, "-c", HANGING],
        env={**os.environ, **environ, **limits},
        cwd=REPOSITORY,
        check=False,
        timeout=DEADLINE_S,
    )
    assert hanging.returncode == EXIT_STUCK
    assert workshop.states(jobs) == ["detecting"] * 3
    for job_id in jobs:
        workshop.set(job_id, lease_expires_at="epoch")
    sweep(workshop.settings, workshop.database, workshop.hints, "beat")
    batches: list[int] = []
    with workshop.detecting(lambda batch: batches.append(len(batch))) as detect:
        detect.run()
    assert workshop.states(jobs) == ["succeeded"] * 3
    # Each may have been what hung, so none is tried in company again.
    assert batches == [1, 1, 1]
