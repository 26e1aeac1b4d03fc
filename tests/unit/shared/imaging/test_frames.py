"""Encapsulation: one frame, whatever pieces it comes in (PS3.5 annex A.4)."""

import itertools
import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid

from shared.imaging.frames import MAX_FRAGMENTS
from shared.phantoms.encoding import UIDS, encode_frame
from tests.decoding import code_of, pixels_of
from tests.golden_images import golden_image
from tests.synthetic_dicom import make_dicom

IMAGE = golden_image(12)
SYNTAXES = ["encapsulated", "deflated-frame", "rle", "jpeg-lossless", "jpeg-ls", "jpeg-2000", "htj2k", "jpeg-xl"]
CODESTREAMS = ["jpeg-lossless", "jpeg-ls", "jpeg-2000", "htj2k"]  # that show where they begin
FRAMES = {syntax: encode_frame(IMAGE, 12, syntax) for syntax in SYNTAXES}
END = b"\xfe\xff\xdd\xe0\0\0\0\0"
HEAD = b"\xe0\x7f\x10\x00OB\0\0"  # of pixel data in explicit little endian, before its length


def item(value: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(value)) + value


def file_with(value: bytes, syntax: str, *, length: int = 0xFFFFFFFF, **elements: object) -> bytes:
    """A file whose pixel data is `value`, behind a `length` of the test's choosing."""
    whole = make_dicom(IMAGE, bits=12, syntax=UIDS[syntax], frame=FRAMES[syntax], **elements)
    return whole[: whole.index(HEAD)] + HEAD + struct.pack("<I", length) + value


def in_items(fragments: Sequence[bytes], syntax: str, *, table: bytes = b"", end: bytes = END, **how: object) -> bytes:
    return file_with(b"".join(map(item, [table, *fragments])) + end, syntax, **how)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_frame_may_be_cut_into_fragments_anywhere(syntax: str) -> None:
    @given(st.lists(st.integers(0, len(FRAMES[syntax])), max_size=12))
    @settings(max_examples=15, derandomize=True)
    def check(cuts: list[int]) -> None:
        places = [0, *sorted(cuts), len(FRAMES[syntax])]
        fragments = [FRAMES[syntax][start:end] for start, end in itertools.pairwise(places)]
        assert np.array_equal(pixels_of(in_items(fragments, syntax)), IMAGE)

    check()


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_marker_may_be_cut_in_two_and_fragments_may_be_empty(syntax: str) -> None:
    frame = FRAMES[syntax]
    for place in (1, 2, 3, 5, len(frame) - 1):
        pieces = [b"", frame[:place], b"", frame[place:], b""]
        assert np.array_equal(pixels_of(in_items(pieces, syntax)), IMAGE), place


@pytest.mark.parametrize("table", [[0], [8], [0xFFFFFFFF], [7, 3]], ids=str)
@pytest.mark.parametrize("syntax", CODESTREAMS)
def test_no_table_of_offsets_is_believed(syntax: str, table: list[int]) -> None:
    """Also not one that has an offset for each fragment, as some writers put there for one frame."""
    frame = FRAMES[syntax]
    data = in_items([frame[:1000], frame[1000:]], syntax, table=struct.pack(f"<{len(table)}I", *table))
    assert np.array_equal(pixels_of(data), IMAGE)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_an_extended_table_of_offsets_is_left_aside(syntax: str) -> None:
    for offset in (0, 2**40):
        tables: dict[str, object] = {
            "ExtendedOffsetTable": struct.pack("<Q", offset),
            "ExtendedOffsetTableLengths": struct.pack("<Q", len(FRAMES[syntax])),
        }
        data = in_items([FRAMES[syntax]], syntax, NumberOfFrames=1, **tables)
        assert np.array_equal(pixels_of(data), IMAGE)


@pytest.mark.parametrize("syntax", CODESTREAMS)
def test_a_missing_table_is_let_pass_where_the_frame_shows_its_beginning(syntax: str) -> None:
    frame = FRAMES[syntax]
    value = item(frame[:500]) + item(frame[500:]) + END
    assert np.array_equal(pixels_of(file_with(value, syntax)), IMAGE)


@pytest.mark.parametrize("end", [b"", END[:4], b"\xfc\xff\xfc\xffOB\0\0\4\0\0\0\0\0\0\0"], ids=["none", "half", "next"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_missing_sequence_delimiter_does_no_harm(syntax: str, end: bytes) -> None:
    assert np.array_equal(pixels_of(in_items([FRAMES[syntax]], syntax, end=end)), IMAGE)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_fragments_are_found_behind_a_length_too(syntax: str) -> None:
    value = item(b"") + item(FRAMES[syntax])
    assert np.array_equal(pixels_of(file_with(value, syntax, length=len(value))), IMAGE)
    assert np.array_equal(pixels_of(file_with(value + END, syntax, length=len(value + END))), IMAGE)


@pytest.mark.parametrize("syntax", ["deflated-frame", "rle", "jpeg-lossless", "jpeg-ls", "jpeg-2000", "jpeg-xl"])
def test_a_compressed_frame_without_fragments_is_refused(syntax: str) -> None:
    frame = FRAMES[syntax] + b"\0" * (len(FRAMES[syntax]) % 2)
    assert code_of(file_with(frame, syntax, length=len(frame))) == "undecodable_pixel_data"
    assert code_of(file_with(frame + END, syntax)) == "undecodable_pixel_data"


def test_native_pixels_that_look_like_a_fragment_are_pixels() -> None:
    image = golden_image(16, signed=True).copy()
    image.flat[:4] = -2, -8192, 16, 0  # the tag of an item, and its length
    assert np.array_equal(pixels_of(make_dicom(image)), image)


def test_native_pixels_have_a_length() -> None:
    native = make_dicom(IMAGE, bits=12)
    head = b"\xe0\x7f\x10\x00OW\0\0"
    start = native.index(head) + len(head)
    cells = native[start + 4 :]
    for value in (cells + END, item(b"") + item(cells) + END):
        assert code_of(native[:start] + b"\xff\xff\xff\xff" + value) == "undecodable_pixel_data"


@pytest.mark.parametrize("syntax", CODESTREAMS)
def test_several_codestreams_are_several_frames_whatever_the_header_says(syntax: str) -> None:
    frame = FRAMES[syntax]
    assert code_of(in_items([frame, frame], syntax, NumberOfFrames=1)) == "multi_frame"
    assert code_of(in_items([frame[:700], frame[700:], frame], syntax)) == "multi_frame"


@pytest.mark.parametrize("syntax", ["encapsulated", "deflated-frame", "rle", "jpeg-xl"])
def test_several_offsets_are_several_frames_where_nothing_else_tells(syntax: str) -> None:
    frame = FRAMES[syntax]
    table = struct.pack("<2I", 0, 8 + len(frame))
    assert code_of(in_items([frame, frame], syntax, table=table)) == "multi_frame"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_frame_that_is_not_all_there_is_refused(syntax: str) -> None:
    frame = FRAMES[syntax]
    half, whole = frame[: len(frame) // 2], item(b"") + item(frame)
    for data in (
        in_items([half], syntax),
        in_items([half], syntax, end=b""),
        in_items([], syntax),
        in_items([b"", b""], syntax),
        file_with(b"", syntax),
        file_with(whole[:-1], syntax),
        file_with(whole[: len(whole) // 2], syntax, length=len(whole)),
        file_with(item(b"") + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + frame + END, syntax),
    ):
        assert code_of(data) == "undecodable_pixel_data"


def test_more_fragments_than_any_writer_makes_are_refused() -> None:
    data = in_items([FRAMES["rle"]], "rle", end=item(b"") * MAX_FRAGMENTS)
    assert code_of(data) == "undecodable_pixel_data"


# --- what comes in fragments but is no codestream --------------------------------------------------------------------


def literal_runs(data: bytes, longest: int = 128) -> bytes:
    """Bytes as they are, each run of them behind its length less one, PS3.5 G.3.1."""
    pieces = (data[start : start + longest] for start in range(0, len(data), longest))
    return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)


def rle_frame(segments: Sequence[bytes], *, gap: bytes = b"") -> bytes:
    offsets, body = [], b""
    for segment in segments:
        body += gap
        offsets.append(64 + len(body))
        body += segment + b"\0" * (len(segment) % 2)
    return struct.pack("<16I", len(segments), *offsets, *[0] * (15 - len(segments))) + body


PLANES = [(IMAGE >> 8).astype(np.uint8).tobytes(), IMAGE.astype(np.uint8).tobytes()]


@pytest.mark.parametrize(
    "frame",
    [
        rle_frame([literal_runs(plane) for plane in PLANES]),
        rle_frame([literal_runs(plane, longest=1) for plane in PLANES]),
        rle_frame([b"\x80" * 7 + literal_runs(plane) + b"\x80" * 3 for plane in PLANES]),
        rle_frame([literal_runs(plane) for plane in PLANES], gap=b"\0" * 6),
        rle_frame([literal_runs(plane) + b"\0" * 300 for plane in PLANES]),
    ],
    ids=["literal", "one by one", "with bytes that say nothing", "gaps", "padded"],
)
def test_rle_segments_of_every_layout_are_unpacked(frame: bytes) -> None:
    assert np.array_equal(pixels_of(make_dicom(IMAGE, bits=12, syntax=uid.RLELossless, frame=frame)), IMAGE)


def test_a_run_in_rle_may_go_on_over_rows() -> None:
    image = np.full((70, 90), 7, np.uint8)
    image[40:] = 9
    left = image.tobytes()
    runs = b""
    while left:
        length = min(128, len(left) - len(left.lstrip(left[:1])))
        runs, left = runs + bytes([257 - length & 0xFF]) + left[:1], left[length:]
    data = make_dicom(image, syntax=uid.RLELossless, frame=rle_frame([runs]))
    assert np.array_equal(pixels_of(data), image)


@pytest.mark.parametrize(
    "frame",
    [
        rle_frame([literal_runs(PLANES[0])]),
        rle_frame([literal_runs(plane) for plane in [*PLANES, PLANES[0]]]),
        rle_frame([literal_runs(plane[:-200]) for plane in PLANES]),
        rle_frame([b"", b""]),
        struct.pack("<16I", 2, 64, 2**31, *[0] * 13) + b"\0" * 100,
        struct.pack("<16I", 2, 100, 64, *[0] * 13) + b"\0" * 100,
        b"\2\0\0\0",
        b"\xff" * 64,
        rle_frame([literal_runs(plane + b"more") for plane in PLANES]),
    ],
    ids=["one segment", "three segments", "short", "empty", "beyond", "backwards", "no header", "no number", "long"],
)
def test_rle_that_does_not_unpack_to_the_frame_is_refused(frame: bytes) -> None:
    data = make_dicom(IMAGE, bits=12, syntax=uid.RLELossless, frame=frame)
    assert code_of(data) == "undecodable_pixel_data"


def test_a_deflated_frame_is_no_bomb() -> None:
    large = np.zeros((4000, 4000), np.uint16)
    bomb = make_dicom(IMAGE, bits=12, syntax=UIDS["deflated-frame"], frame=encode_frame(large, 16, "deflated-frame"))
    assert code_of(bomb) == "undecodable_pixel_data"
