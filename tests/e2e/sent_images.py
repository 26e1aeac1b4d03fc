"""Images that a stack is sent, and that each of them has one result, the right one, whatever happened meanwhile."""

import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
import pytest
import sqlalchemy as sa

from shared.detector.runtime import Detection, Detector
from shared.imaging.rendition import make_rendition, read_rendition
from shared.tables import Detection as DetectionRow
from shared.tables import Image, Job, Study
from shared.vocabulary.states import JobState
from tests.synthetic_dicom import make_dicom, make_image
from tests.tiny_model import make_tiny_model

if TYPE_CHECKING:
    from tests.e2e.conftest import Process, Stack

HEIGHT_PX, WIDTH_PX = 256, 220
BOXES_A_IMAGE = 3
#: So many jobs of a test, at most, have their boxes compared: that takes longer than finding them.
LOOKED_AT = 24


class ImageSender:
    """Images that no other test has sent, and what the active model finds on them."""

    def __init__(self, folder: Path, stack: "Stack") -> None:
        self._folder, self._stack, self._count = folder, stack, 0
        self.models = {
            stack.promote(*model): Detector(*model, "cpu", "fp32") for model in (make_tiny_model(1), make_tiny_model(2))
        }

    def make(self, count: int) -> dict[str, Path]:
        """Write images; return their paths by name."""
        made = {}
        base = make_image(HEIGHT_PX, WIDTH_PX)
        for _ in range(count):
            self._count += 1
            pixels = np.roll(base, 5 * self._count, axis=self._count % 2)
            pixels[: self._count % 97 + 20, : self._count % 89 + 20] //= 3
            uid = f"1.2.3.{os.getpid()}.{self._count}"
            path = self._folder / f"{self._count}.dcm"
            uids = {"SOPInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1", "StudyInstanceUID": uid}
            path.write_bytes(make_dicom(pixels, bits=12, **uids))
            made[path.name] = path
        return made

    def send(self, count: int) -> dict[UUID, Path]:
        """Submit new images; return their paths by job."""
        paths = self.make(count)
        outcomes = self._stack.client.submit(paths.values())
        assert [outcome.outcome for outcome in outcomes] == ["accepted"] * count
        return {outcome.job_id: paths[outcome.name] for outcome in outcomes if outcome.job_id}

    def expect(self, path: Path, model_id: UUID) -> tuple[Detection, ...]:
        """What an undisturbed run finds."""
        settings = self._stack.settings
        rendition = make_rendition(
            path.read_bytes(), rendition_px=settings.rendition_px, max_image_pixels=settings.max_image_pixels
        )
        detector = self.models[model_id]
        (found,) = detector.detect([detector.fit_to_canvas(read_rendition(rendition.png))])
        return found.detections


def assert_undisturbed(stack: "Stack", sender: ImageSender, sent: dict[UUID, Path]) -> None:
    """Every job succeeded once, with the right boxes of its model, and nothing is left behind."""
    states: list[str] = []

    def all_final() -> bool:
        states[:] = [row.state for row in stack.query(sa.select(Job.state).where(Job.id.in_(sent)))]
        return all(JobState(state).is_final for state in states)

    stack.until(all_final, pause_s=0.2)
    assert states == ["succeeded"] * len(sent)
    count = sa.select(sa.func.count()).select_from(DetectionRow).where(DetectionRow.job_id.in_(sent))
    assert stack.query(count)[0][0] == BOXES_A_IMAGE * len(sent)
    for job_id, path in random.Random(0).sample(sorted(sent.items()), min(LOOKED_AT, len(sent))):
        (job,) = stack.query(sa.select(Job.model_id, Job.lease_owner).where(Job.id == job_id))
        assert job.lease_owner is None
        found = sa.select(DetectionRow).where(DetectionRow.job_id == job_id).order_by(DetectionRow.rank)
        with stack.database.begin() as session:
            rows = [
                (row.model_id, row.class_id, row.score, (row.x_min_px, row.y_min_px, row.x_max_px, row.y_max_px))
                for row in session.scalars(found)
            ]
        expected = sender.expect(path, job.model_id)
        assert [(model_id, class_id) for model_id, class_id, *_ in rows] == [
            (job.model_id, detection.category_id) for detection in expected
        ]
        for (*_, score, box), detection in zip(rows, expected, strict=True):
            assert score == pytest.approx(detection.score, abs=1e-4)
            assert box == pytest.approx(detection.box_xyxy_px, abs=0.1)
    assert leased(stack) == []
    assert stack.query(sa.select(Image.id).where(~sa.exists().where(Job.image_id == Image.id))) == []
    assert stack.query(sa.select(Study.id).where(~sa.exists().where(Image.study_id == Study.id))) == []


def leased(stack: "Stack") -> list:
    held = sa.or_(Job.lease_owner.is_not(None), Job.state.in_((JobState.PREPARING, JobState.DETECTING)))
    return stack.query(sa.select(Job.id).where(held))


def await_state(stack: "Stack", sent: dict[UUID, Path], state: JobState, least: int = 1) -> None:
    """Wait until so many of the jobs are in that state at once."""
    count = sa.select(sa.func.count()).where(Job.id.in_(sent), Job.state == state)
    stack.until(lambda: stack.query(count)[0][0] >= least, pause_s=0.005)


def unfinished(stack: "Stack", sent: dict[UUID, Path]) -> int:
    open_states = [state for state in JobState if not state.is_final]
    count = sa.select(sa.func.count()).where(Job.id.in_(sent), Job.state.in_(open_states))
    return int(stack.query(count)[0][0])


def freeze_in_mid_batch(
    stack: "Stack", sender: ImageSender, kind: str, draw: random.Random
) -> tuple["Process", dict[UUID, Path]]:
    """Stop a worker at some moment at which it holds jobs; return it and the images that were sent for this."""
    worker = stack.find(draw.choice(stack.named(kind)))
    held = sa.select(sa.func.count()).where(Job.lease_owner.contains(f":{worker.pid}:"))
    sent: dict[UUID, Path] = {}
    while True:
        if not sent or unfinished(stack, sent) == 0:  # others may have done all of them
            sent |= sender.send(32)
        if stack.query(held)[0][0] > 0:
            time.sleep(draw.uniform(0, 0.05))
            worker.signal(signal.SIGSTOP)
            if stack.query(held)[0][0] > 0:
                return worker, sent
            worker.signal(signal.SIGCONT)
        time.sleep(0.005)
