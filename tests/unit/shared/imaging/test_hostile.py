"""Files that were made to cost time or memory: each is refused, or read, for about what an ordinary one costs."""

import json
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import imagecodecs
import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from api.dicom.web.dicom_json import from_dataset
from api.dicom.web.frames import frame_of
from shared.deidentification import deidentify
from shared.errors import MalformedDicom, PermanentError, UndecodablePixelData
from shared.imaging.dicom_file import read_dicom
from shared.imaging.header import PREFIX_BYTES, read_header
from shared.imaging.rendition import make_rendition
from shared.imaging.transfer_syntaxes import DEFLATED_FRAME
from tests.fuzz.memory import forget_peak, peak_rss_bytes
from tests.hostile import FILLING, HEADERS, IMAGE, PICTURES, deflate_bomb, element, insert, jpeg, nested, png
from tests.requirements import REPOSITORY
from tests.synthetic_dicom import MAX_PIXELS, make_dicom, make_image

#: Of processor time. Each takes half a second alone, and several in the process of a long run, where each garbage
#: collection walks the objects of all the tests before; a step whose cost grows as the square takes hours.
MAX_S = 60.0


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """End a test that parses for too long, whatever it is that it hangs in."""

    def expire(_: int, __: FrameType | None) -> None:
        pytest.fail("It took too long.")

    before = signal.signal(signal.SIGVTALRM, expire)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


@contextmanager
def within(seconds: float = MAX_S) -> Iterator[None]:
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def read_prefix(data: bytes) -> object:
    return read_header(data[:PREFIX_BYTES], len(data), max_image_pixels=MAX_PIXELS)


def describe(data: bytes) -> object:
    file = read_dicom(data[:PREFIX_BYTES], max_bytes=PREFIX_BYTES, kept=None)
    return from_dataset(file.dataset)


def clean(data: bytes) -> object:
    return deidentify(data, b"key", max_bytes=4 * MAX_PIXELS)


def render(data: bytes) -> object:
    return make_rendition(data, rendition_px=64, max_image_pixels=MAX_PIXELS)


def outcome(step: Callable[[bytes], object], data: bytes) -> str:
    with within():
        try:
            step(data)
        except PermanentError as error:
            return error.code
    return "ok"


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_goes_on_for_ever_costs_little(name: str) -> None:
    data = HEADERS[name]()
    refused = {"malformed_dicom", "undecodable_pixel_data", "not_deidentifiable", "not_an_image"}
    assert {outcome(step, data) for step in (read_prefix, describe, clean)} <= refused | {"ok"}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_that_goes_on_for_ever_costs_little(name: str) -> None:
    data = PICTURES[name]()
    refused = {"undecodable_pixel_data", "image_too_large"}
    assert {outcome(step, data) for step in (read_prefix, render, clean)} <= refused | {"ok"}


def test_no_header_costs_much_memory(tmp_path: Path) -> None:
    for name in ("a million elements", "a million items in a table", "a hundred levels of eight megabytes"):
        (tmp_path / name).write_bytes(HEADERS[name]()[:PREFIX_BYTES])
    program = (
        "import json, sys\n"
        "from contextlib import suppress\n"
        "from pathlib import Path\n"
        "from shared.errors import CarinaError\n"
        "from tests.unit.shared.imaging.test_hostile import describe, read_prefix\n"
        "from tests.fuzz.memory import peak_rss_bytes\n"
        "before = peak_rss_bytes()\n"
        "for path in Path(sys.argv[1]).iterdir():\n"
        "    for step in (read_prefix, describe):\n"
        "        with suppress(CarinaError):\n"
        "            step(path.read_bytes())\n"
        "print(json.dumps(peak_rss_bytes() - before))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    grown_bytes = json.loads(subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, check=True).stdout)
    assert 8 * 1024**2 < grown_bytes < 96 * 1024**2  # at least the file itself


def test_sequences_are_read_as_deep_as_any_radiograph_has_them() -> None:
    data = insert(IMAGE, nested(8, element(0x00283002, "US", struct.pack("<3H", 1, 0, 8))), 0x7FE00010)
    assert read_prefix(data)
    item = read_dicom(data, max_bytes=PREFIX_BYTES).dataset
    for _ in range(8):
        (item,) = item.VOILUTSequence
    assert item.LUTDescriptor == [1, 0, 8]


def test_a_damaged_sequence_costs_the_metadata_no_other_element() -> None:
    data = insert(IMAGE, element(0x00081140, "SQ", b"no items at all "), 0x00100010)
    described = describe(data)
    assert isinstance(described, dict)
    assert "00081140" not in described
    assert described["00280010"]["Value"] == [96]


def test_a_damaged_table_is_no_missing_table() -> None:
    with pytest.raises(MalformedDicom):
        render(insert(IMAGE, element(0x00283010, "SQ", b"no items at all "), 0x7FE00010))


@pytest.mark.parametrize("name", [b"", b"ISO_IR 100", b"\\ISO 2022 IR 87", b"utf8", b"ISO-IR 100", b"nobody knows"])
def test_a_patients_name_is_read_in_every_character_set_that_is_known(name: bytes) -> None:
    data = insert(IMAGE, element(0x00080005, "CS", name), 0x00080016)
    described = describe(data)
    assert isinstance(described, dict)
    assert described["00100010"]["Value"] == [{"Alphabetic": "Secret^Patient"}]


def test_pixels_may_come_after_what_is_read_at_first() -> None:
    filling = element(0x7FDF1001, "OB", bytes(PREFIX_BYTES))
    data = insert(IMAGE, filling, 0x7FE00010)
    assert read_prefix(data)
    assert render(data) == render(IMAGE)


def test_a_size_may_not_come_after_what_is_read_at_first() -> None:
    with pytest.raises(PermanentError, match="first 8 MiB") as caught:
        read_prefix(insert(IMAGE, element(0x00091001, "OB", bytes(PREFIX_BYTES))))
    assert caught.value.code == "not_an_image"


def test_a_deflated_data_set_is_inflated_no_further_than_an_image_goes() -> None:
    bomb = deflate_bomb(300 * 1024**2)
    assert len(bomb) < 2 * 1024**2
    forget_peak()
    before = peak_rss_bytes()
    with within(10), pytest.raises(PermanentError) as caught:
        make_rendition(bomb, rendition_px=64, max_image_pixels=10**6)
    assert caught.value.code == "not_an_image"
    assert peak_rss_bytes() - before < 64 * 1024**2


@pytest.mark.parametrize("syntax", [RLELossless, DEFLATED_FRAME])
def test_a_frame_unpacks_to_no_more_than_its_image(syntax: str) -> None:
    image = make_image().astype(np.uint8)
    if syntax == RLELossless:
        frame = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 5_000_000
    else:
        deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
        frame = deflater.compress(bytes(150_000_000)) + deflater.flush()
    with within(10), pytest.raises(UndecodablePixelData):
        render(make_dicom(image, syntax=syntax, frame=frame))


def test_scans_without_number_are_no_jpeg() -> None:
    data = jpeg(progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert render(data)
    with within(), pytest.raises(UndecodablePixelData):
        render(data[:-2] + scan * 100_000 + data[-2:])
    frame = data[:-2] + scan * 100_000 + data[-2:]
    with within(), pytest.raises(UndecodablePixelData):
        render(make_dicom(np.zeros((96, 80), np.uint8), syntax=JPEGBaseline8Bit, frame=frame))


def test_rows_beyond_a_png_are_not_kept() -> None:
    with within(), pytest.raises(UndecodablePixelData):
        render(png(height_px=7000, width_px=9000, rows=bytes(300)))
    assert render(png(rows=bytes(40_000_000)))


def _jpeg_2000(
    side_px: int, tile_px: int, *, levels: int = 5, layers: int = 1, block: int = 4, precinct: int = 0
) -> bytes:
    """A codestream of one empty packet; `block` and `precinct` are powers of 2, 0 the largest there is."""
    size = struct.pack(">HHIIIIIIIIH3B", 41, 0, side_px, side_px, 0, 0, tile_px, tile_px, 0, 0, 1, 15, 1, 1)
    style = struct.pack(">BBHBBBBBB", int(precinct > 0), 0, layers, 0, levels, block - 2, block - 2, 0, 1)
    style += bytes([precinct * 0x11] * (levels + 1) if precinct else [])
    steps = bytes([0x40, *[0x88] * (3 * levels + 1)])
    part = struct.pack(">HHHIBBH", 0xFF90, 10, 0, 15, 0, 1, 0xFF93) + b"\0"
    segments = ((0xFF51, size[2:]), (0xFF52, style), (0xFF5C, steps))
    head = b"".join(struct.pack(">HH", marker, len(body) + 2) + body for marker, body in segments)
    return b"\xff\x4f" + head + part + b"\xff\xd9"


@pytest.mark.parametrize(
    "asked",
    [
        {"tile_px": 1},
        {"tile_px": 32},
        {"tile_px": 8000, "precinct": 1},
        {"tile_px": 8000, "precinct": 6, "layers": 65535},
        {"tile_px": 8000, "block": 2},
        {"tile_px": 8000, "levels": 33},
    ],
)
def test_a_jpeg_2000_of_a_hundred_bytes_asks_for_no_gigabytes(asked: dict[str, int]) -> None:
    frame = _jpeg_2000(8000, **asked)
    data = make_dicom(np.zeros((1, 1), np.uint16), syntax=JPEG2000Lossless, frame=frame, Rows=8000, Columns=8000)
    with within(), pytest.raises(UndecodablePixelData):
        render(data)


@pytest.mark.parametrize("asked", [{"precinct": 7, "layers": 20}, {"block": 5}, {"levels": 0}, {"tile_px": 40}])
def test_a_jpeg_2000_may_ask_for_what_writers_make(asked: dict[str, int]) -> None:
    frame = _jpeg_2000(96, **{"tile_px": 96, **asked})
    assert render(make_dicom(np.zeros((96, 96), np.uint16), syntax=JPEG2000Lossless, frame=frame))


def test_a_quantisation_that_crashes_the_decoder_is_refused_before() -> None:
    """Found by fuzzing: OpenJPH reads beyond its tables where a coefficient has more than 31 bits."""
    frame = bytearray(imagecodecs.htj2k_encode(make_image(), level=0.01, reversible=False))
    place = frame.index(b"\xff\x5c")
    assert render(make_dicom(make_image(), bits=12, syntax="1.2.840.10008.1.2.4.203", frame=frame))
    frame[place + 5] = 0xFE
    with pytest.raises(UndecodablePixelData):
        render(make_dicom(make_image(), bits=12, syntax="1.2.840.10008.1.2.4.203", frame=frame))


@pytest.mark.parametrize("place", [35, 39])
def test_tiles_that_begin_within_the_image_are_refused(place: int) -> None:
    """Found by fuzzing: OpenJPH looks for the first tile for ever."""
    frame = bytearray(imagecodecs.htj2k_encode(make_image(), reversible=True))
    frame[place] = 1
    with within(), pytest.raises(UndecodablePixelData):
        render(make_dicom(make_image(), bits=12, syntax="1.2.840.10008.1.2.4.201", frame=frame))


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless, RLELossless])
def test_the_largest_image_in_ten_bytes_is_refused_by_its_size(syntax: str) -> None:
    data = make_dicom(np.zeros((1, 1), np.uint8), syntax=syntax, frame=b"\xff" * 10, Rows=65535, Columns=65535)
    with pytest.raises(PermanentError) as caught:
        render(data)
    assert caught.value.code == "image_too_large"


def test_a_frame_in_a_million_pieces_is_refused_in_linear_time() -> None:
    """DICOMweb answers what no decoder has looked at."""
    head = make_dicom(make_image(), syntax=JPEGLSLossless, frame=b"\xff\xd8")
    place = read_dicom(head, max_bytes=PREFIX_BYTES).pixel_data
    assert place is not None
    empty = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    data = head[: place.start] + empty * (FILLING // 8) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    with within(10), pytest.raises(UndecodablePixelData):
        frame_of(read_dicom(data, max_bytes=PREFIX_BYTES))
