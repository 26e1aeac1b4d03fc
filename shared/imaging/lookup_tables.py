"""Modality and VOI LUTs: one entry for each consecutive value (PS3.3 C.11.1.1.1 and C.11.2.1.1)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from shared.errors import MalformedDicom
from shared.imaging.dicom_file import quietly
from shared.imaging.windows import Floats


@dataclass(frozen=True)
class Table:
    """A LUT: values below its range take the first entry, values above it the last."""

    first: int
    #: [n]
    entries: Floats
    #: The entries' full range is 0 to 2**bits - 1.
    bits: int

    def apply(self, values: Floats) -> Floats:
        """Return the entries of `values`."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(np.int64)
        entries: Floats = np.take(self.entries, index)
        return entries

    def brightness(self, values: Floats) -> Floats:
        """Return the brightness of `values`, in 0–1."""
        return self.apply(values) / (2.0**self.bits - 1)

    def __str__(self) -> str:
        return f"{len(self.entries)} entries from {self.first}, {self.bits} bits"


def read_table(item: Dataset, *, highest: float, signed: bool, little_endian: bool) -> Table:
    """Read one item of a LUT sequence. Its input is at most `highest`, and can be negative if `signed`.

    If the entries need more bits than the descriptor states, the largest entry determines the bits. Raises
    `MalformedDicom`.
    """
    _, first, bits, entries = read_entries(item, little_endian=little_endian)
    if first >= 32768 and (signed or first > highest):
        first -= 65536
    return Table(first, entries, max(bits, int(entries.max()).bit_length()))


def read_entries(item: Dataset, *, little_endian: bool) -> tuple[int, int, int, Floats]:
    """Return the descriptor's three numbers (count, first input as unsigned 16 bits, bits) and the entries.

    Raises `MalformedDicom`.
    """
    with quietly(MalformedDicom):
        count, first, bits = (int(number) & 0xFFFF for number in item.LUTDescriptor)
        count = count or 65536  # 2**16 does not fit in the descriptor's 16 bits
        entries = _read_entries(item["LUTData"].value, count, little_endian, in_words=item["LUTData"].VR == "OW")
        if len(entries) < count or not 1 <= bits <= 16:
            raise MalformedDicom
        return count, first, bits, entries[:count]


def _read_entries(data: Any, count: int, little_endian: bool, *, in_words: bool) -> Floats:
    """Return all entries. 8-bit entries are packed, or in 16 bits each by some writers; only the length shows which."""
    if not isinstance(data, bytes):
        words = (np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF).astype(np.uint16)
        if len(words) >= count:
            return words.astype(np.float64)
        data, little_endian = words.astype("<u2").tobytes(), True
    if len(data) > count + 1:  # an odd number of packed entries is padded to an even one
        return np.frombuffer(data, "<u2" if little_endian else ">u2", len(data) // 2).astype(np.float64)
    packed = np.frombuffer(data, np.uint8)
    if in_words and not little_endian:  # the low byte of a word is the first of its two entries
        packed = packed[: len(packed) // 2 * 2].reshape(-1, 2)[:, ::-1].ravel()
    return packed.astype(np.float64)
