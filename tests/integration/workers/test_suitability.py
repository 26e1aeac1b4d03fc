"""What becomes of a doubtful image under each setting, from its file to its rows."""

import numpy as np

from shared.phantoms import make_phantom
from shared.tables import Image
from shared.vocabulary.flags import Flag
from tests.integration.workshop import Workshop
from tests.synthetic_dicom import make_dicom

CHEST = np.rint(255 * make_phantom(31, 560, 520).pixels).astype(np.uint8)
GOOD = make_dicom(CHEST, SOPInstanceUID="1.2.1")
LATERAL = make_dicom(CHEST, SOPInstanceUID="1.2.2", ViewPosition="LL")
LYING = make_dicom(np.ascontiguousarray(np.rot90(CHEST)), SOPInstanceUID="1.2.3")
NEGATIVE = make_dicom(255 - CHEST, SOPInstanceUID="1.2.4")
COARSE = make_dicom(np.ascontiguousarray(CHEST[::2, ::2]), SOPInstanceUID="1.2.5")
FILES = (GOOD, LATERAL, LYING, NEGATIVE, COARSE)


def prepared(workshop: Workshop, suitability: str) -> tuple[list[tuple[str, str | None]], list[list[str] | None]]:
    """Each job's state and code, and each image's flags."""
    jobs = [workshop.job(job_id) for job_id in workshop.queue(*FILES)]
    with workshop.preparing(suitability=suitability) as prepare:
        prepare.run()
    with workshop.database.begin() as session:
        images = [session.get_one(Image, job.image_id) for job in jobs]
        assert all(image.rendition_sha256 and image.chest_scores for image in images)
        flags = [image.flags for image in images]
    return [(job.state, job.code) for job in map(workshop.job, (job.id for job in jobs))], flags


def test_by_default_flags_are_kept_beside_the_result(workshop: Workshop) -> None:
    assert workshop.settings.suitability == "flag"
    jobs, flags = prepared(workshop, "flag")
    assert jobs == [("ready", None)] * 5
    assert flags == [[], ["lateral_view"], ["rotated"], ["suspected_inversion"], ["low_resolution"]]


def test_what_is_no_usable_frontal_image_may_be_rejected_and_still_says_why(workshop: Workshop) -> None:
    jobs, flags = prepared(workshop, "reject")
    assert jobs == [
        ("ready", None),
        ("rejected", "lateral_view"),
        ("rejected", "rotated"),
        ("ready", None),
        ("ready", None),
    ]
    assert flags == [[], ["lateral_view"], ["rotated"], ["suspected_inversion"], ["low_resolution"]]


def test_with_the_gate_off_a_suspected_inversion_is_still_said(workshop: Workshop) -> None:
    jobs, flags = prepared(workshop, "off")
    assert jobs == [("ready", None)] * 5
    assert flags == [[], [], [], ["suspected_inversion"], []]


def test_a_rejection_is_the_first_reason_and_comes_with_a_sentence(workshop: Workshop) -> None:
    (job_id,) = workshop.queue(make_dicom(CHEST, Modality="CT", BodyPartExamined="HEAD"))
    with workshop.preparing(suitability="reject") as prepare:
        prepare.run()
    job = workshop.job(job_id)
    assert (job.state, job.code, job.attempt) == ("rejected", "not_a_radiograph", 1)
    assert job.reason == "The image is not a radiograph: its header names another kind of device."


def test_every_flag_has_words_and_those_of_uncertain_findings_never_reject() -> None:
    assert all(flag.label and flag.meaning.endswith(".") for flag in Flag)
    assert len({flag.label for flag in Flag}) == len(Flag)
    assert {flag for flag in Flag if not flag.rejects} == {
        Flag.SUSPECTED_INVERSION,
        Flag.LOW_RESOLUTION,
        Flag.IRREGULAR_FILE,
    }
