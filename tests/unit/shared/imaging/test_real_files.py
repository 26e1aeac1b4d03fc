"""Real DICOM files, ordinary and odd."""

import numpy as np
import pytest
from pydicom import dcmread

from shared.errors import PermanentError
from shared.imaging.decode import decode_dicom
from shared.imaging.header import PREFIX_BYTES, read_header
from shared.imaging.rendition import make_rendition, read_rendition
from tests.expected_outcomes import EXPECTED_OUTCOMES
from tests.requirements import SHARED_DATA
from tests.synthetic_dicom import MAX_PIXELS

pytestmark = pytest.mark.needs("shared/data")


def leg(syntax: str) -> bytes:
    return (SHARED_DATA / f"dicom/other/wg04_RG3_{syntax}.dcm").read_bytes()


def test_every_file_has_an_expected_outcome() -> None:
    assert {str(path.relative_to(SHARED_DATA)) for path in SHARED_DATA.glob("dicom/*/*.dcm")} == set(EXPECTED_OUTCOMES)


@pytest.mark.parametrize("name", EXPECTED_OUTCOMES)
def test_a_real_file_is_rendered_or_rejected_as_expected(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = (SHARED_DATA / name).read_bytes()
    try:
        rendition = make_rendition(data, rendition_px=256, max_image_pixels=MAX_PIXELS)
    except PermanentError as error:
        outcome = error.code
    else:
        outcome = "ok"
        header = read_header(data[:PREFIX_BYTES], len(data))
        assert (header.height_px, header.width_px) == (rendition.original_height_px, rendition.original_width_px)
        assert max(rendition.height_px, rendition.width_px) == min(256, max(header.height_px, header.width_px))
        assert read_rendition(rendition.png).std() > 10
    assert outcome == EXPECTED_OUTCOMES[name]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", EXPECTED_OUTCOMES)
def test_intake_refuses_from_the_header_whatever_needs_no_decoding(name: str) -> None:
    data = (SHARED_DATA / name).read_bytes()
    if EXPECTED_OUTCOMES[name] in ("ok", "undecodable_pixel_data"):
        header = read_header(data[:65536], len(data))
        assert header.media_type == "application/dicom"
        assert header.transfer_syntax_uid is not None
    else:
        with pytest.raises(PermanentError) as caught:
            read_header(data[:65536], len(data))
        assert caught.value.code == EXPECTED_OUTCOMES[name]


@pytest.mark.parametrize("syntax", ["J2KR", "JLSL", "JPLL", "RLE"])
def test_lossless_syntaxes_decode_to_the_uncompressed_pixels(syntax: str) -> None:
    reference = decode_dicom(leg("UNC"), MAX_PIXELS).pixels
    assert np.array_equal(reference, dcmread(SHARED_DATA / "dicom/other/wg04_RG3_UNC.dcm").pixel_array)
    assert np.array_equal(decode_dicom(leg(syntax), MAX_PIXELS).pixels, reference)


@pytest.mark.parametrize(("syntax", "levels"), [("J2KI", 10), ("JLSN", 4), ("JPLY", 50)])
def test_lossy_syntaxes_stay_close_to_the_uncompressed_pixels(syntax: str, levels: int) -> None:
    reference = decode_dicom(leg("UNC"), MAX_PIXELS).pixels.astype(int)
    assert np.abs(decode_dicom(leg(syntax), MAX_PIXELS).pixels.astype(int) - reference).max() <= levels


@pytest.mark.parametrize("syntax", ["J2KI", "J2KR", "JLSL", "JLSN", "JPLL", "JPLY", "RLE", "UNC"])
@pytest.mark.parametrize("missing_bytes", [20_000, 200])
def test_a_file_that_was_cut_off_is_never_shown(syntax: str, missing_bytes: int) -> None:
    with pytest.raises(PermanentError) as caught:
        decode_dicom(leg(syntax)[:-missing_bytes], MAX_PIXELS)
    assert caught.value.code == "undecodable_pixel_data"


@pytest.mark.parametrize("name", [name for name in EXPECTED_OUTCOMES if "/chest/" in name and "fake" not in name])
def test_the_mediastinum_of_a_chest_image_is_brighter_than_its_lungs(name: str) -> None:
    data = (SHARED_DATA / name).read_bytes()
    image = read_rendition(make_rendition(data, rendition_px=256, max_image_pixels=MAX_PIXELS).png)
    height_px, width_px = image.shape
    band = image[int(0.35 * height_px) : int(0.55 * height_px)].mean(axis=0)  # [W], across the hila
    middle = band[int(0.45 * width_px) : int(0.58 * width_px)].mean()
    right_lung = band[int(0.2 * width_px) : int(0.35 * width_px)].mean()
    assert middle > right_lung + 15
