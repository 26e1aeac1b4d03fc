"""De-identification reaches into pixel data: what is hidden in it is gone, and the pixels are the same."""

import struct
import subprocess
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.encaps import generate_frames

from shared.deidentification import deidentify
from shared.errors import UndecodablePixelData
from shared.imaging.cells import CellLayout
from shared.imaging.decode import decode
from shared.imaging.rle import unpack_rle
from shared.phantoms.encoding import LOSSLESS, LOSSY, NATIVE, UIDS, TransferSyntax, encode_frame, native_bytes
from tests.golden_images import golden_image
from tests.requirements import SHARED_DATA
from tests.synthetic_dicom import MAX_PIXELS, make_dicom

MARK = b"PLANTED^NAME"
IMAGE, IMAGE_8, SIGNED = golden_image(12), golden_image(8), golden_image(12, signed=True)
Plant = Callable[[bytes], bytes]


def hidden(data: bytes) -> bytes:
    return deidentify(data, b"k" * 32, max_bytes=2**28)


def pixels_of(data: bytes) -> NDArray[np.integer]:
    return decode(data, MAX_PIXELS).pixels


def frame_of(data: bytes) -> bytes:
    return next(generate_frames(pydicom.dcmread(BytesIO(data)).PixelData, number_of_frames=1))


def image_in(syntax: TransferSyntax, *, plant: Plant = bytes) -> tuple[bytes, bytes]:
    """An image in an encapsulated syntax as its encoder made it, and with something planted in its frame."""
    image, bits = (IMAGE_8, 8) if "baseline" in syntax or "recompression" in syntax else (IMAGE, 12)
    frame = encode_frame(image, bits, syntax)
    first, second = (make_dicom(image, bits=bits, syntax=UIDS[syntax], frame=each) for each in (frame, plant(frame)))
    return first, second


def check(original: bytes, planted: bytes) -> None:
    """Hold that nothing is left of what was planted, and that the pixels are the same."""
    assert MARK in planted
    data = hidden(planted)
    assert MARK not in data
    assert np.array_equal(pixels_of(data), pixels_of(original))


# --- JPEG ------------------------------------------------------------------------------------------------------------


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def behind_start(added: bytes) -> Plant:
    return lambda frame: frame[:2] + added + frame[2:]


def before_end(added: bytes) -> Plant:
    return lambda frame: frame[: frame.rindex(b"\xff\xd9")] + added + frame[frame.rindex(b"\xff\xd9") :]


def behind_end(frame: bytes) -> bytes:
    return frame + MARK


def in_scan_header_gap(frame: bytes) -> bytes:
    place = frame.index(b"\xff\xda")
    return frame[:place] + MARK + b"\xff\xff\xff" + frame[place:]


UNUSED_TABLE = MARK.ljust(64, b"\1")
IN_JPEG: dict[str, Plant] = {
    **{f"application data {number}": behind_start(segment(0xE0 + number, MARK)) for number in range(16)},
    "JFIF with a thumbnail": behind_start(segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\2\2" + MARK)),
    "Adobe": behind_start(segment(0xEE, b"Adobe\0\x64\0\0\0\0\0" + MARK)),
    "a comment": behind_start(segment(0xFE, MARK)),
    "a comment before the end": before_end(segment(0xFE, MARK)),
    "a reserved marker": behind_start(segment(0x02, MARK)),
    "a marker for extensions": behind_start(segment(0xF1, MARK)),
    "bytes between segments": in_scan_header_gap,
    "markers without a segment": behind_start(b"\xff\x01\xff\xd3" + MARK),
    "a quantisation table that nothing uses": behind_start(segment(0xDB, b"\3" + UNUSED_TABLE)),
    "a Huffman table that nothing uses": behind_start(segment(0xC4, b"\x13" + b"\0" * 15 + b"\x0c" + MARK)),
    "bytes behind the end": behind_end,
    "another picture behind the end": lambda frame: frame + b"\xff\xd8" + segment(0xFE, MARK) + b"\xff\xd9",
}
JPEG_SYNTAXES: list[TransferSyntax] = ["jpeg-baseline", "jpeg-extended", "jpeg-lossless", "jpeg-lossless-sv4"]


@pytest.mark.parametrize("syntax", [*JPEG_SYNTAXES, "jpeg-ls", "jpeg-ls-near"])
@pytest.mark.parametrize("place", IN_JPEG)
def test_nothing_stays_in_a_jpeg_stream(syntax: TransferSyntax, place: str) -> None:
    check(*image_in(syntax, plant=IN_JPEG[place]))


def test_compressed_data_end_at_a_marker_wherever_it_lies() -> None:
    """Data are looked through in windows: a marker may begin with a window's last byte."""
    frame = encode_frame(IMAGE_8, 8, "jpeg-baseline")
    end = frame.rindex(b"\xff\xd9")
    start = frame.index(b"\xff\xda") + 4 + 8 - 2
    window = 256 * 1024
    for missing in (0, 1, 2):
        filling = b"\x01" * (window - (end - start) - missing)
        data = make_dicom(IMAGE_8, syntax=UIDS["jpeg-baseline"], frame=frame[:end] + filling + b"\xff\xff\xd9" + MARK)
        assert frame_of(hidden(data)).rstrip(b"\0").endswith(filling + b"\xff\xd9")


@pytest.mark.parametrize("place", ["between segments", "in a scan"])
def test_fill_bytes_without_end_cost_little(place: str) -> None:
    frame = encode_frame(IMAGE_8, 8, "jpeg-baseline")
    start = frame.index(b"\xff\xda") if place == "between segments" else frame.rindex(b"\xff\xd9")
    with pytest.raises(UndecodablePixelData):
        hidden(make_dicom(IMAGE_8, syntax=UIDS["jpeg-baseline"], frame=frame[:start] + b"\xff" * 2**24))


def test_a_table_that_is_defined_twice_stays_once() -> None:
    def plant(frame: bytes) -> bytes:
        place = frame.index(b"\xff\xdb")
        return frame[:place] + segment(0xDB, frame[place + 4 : place + 5] + UNUSED_TABLE) + frame[place:]

    check(*image_in("jpeg-baseline", plant=plant))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}, {"subsampling": 2}])
def test_scans_of_a_picture_are_copied(options: dict[str, int]) -> None:
    pixels = np.random.default_rng(4).integers(0, 255, (90, 70, 3), np.uint8)
    buffer = BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "JPEG", **options)
    data = hidden(behind_start(segment(0xEC, MARK))(buffer.getvalue()))
    assert MARK not in data
    assert np.array_equal(np.asarray(PIL.Image.open(BytesIO(data))), np.asarray(PIL.Image.open(buffer)))
    start = buffer.getvalue().rindex(b"\xff\xda")
    assert data.endswith(buffer.getvalue()[start:]), "the last scan"


# --- JPEG 2000 -------------------------------------------------------------------------------------------------------


def in_main_header(added: bytes) -> Plant:
    def plant(frame: bytes) -> bytes:
        place = frame.index(b"\xff\x52")  # COD
        return frame[:place] + added + frame[place:]

    return plant


def in_tile_header(added: bytes) -> Plant:
    def plant(frame: bytes) -> bytes:
        start = frame.index(b"\xff\x90")
        (length,) = struct.unpack_from(">I", frame, start + 6)
        grown = struct.pack(">I", length + len(added) if length else 0)
        return frame[: start + 6] + grown + frame[start + 10 : start + 12] + added + frame[start + 12 :]

    return plant


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def in_jp2_file(frame: bytes) -> bytes:
    signature = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return signature + box(b"xml ", MARK) + box(b"uuid", MARK * 2) + box(b"jp2c", frame) + box(b"xml ", MARK)


IN_JPEG_2000: dict[str, Plant] = {
    "a comment": in_main_header(segment(0x64, b"\0\1" + MARK)),
    "component registration": in_main_header(segment(0x63, MARK)),
    "a profile": in_main_header(segment(0x56, MARK)),
    "lengths of packets": in_main_header(segment(0x57, b"\0" + MARK)),
    "an unknown marker": in_main_header(segment(0x6F, MARK)),
    "a style of a component that is not there": in_main_header(segment(0x53, b"\1" + MARK)),
    "a comment of a tile": in_tile_header(segment(0x64, b"\0\0" + MARK)),
    "lengths of a tile's packets": in_tile_header(segment(0x58, b"\0" + MARK)),
    "bytes behind the end": behind_end,
    "a JP2 file around it": in_jp2_file,
}


@pytest.mark.parametrize("syntax", ["jpeg-2000", "jpeg-2000-part-2", "jpeg-2000-lossy", "htj2k", "htj2k-rpcl"])
@pytest.mark.parametrize("place", IN_JPEG_2000)
def test_nothing_stays_in_a_jpeg_2000_codestream(syntax: TransferSyntax, place: str) -> None:
    check(*image_in(syntax, plant=IN_JPEG_2000[place]))


def test_lengths_of_tile_parts_are_written_anew() -> None:
    _, planted = image_in("htj2k-rpcl", plant=in_tile_header(segment(0x64, b"\0\0" + MARK)))
    lengths = segment(0x55, b"\0\x60" + struct.pack(">HI", 0, 12345))
    frame = in_main_header(lengths)(frame_of(planted))
    cleaned = frame_of(hidden(make_dicom(IMAGE, bits=12, syntax=UIDS["htj2k-rpcl"], frame=frame)))
    start, place = cleaned.index(b"\xff\x90"), cleaned.index(b"\xff\x55")
    tile_bytes = cleaned.rindex(b"\xff\xd9") - start
    assert struct.unpack_from(">HBBHI", cleaned, place + 2) == (10, 0, 0x60, 0, tile_bytes)
    assert struct.unpack_from(">I", cleaned, start + 6) == (tile_bytes,)


# --- JPEG XL ---------------------------------------------------------------------------------------------------------


def in_jxl_file(frame: bytes) -> bytes:
    start = box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ") + box(b"Exif", MARK)
    if frame.startswith(b"\xff\x0a"):
        middle = len(frame) // 2
        parts = box(b"jxlp", b"\0\0\0\0" + frame[:middle]) + box(b"xml ", MARK)
        return start + parts + box(b"jxlp", b"\x80\0\0\1" + frame[middle:]) + box(b"jbrd", MARK)
    return frame[:12] + frame[12:32] + box(b"Exif", MARK) + frame[32:] + box(b"xml ", MARK)


@pytest.mark.parametrize("syntax", ["jpeg-xl", "jpeg-xl-lossy", "jpeg-xl-recompression"])
@pytest.mark.parametrize("plant", [behind_end, in_jxl_file])
def test_nothing_stays_around_a_jpeg_xl_codestream(syntax: TransferSyntax, plant: Plant) -> None:
    check(*image_in(syntax, plant=plant))


@pytest.mark.parametrize("options", [{"lossless": True}, {"distance": 1}])
def test_a_large_jpeg_xl_image_whose_sections_are_in_another_order(options: dict[str, int]) -> None:
    image = np.tile(IMAGE, (22, 27))[:2100, :2100]
    frame = imagecodecs.jpegxl_encode(image, effort=3, **options)
    first, boxed, tailed = (
        make_dicom(image, syntax=UIDS["jpeg-xl"], frame=each) for each in (frame, in_jxl_file(frame), frame + MARK)
    )
    data = hidden(boxed)
    assert MARK not in data
    assert np.array_equal(pixels_of(data), pixels_of(first))
    if options.get("distance"):  # bare, so that only the order tells where it ends
        with pytest.raises(UndecodablePixelData):
            hidden(tailed)


# --- RLE and native cells --------------------------------------------------------------------------------------------


def in_rle_offsets(frame: bytes) -> bytes:
    return frame[:12] + MARK.ljust(52, b"\0") + frame[64:]


def between_rle_segments(frame: bytes) -> bytes:
    second = struct.unpack_from("<I", frame, 8)[0]
    return frame[:8] + struct.pack("<I", second + 12) + frame[12:second] + MARK + frame[second:]


@pytest.mark.parametrize("plant", [in_rle_offsets, between_rle_segments, behind_end])
def test_nothing_stays_around_rle_segments(plant: Plant) -> None:
    check(*image_in("rle", plant=plant))


def test_rle_bytes_that_make_no_pixel_go() -> None:
    frame = encode_frame(IMAGE, 12, "rle")
    second = struct.unpack_from("<I", frame, 8)[0]
    longer = frame[:8] + struct.pack("<I", second + 2) + frame[12:64] + b"\x80\x80" + frame[64:]
    clean, planted = (make_dicom(IMAGE, bits=12, syntax=UIDS["rle"], frame=each) for each in (frame, longer))
    assert frame_of(hidden(planted)) == frame_of(hidden(clean))


CELLS = ["explicit", "implicit", "big-endian", "deflated", "encapsulated", "deflated-frame", "rle"]


def image_of(values: NDArray[np.integer], syntax: TransferSyntax, **elements: object) -> bytes:
    if syntax in NATIVE:
        return make_dicom(values, syntax=UIDS[syntax], **elements)
    return make_dicom(values, syntax=UIDS[syntax], frame=encode_frame(values, 16, syntax), **elements)


def stored_cells(data: bytes, syntax: str) -> NDArray[np.uint16]:
    file = pydicom.dcmread(BytesIO(data))
    if syntax == "rle":
        height_px, width_px = IMAGE.shape
        layout = CellLayout(height_px, width_px, 16, 16, 15, signed=False)
        return np.frombuffer(unpack_rle(frame_of(data), layout), "<u2").reshape(IMAGE.shape)
    raw = file.PixelData if syntax in NATIVE else frame_of(data)
    raw = zlib.decompress(raw, -15) if syntax == "deflated-frame" else raw
    return np.frombuffer(raw, ">u2" if syntax == "big-endian" else "<u2", IMAGE.size).reshape(IMAGE.shape)


@pytest.mark.parametrize("syntax", CELLS)
@pytest.mark.parametrize("high_bit", [11, 13])
def test_bits_around_the_stored_values_become_zero(syntax: TransferSyntax, high_bit: int) -> None:
    clean = IMAGE << high_bit - 11
    noise = np.random.default_rng(5).integers(0, 1 << 16, IMAGE.shape).astype(np.uint16)
    mask = 0xFFF << high_bit - 11
    layout = {"BitsStored": 12, "HighBit": high_bit}
    first = image_of(clean, syntax, **layout)
    second = image_of(clean | noise & ~np.uint16(mask), syntax, **layout)
    data = hidden(second)
    assert np.array_equal(stored_cells(data, syntax), clean)
    assert np.array_equal(pixels_of(data), pixels_of(first))
    assert np.array_equal(pixels_of(data), IMAGE)


@pytest.mark.parametrize("syntax", CELLS)
def test_bits_above_signed_values_repeat_the_sign(syntax: TransferSyntax) -> None:
    noise = np.random.default_rng(5).integers(0, 16, IMAGE.shape).astype(np.uint16) << 12
    drawn = (SIGNED.view(np.uint16) & 0xFFF | noise).view(np.int16)
    layout = {"BitsStored": 12, "HighBit": 11}
    data = hidden(image_of(drawn, syntax, **layout))
    assert np.array_equal(stored_cells(data, syntax).astype(np.uint16).view(np.int16), SIGNED)
    assert np.array_equal(pixels_of(data), SIGNED)


@pytest.mark.parametrize("syntax", [*NATIVE, "encapsulated", "deflated-frame"])
def test_what_follows_the_last_cell_goes(syntax: TransferSyntax) -> None:
    image = IMAGE_8[:, :-1][:-1]  # an odd number of cells
    added = bytes(range(1, 60))
    cells = native_bytes(image)[: image.size] + added
    if syntax in NATIVE:
        file = pydicom.dcmread(BytesIO(make_dicom(image, syntax=UIDS[syntax])))
        file.PixelData = cells + b"\0" * (len(cells) % 2)
        buffer = BytesIO()
        file.save_as(buffer)
        data = hidden(buffer.getvalue())
        raw = pydicom.dcmread(BytesIO(data)).PixelData
    else:
        deflater = zlib.compressobj(wbits=-15)
        deflated = deflater.compress(cells) + deflater.flush() + MARK
        data = hidden(make_dicom(image, syntax=UIDS[syntax], frame=cells if syntax == "encapsulated" else deflated))
        assert MARK not in data
        raw = frame_of(data) if syntax == "encapsulated" else zlib.decompress(frame_of(data), -15)
    assert raw.rstrip(b"\0") == image.tobytes().rstrip(b"\0")
    assert len(raw) - image.size in (0, 1)
    assert np.array_equal(pixels_of(data), image)


@pytest.mark.parametrize(
    ("bits", "syntax", "told"),
    [
        (12, "explicit", "NO"),
        (12, "rle", "NO"),
        (16, "explicit", "YES"),
        (12, "jpeg-ls", "YES"),
        (12, "jpeg-2000", "YES"),
    ],
)
def test_an_overlay_in_unused_bits_is_gone_or_is_told(bits: int, syntax: TransferSyntax, told: str) -> None:
    file = pydicom.dcmread(BytesIO(image_of(IMAGE, syntax, BitsStored=bits, HighBit=bits - 1, BurnedInAnnotation="NO")))
    file.add_new(0x60000102, "US", 12)
    buffer = BytesIO()
    file.save_as(buffer)
    assert pydicom.dcmread(BytesIO(hidden(buffer.getvalue()))).BurnedInAnnotation == told


# --- Fragments -------------------------------------------------------------------------------------------------------


def item(content: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


DELIMITER = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
IN_FRAGMENTS: dict[str, Plant] = {
    "another fragment": lambda frame: item(b"") + item(frame) + item(MARK) + DELIMITER,
    "a table of offsets": lambda frame: item(MARK) + item(frame) + DELIMITER,
    "behind the delimiter": lambda frame: item(b"") + item(frame) + DELIMITER + MARK,
    "padding": lambda frame: item(b"") + item(frame + MARK) + DELIMITER,
    "no delimiter": lambda frame: item(b"") + item(frame[:100]) + item(frame[100:]) + MARK,
}


@pytest.mark.parametrize("syntax", ["jpeg-lossless", "jpeg-ls", "jpeg-2000", "htj2k", "jpeg-xl", "rle", "encapsulated"])
@pytest.mark.parametrize("place", IN_FRAGMENTS)
def test_nothing_stays_between_or_behind_fragments(syntax: TransferSyntax, place: str) -> None:
    if place == "a table of offsets" and syntax in ("rle", "encapsulated", "jpeg-xl"):
        pytest.skip("several offsets are several frames there, which are refused")
    original, _ = image_in(syntax)
    frame = encode_frame(IMAGE, 12, syntax)
    start = original.index(b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff") + 12
    even = frame + b"\0" * (len(frame) % 2)
    check(original, original[:start] + IN_FRAGMENTS[place](even))


# --- PNG -------------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", zlib.crc32(kind + content))


def png(mode: str = "L", *, ihdr: bytes = b"", pixels: bytes = b"", before: bytes = b"", iend: bytes = b"") -> bytes:
    """A PNG of one chunk of pixels, with something added to what its name says."""
    buffer = BytesIO()
    PIL.Image.fromarray(IMAGE_8).convert(mode).save(buffer, "PNG")
    data = buffer.getvalue()
    at = data.index(b"IDAT")
    content = data[at + 4 : at + 4 + int.from_bytes(data[at - 4 : at], "big")]
    return data[:33] + before + data[33 : at - 4] + chunk(b"IDAT", content + pixels) + chunk(b"IEND", iend)


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
@pytest.mark.parametrize(
    "data",
    [
        {"pixels": MARK},
        {"iend": MARK},
        {"before": chunk(b"tEXt", MARK) + chunk(b"eXIf", MARK) + chunk(b"prVt", MARK) + chunk(b"tIME", MARK)},
        {"before": chunk(b"tRNS", MARK)},
    ],
)
def test_nothing_stays_in_a_png(mode: str, data: dict[str, bytes]) -> None:
    planted = png(mode, **data)
    assert MARK in planted
    cleaned = hidden(planted)
    assert MARK not in cleaned
    assert np.array_equal(np.asarray(PIL.Image.open(BytesIO(cleaned))), np.asarray(PIL.Image.open(BytesIO(png(mode)))))


def test_a_palette_that_no_pixel_refers_to_goes() -> None:
    cleaned = hidden(png(before=chunk(b"PLTE", MARK)))
    assert MARK not in cleaned
    assert np.array_equal(np.asarray(PIL.Image.open(BytesIO(cleaned))), IMAGE_8)


PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@pytest.mark.parametrize("shape", [(65, 67), (96, 80)])
def test_an_interlaced_png_keeps_its_pixels(shape: tuple[int, int]) -> None:
    image = np.ascontiguousarray(IMAGE_8[: shape[0], : shape[1]])
    rows = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in PASSES for row in image[y::dy, x::dx])
    header = struct.pack(">2I5B", shape[1], shape[0], 8, 0, 0, 0, 1)
    parts = [(b"IHDR", header), (b"tEXt", MARK), (b"IDAT", zlib.compress(rows) + MARK), (b"IEND", b"")]
    cleaned = hidden(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    assert MARK not in cleaned
    assert np.array_equal(np.asarray(PIL.Image.open(BytesIO(cleaned))), image)


def test_a_png_with_more_rows_than_it_says_is_refused() -> None:
    data = png()
    at = data.index(b"IDAT")
    rows = zlib.decompress(data[at + 4 :]) + MARK
    with pytest.raises(UndecodablePixelData):
        hidden(data[: at - 4] + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


# --- Whole files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [syntax for syntax in (*LOSSLESS, *LOSSY) if syntax != "jpeg-xl-recompression"])
def test_a_clean_frame_is_cleaned_to_the_same_bytes_again(syntax: TransferSyntax) -> None:
    original, _ = image_in(syntax)
    once = hidden(original)
    assert frame_of(hidden(once)) == frame_of(once)


@pytest.mark.parametrize("syntax", [*LOSSLESS, *LOSSY])
def test_pixel_data_that_cannot_be_taken_apart_is_refused(syntax: TransferSyntax) -> None:
    noise = np.random.default_rng(1).integers(1, 255, 1001, np.uint8).tobytes()
    with pytest.raises(UndecodablePixelData):
        hidden(make_dicom(IMAGE, bits=12, syntax=UIDS[syntax], frame=noise))


@pytest.mark.needs("dcmdump")
@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS, *LOSSY])
def test_dcmtk_reads_the_result(syntax: TransferSyntax, tmp_path: Path) -> None:
    original = image_of(IMAGE, syntax, BitsStored=12, HighBit=11) if syntax in NATIVE else image_in(syntax)[0]
    check_with_dcmtk(hidden(original), tmp_path / "file.dcm")


@pytest.mark.needs("dcmdump")
@pytest.mark.parametrize("syntax", ["rle", "jpeg-lossless", "jpeg-ls", "jpeg-2000"])
def test_dcmtk_reads_the_result_also_where_the_length_was_defined(syntax: TransferSyntax, tmp_path: Path) -> None:
    original = image_in(syntax)[0]
    at = original.index(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff") + 8
    value = original[at + 4 :].removesuffix(b"\xfe\xff\xdd\xe0\0\0\0\0")
    check_with_dcmtk(hidden(original[:at] + struct.pack("<I", len(value)) + value), tmp_path / "file.dcm")


def check_with_dcmtk(data: bytes, path: Path) -> None:
    """Have DCMTK read a file, whose meta information must have its length (0002,0000)."""
    assert data[128:138] == b"DICM\x02\0\0\0UL"
    path.write_bytes(data)
    for command in (["dcmftest"], ["dcmdump", "+E"]):
        done = subprocess.run([*command, path], capture_output=True, check=False, text=True)
        assert done.returncode == 0, done.stderr
        assert not done.stderr


@pytest.mark.needs("shared/data")
def test_real_images_show_the_same() -> None:
    for path in sorted(SHARED_DATA.glob("dicom/chest/*.dcm")):
        data = path.read_bytes()
        assert np.array_equal(pixels_of(hidden(data)), pixels_of(data)), path.name
