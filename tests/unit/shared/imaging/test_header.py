"""Headers: what intake learns of a file, and what it refuses, without decoding a pixel."""

import logging
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
)

from shared.errors import ImageTooLarge, PermanentError
from shared.imaging.header import PREFIX_BYTES, ImageHeader, read_header
from shared.imaging.rendition import make_rendition
from tests.requirements import REPOSITORY
from tests.synthetic_dicom import MAX_PIXELS, make_dicom, make_image

IMAGE = make_image()
SYNTAXES = ["1.2.840.10008.1.2.1", ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def read(data: bytes) -> ImageHeader:
    return read_header(data[:PREFIX_BYTES], len(data), max_image_pixels=MAX_PIXELS)


def code_of(data: bytes) -> str:
    with pytest.raises(PermanentError) as caught:
        read(data)
    return caught.value.code


def make_picture(mode: str, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    Image.new(mode, (80, 96)).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_dicom_header_says_size_and_identity(syntax: str) -> None:
    header = read(make_dicom(IMAGE, syntax=syntax, SeriesInstanceUID="1.2.3.1", Modality="DX", BurnedInAnnotation="NO"))
    image = DigitalXRayImageStorageForPresentation
    uids = ("1.2.3", "1.2.3.4", syntax, "1.2.3.1", image)
    assert header == ImageHeader("application/dicom", 96, 80, *uids, modality="DX", burned_in_annotation=False)


@pytest.mark.parametrize("syntax", SYNTAXES[:3])
@pytest.mark.parametrize("kept_bytes", [0, 1])
def test_a_file_without_preamble_and_file_meta_is_read(syntax: str, kept_bytes: int) -> None:
    data = make_dicom(IMAGE, syntax=syntax)
    (meta_bytes,) = struct.unpack_from("<I", data, 140)
    header = read(data[144 + meta_bytes - kept_bytes :])  # a byte may be left of the file meta's padding
    assert (header.height_px, header.width_px, header.transfer_syntax_uid) == (96, 80, syntax)


def test_a_prefix_that_ends_in_the_pixel_data_is_enough() -> None:
    data = make_dicom(IMAGE)
    assert read_header(data[:2000], len(data)) == read(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_has_size_and_type_and_no_identity(kind: str) -> None:
    assert read(make_picture("L", kind)) == ImageHeader(f"image/{kind.lower()}", 96, 80, None, None, None)


def test_a_jpeg_on_its_side_counts_as_it_is_shown() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    header = read(make_picture("L", "JPEG", exif=exif))
    assert (header.height_px, header.width_px) == (80, 96)


@pytest.mark.parametrize("uid", ["", "1.2.3/../4", "9" * 65])
def test_a_uid_that_cannot_be_a_key_counts_as_absent(uid: str) -> None:
    assert read(make_dicom(IMAGE, StudyInstanceUID=uid)).study_instance_uid is None


@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("empty_file", b""),
        ("unsupported_file_type", b"GIF89a" + bytes(200)),
        ("unsupported_file_type", b"\0" * 4096),
        ("not_an_image", make_dicom(IMAGE, Rows=None)),
        ("not_an_image", make_dicom(IMAGE, Columns=0)),
        ("not_an_image", make_dicom(IMAGE)[: -IMAGE.nbytes - 12]),
        ("multi_frame", make_dicom(IMAGE, NumberOfFrames=2)),
        ("colour_image", make_dicom(IMAGE, SamplesPerPixel=3, PhotometricInterpretation="RGB")),
        ("colour_image", make_dicom(IMAGE, PhotometricInterpretation="PALETTE COLOR")),
        ("colour_image", make_picture("CMYK", "JPEG")),
        ("unsupported_transfer_syntax", make_dicom(IMAGE, syntax=MPEG2MPML, frame=b"\0\0\1\xb3")),
        ("image_too_small", make_dicom(IMAGE[:40])),
        ("image_too_large", make_dicom(IMAGE, Rows=65535, Columns=65535)),
        ("undecodable_pixel_data", make_picture("L", "PNG")[:20]),
        ("undecodable_pixel_data", make_picture("L", "JPEG")[:20]),
        ("malformed_dicom", make_dicom(IMAGE)[:131] + b"M" + b"\xff" * 300),
        ("malformed_dicom", make_dicom(IMAGE, syntax=DeflatedExplicitVRLittleEndian)[:400] + b"\xff" * 300),
    ],
)
def test_an_unfit_file_is_refused_under_its_code(code: str, data: bytes) -> None:
    assert code_of(data) == code


def test_a_image_of_four_billion_pixels_in_ten_bytes_is_refused_before_any_decode() -> None:
    data = make_dicom(IMAGE, syntax=JPEGLosslessSV1, frame=b"\xff\xd8\xff\xd9", Rows=65535, Columns=65535)
    with pytest.raises(ImageTooLarge):
        make_rendition(data, rendition_px=256, max_image_pixels=MAX_PIXELS)
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 65535, 65535, 8, 0, 0, 0, 0)
    png += struct.pack(">I", zlib.crc32(png[12:])) + b"\0\0\0\0IDAT"
    with pytest.raises(ImageTooLarge):
        make_rendition(png, rendition_px=256, max_image_pixels=MAX_PIXELS)


def test_a_deflated_bomb_is_inflated_no_further_than_its_bound() -> None:
    data = make_dicom(IMAGE, syntax=DeflatedExplicitVRLittleEndian)
    (meta_bytes,) = struct.unpack_from("<I", data, 140)
    bomb = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    head = b"\x08\x00\x18\x00UI\x08\x001.2.3.4\0" + b"\x09\x00\x01\x00OB\0\0" + struct.pack("<I", 200 * 2**20)
    data = data[: 144 + meta_bytes] + bomb.compress(head + bytes(200 * 2**20)) + bomb.flush()
    tracemalloc.start()
    try:
        assert code_of(data) == "not_an_image"
        assert tracemalloc.get_traced_memory()[1] < 5 * PREFIX_BYTES
    finally:
        tracemalloc.stop()


def test_neither_a_warning_nor_a_log_line_quotes_an_element(caplog: pytest.LogCaptureFixture) -> None:
    data = make_dicom(IMAGE, WindowCenter=40, WindowWidth=400).replace(b"1.2.3.4\0", b"Secret^P")
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        read(data)
        code = code_of(data.replace(b"\x28\x00\x10\x00US", b"\x28\x00\x10\x00IS"))
    assert code == "malformed_dicom"
    assert not caught
    assert not caplog.records


def test_header_and_overlay_need_neither_decoders_nor_torch() -> None:
    program = (
        "import sys\n"
        "for name in ('imagecodecs', 'pylibjpeg', 'openjpeg', 'libjpeg', 'rle', 'gdcm', 'torch', 'torchvision'):\n"
        "    sys.modules[name] = None\n"
        "import shared.imaging.header, shared.imaging.overlay\n"
        "from shared.imaging.rendition import read_rendition\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=REPOSITORY)


MUTANTS = [make_dicom(make_image(64, 64), syntax=syntax, WindowCenter="2000", WindowWidth="900") for syntax in SYNTAXES]
MUTANTS += [make_picture("L", "PNG"), make_picture("L", "JPEG")]


@settings(max_examples=400)
@given(
    st.sampled_from(MUTANTS),
    st.lists(st.tuples(st.integers(0, 1200), st.binary(max_size=4), st.integers(0, 8)), min_size=1, max_size=8),
)
def test_a_mutated_file_raises_only_our_errors(data: bytes, changes: list[tuple[int, bytes, int]]) -> None:
    for position, inserted, removed in changes:
        data = data[:position] + inserted + data[position + removed :]
    with suppress(PermanentError):
        header = read(data)
        rendition = make_rendition(data, rendition_px=64, max_image_pixels=MAX_PIXELS)
        assert (header.height_px, header.width_px) == (rendition.original_height_px, rendition.original_width_px)
