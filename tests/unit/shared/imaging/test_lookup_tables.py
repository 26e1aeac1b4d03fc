"""Modality and VOI LUTs (PS3.3 C.11.1.1.1, C.11.2.1.1) in every form that writers give them."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_voi
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from tests.rendering import chain_of, code_of, image_of, levels_of, show, table
from tests.synthetic_dicom import make_dicom, make_image

IMAGE = make_image()


def voi(data: bytes | list[int], vr: str, *, count: int, bits: int, first: int = 0) -> list[Dataset]:
    """A VOI LUT sequence with LUT data as they are."""
    item = Dataset()
    item.LUTDescriptor = [count, first, bits]
    item["LUTDescriptor"].VR = "US"
    item.add_new("LUTData", vr, data)
    return [item]


def test_a_table_shows_its_entries_and_its_ends_beyond_them() -> None:
    data = image_of([0, 99, 100, 101, 102, 103, 4095], bits=12, VOILUTSequence=table(100, [0, 1023, 2047, 4095], 12))
    assert list(show(data)[0, :7]) == [0, 0, 0, 64, 127, 255, 255]
    assert chain_of(data) == ["VOI LUT 1 of 1: 4 entries from 100, 12 bits"]


@settings(max_examples=50)
@given(
    count=st.integers(2, 6000),
    first=st.integers(-3000, 3000),
    bits=st.sampled_from([10, 12, 16]),
    signed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_table_is_what_pydicom_makes_of_it(count: int, first: int, bits: int, signed: bool, seed: int) -> None:
    first = first if signed else abs(first)
    entries = np.random.default_rng(seed).integers(0, 2**bits, count)
    image = (IMAGE.astype(np.int64) - 2048).astype(np.int16) if signed else IMAGE
    data = make_dicom(image, bits=12, VOILUTSequence=table(first, entries, bits))
    dataset = dcmread(BytesIO(data))
    # Of a wider type, as pydicom's index wraps where a table begins far from a pixel's value.
    expected = apply_voi(dataset.pixel_array.astype(np.int64), dataset) / (2**bits - 1) * 255
    if np.ptp(expected) > 1:
        assert np.abs(show(data) - expected).max() <= 1


@pytest.mark.parametrize(
    "sequence",
    [
        voi(bytes([0, 51, 255]) + b"\0", "OW", count=3, bits=8),  # packed, and padded
        voi(bytes([0, 51, 255]) + b"\0", "OB", count=3, bits=8),
        voi(bytes([0, 0, 51, 0, 255, 0]), "OW", count=3, bits=8),  # each in 16 bits
        voi([0, 51, 255], "US", count=3, bits=8),
        voi([0 + (51 << 8), 255], "US", count=3, bits=8),  # packed in words
        voi(bytes([0, 0, 0x33, 0x33, 255, 255]), "OW", count=3, bits=16),
        voi([0, 0x3333, 65535], "US", count=3, bits=16),
        voi([0, 0x3333, -1], "SS", count=3, bits=16),
        voi([0, 819, 4095], "US", count=3, bits=10),  # wider than the descriptor says: 12 bits
        voi([0, 819, 4095, 77, 77], "US", count=3, bits=12),  # longer than the descriptor says
    ],
)
def test_entries_are_read_however_they_lie(sequence: list[Dataset]) -> None:
    assert levels_of([0, 1, 2], bits=12, VOILUTSequence=sequence) == [0, 51, 255]


@pytest.mark.parametrize(
    "sequence",
    [
        voi(bytes([51, 0, 0, 255]), "OW", count=3, bits=8),  # of two entries in a word the first one is the low byte
        voi(bytes([0, 51, 255, 0]), "OB", count=3, bits=8),
        voi(bytes([0, 0, 0x33, 0x33, 255, 255]), "OW", count=3, bits=16),
        voi(bytes([0, 0, 0, 51, 0, 255]), "OW", count=3, bits=8),
        voi([0, 819, 4095], "US", count=3, bits=12),
    ],
)
def test_entries_of_a_big_endian_file_are_read_however_they_lie(sequence: list[Dataset]) -> None:
    image = np.resize(np.array([0, 1, 2], np.uint16), (64, 64))
    data = make_dicom(image, bits=12, syntax=ExplicitVRBigEndian, VOILUTSequence=sequence)
    assert list(show(data)[0, :3]) == [0, 51, 255]


def test_a_count_of_0_is_65536_and_one_above_32767_stays_positive() -> None:
    mirror = np.arange(65536, dtype=np.uint16)[::-1]
    assert levels_of([0, 13107, 65535], VOILUTSequence=table(0, mirror, 16)) == [255, 204, 0]
    sequence = table(-20000, mirror[:40000], 16)  # read as signed, the count is -25536
    assert levels_of([-20000, 6214, 30000], np.int16, VOILUTSequence=sequence) == [255, 153, 99]


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_first_value_has_the_sign_of_what_goes_into_the_table(syntax: str | None) -> None:
    def levels(values: list[int], kind: type[np.integer], **elements: object) -> list[int]:
        image = np.resize(np.array(values, kind), (64, 64))
        if syntax:
            elements["syntax"] = syntax
        return [int(level) for level in show(make_dicom(image, **elements))[0, : len(values)]]

    entries = np.array([0, 51, 102, 255], np.uint8).astype(np.uint16)
    if syntax == ExplicitVRBigEndian:
        entries = entries.byteswap()
    below_zero, high = table(-2, entries, 8), table(40000, entries, 8)
    assert levels([-2, -1, 0, 1], np.int16, VOILUTSequence=below_zero) == [0, 51, 102, 255]  # of signed pixels
    rescaled: dict[str, Any] = {"RescaleSlope": 1, "RescaleIntercept": -2, "VOILUTSequence": below_zero}
    assert levels([0, 1, 2, 3], np.uint16, bits=12, **rescaled) == [0, 51, 102, 255]  # of what rescaling makes negative
    rescaled["RescaleSlope"] = 2  # which makes others so high that 65534 might be meant
    assert levels([0, 1], np.uint16, **rescaled) == [0, 102]
    assert levels([40000, 40001, 40003], np.uint16, VOILUTSequence=high) == [0, 51, 255]
    # Of what a modality table gives, which is never negative, whatever the pixels are.
    modality = table(-1, np.array([40000, 40001, 40003], "<u2"), 16)
    if syntax == ExplicitVRBigEndian:
        modality[0].LUTData = np.array([40000, 40001, 40003], ">u2").tobytes()
    assert levels([-1, 0, 1], np.int16, ModalityLUTSequence=modality, VOILUTSequence=high) == [0, 51, 255]
    # Signed by its own VR in a file of unsigned pixels, which none of them would reach otherwise.
    assert levels([0, 1, 2], np.uint16, bits=12, VOILUTSequence=below_zero) == [102, 255, 255]


def test_the_first_table_goes_before_windows_and_a_broken_one_does_not() -> None:
    window: dict[str, Any] = {"WindowCenter": 10.5, "WindowWidth": 21}
    both = [*table(0, [0, 4095], 12), *table(0, [4095, 0], 12)]
    data = image_of([0, 5, 20], bits=12, VOILUTSequence=both, **window)
    assert list(show(data)[0, :3]) == [0, 255, 255]
    assert chain_of(data) == ["VOI LUT 1 of 2: 2 entries from 0, 12 bits"]
    broken = table(0, [1, 2, 3], 12, LUTDescriptor=[4, 0, 12])
    data = image_of([0, 5, 20], bits=12, VOILUTSequence=broken, **window)
    assert list(show(data)[0, :3]) == [0, 64, 255]
    assert chain_of(data) == ["window 1 of 1: centre 10.5, width 21 (LINEAR)"]
    assert code_of(image_of([0, 5, 20], bits=12, VOILUTSequence=broken)) == "malformed_dicom"


@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("descriptor", [[4096, 0, 0], [4096, 0, 17], [4097, 0, 12], [0, 0, 16], [4096, 0], None])
def test_a_table_that_contradicts_itself_is_malformed(keyword: str, descriptor: list[int] | None) -> None:
    sequence = table(0, np.arange(4096), 12, LUTDescriptor=descriptor)
    assert code_of(make_dicom(IMAGE, bits=12, **{keyword: sequence})) == "malformed_dicom"


def test_an_empty_sequence_counts_as_absent() -> None:
    data = make_dicom(IMAGE, bits=12, VOILUTSequence=[], ModalityLUTSequence=[])
    assert np.array_equal(show(data), show(make_dicom(IMAGE, bits=12)))
