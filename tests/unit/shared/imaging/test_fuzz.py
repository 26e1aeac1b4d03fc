"""A few of the files that `make fuzz-files` makes by the hundred thousand, always the same ones."""

import signal
from collections.abc import Iterator

import pytest

from tests.fuzz.__main__ import run_cases
from tests.fuzz.corpus import read_corpus
from tests.fuzz.mutation import make_case

CASES = 1500
#: Of every way, and of files that are damaged beyond recognition and that are not.
EXPECTED = {
    ("header", "ok"),
    ("header", "malformed_dicom"),
    ("header", "not_an_image"),
    ("header", "image_too_large"),
    ("header", "unsupported_file_type"),
    ("metadata", "ok"),
    ("deidentify", "ok"),
    ("render", "ok"),
    ("render", "undecodable_pixel_data"),
}


@pytest.fixture(autouse=True)
def _signal() -> Iterator[None]:
    before = signal.getsignal(signal.SIGVTALRM)
    yield
    signal.signal(signal.SIGVTALRM, before)


def test_a_case_is_made_from_its_number_alone() -> None:
    corpus = read_corpus()
    first, again = ([make_case(number, 7, corpus) for number in range(200)] for _ in range(2))
    assert first == again
    originals = {original.name: original.data for original in corpus}
    assert sum(case.data == originals[case.original] for case in first) < 40


def test_hostile_files_are_refused_and_harm_no_process() -> None:
    report = run_cases(range(CASES), seed=0)
    assert report.findings == []
    assert report.cases == CASES
    assert set(report.outcomes) >= EXPECTED
    assert report.decoder_rss_bytes < 512 * 1024**2
