"""Native cells: byte orders, the stored bits and those around them."""

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import uid

from shared.errors import UndecodablePixelData
from shared.imaging.cells import CellLayout, read_cells
from tests.decoding import pixels_of
from tests.golden_images import golden_image
from tests.synthetic_dicom import make_dicom

IMAGE = golden_image(12)
LAYOUT = CellLayout(IMAGE.shape[0], IMAGE.shape[1], bits_allocated=16, bits_stored=12, high_bit=11, signed=False)
SIGNED = golden_image(12, signed=True)


@pytest.mark.parametrize(
    "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize("image", [IMAGE, SIGNED, golden_image(8)], ids=["uint16", "int16", "uint8"])
def test_native_pixels_are_read_as_they_are(syntax: str, image: NDArray[np.integer]) -> None:
    bits = 8 if image.itemsize == 1 else 12
    assert np.array_equal(pixels_of(make_dicom(image, bits=bits, syntax=syntax)), image)


def test_8_bit_cells_in_big_endian_words_are_swapped() -> None:
    image = golden_image(8)[:136]  # an even number
    swapped = np.frombuffer(image.tobytes(), "u2").byteswap().view(np.uint8).reshape(image.shape)
    data = make_dicom(swapped, syntax=uid.ExplicitVRBigEndian)
    data = data.replace(b"\x7f\xe0\x00\x10OB", b"\x7f\xe0\x00\x10OW")
    assert np.array_equal(pixels_of(data), image)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("allocated", [8, 16])
def test_stored_bits_may_lie_anywhere_in_a_cell(allocated: int, signed: bool) -> None:
    """For every number of stored bits, at every place, beneath and above what else a cell may hold."""
    rng = np.random.default_rng(3)
    kind = np.uint8 if allocated == 8 else np.uint16
    for stored in range(1, allocated + 1):
        least = -(1 << stored - 1) if signed else 0
        values = rng.integers(least, least + (1 << stored), (64, 70))
        for high_bit in range(stored - 1, allocated):
            shift = high_bit + 1 - stored
            around = rng.integers(0, 1 << allocated, values.shape) & ~(((1 << stored) - 1) << shift)
            cells = (((values & ((1 << stored) - 1)) << shift) | around).astype(kind)
            layout = CellLayout(64, 70, allocated, stored, high_bit, signed)
            pixels = read_cells(memoryview(cells.astype(f"<u{cells.itemsize}").tobytes()), layout)
            assert np.array_equal(pixels, values), (stored, high_bit)
            assert pixels.dtype in ((np.int16,) if signed else (np.uint8, np.uint16))


def test_signed_values_are_read_from_cells_that_are_extended_and_from_such_as_are_not() -> None:
    assert np.array_equal(pixels_of(make_dicom(SIGNED, bits=12)), SIGNED)
    masked = make_dicom(SIGNED.view(np.uint16) & 0x0FFF, bits=12, PixelRepresentation=1)
    assert np.array_equal(pixels_of(masked), SIGNED)


def test_cells_without_anything_to_cut_off_are_not_copied() -> None:
    data = memoryview(IMAGE.astype("<u2").tobytes())
    assert np.shares_memory(read_cells(data, LAYOUT), np.frombuffer(data, "<u2"))


@pytest.mark.parametrize(
    "missing", [{"BitsStored": None, "HighBit": None}, {"HighBit": None}, {"PixelRepresentation": None}]
)
def test_what_a_header_leaves_out_is_taken_for_the_plain_case(missing: dict[str, None]) -> None:
    assert np.array_equal(pixels_of(make_dicom(IMAGE, **missing)), IMAGE)


def test_padding_is_less_than_a_row_or_all_the_same() -> None:
    data = memoryview(IMAGE.astype("<u2").tobytes())
    padded = memoryview(bytes(data) + b"\0" * (LAYOUT.row_bytes - 1))
    assert np.array_equal(read_cells(padded, LAYOUT), IMAGE)
    assert np.array_equal(read_cells(memoryview(bytes(padded) + b"\0" * 5000), LAYOUT), IMAGE)
    for wrong in (data[:-1], memoryview(bytes(padded) + b"\1"), memoryview(bytes(data) * 2)):
        with pytest.raises(UndecodablePixelData):
            read_cells(wrong, LAYOUT)


@pytest.mark.parametrize(
    "header",
    [
        {"Rows": 136},
        {"Rows": 138},
        {"Columns": 100},
        {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0},
        {"BitsAllocated": 12},
        {"BitsAllocated": 32},
        {"BitsAllocated": 0, "BitsStored": 0},
        {"BitsStored": 17},
        {"BitsStored": 0},
        {"BitsStored": 12, "HighBit": 16},
    ],
    ids=str,
)
def test_cells_that_do_not_match_the_header_are_refused(header: dict[str, int]) -> None:
    with pytest.raises(UndecodablePixelData):
        pixels_of(make_dicom(IMAGE, **header))
