"""Every format of findings that the contract names is written by the server."""

from api.contract.findings import FindingsFormat
from api.studies.findings_formats import FORMATS


def test_every_format_has_a_writer() -> None:
    assert set(FORMATS) == set(FindingsFormat)
