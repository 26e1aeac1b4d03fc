"""The intake worker in this process, on real servers."""

import pytest

from shared.database import Database
from shared.queue.hints import Hints
from shared.settings import Settings
from tests.integration.submitting import Desk
from tests.integration.workshop import dicom

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def desk(settings: Settings, database: Database, hints: Hints) -> Desk:
    return Desk(settings, database, hints)


def test_what_was_uploaded_has_an_image_and_a_job_and_no_longer_lies_in_the_way(desk: Desk) -> None:
    submission_id = desk.submit(dicom(1), dicom(2), dicom(1))
    desk.receive(intake_threads=1)
    assert desk.outcomes(submission_id) == ["accepted", "accepted", "duplicate"]
    first, second, third = desk.files(submission_id)
    assert third.image_id == first.image_id != second.image_id
    assert first.job_id is not None
    assert desk.counts() == (2, 2)
    assert desk.keys("incoming/") == []
    assert len(desk.keys("originals/")) == 2
