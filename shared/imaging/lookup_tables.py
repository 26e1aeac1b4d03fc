"""Modality and VOI LUTs: one entry of one value after another (PS3.3 C.11.1.1.1 and C.11.2.1.1)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from shared.errors import MalformedDicom
from shared.imaging.dicom_file import quietly
from shared.imaging.windows import Floats


@dataclass(frozen=True)
class Table:
    """A LUT: values below its first and above its last entry take these."""

    first: int
    #: [n]
    entries: Floats
    #: The entries' full range is 0 to 2**bits - 1.
    bits: int

    def apply(self, values: Floats) -> Floats:
        """The entries that `values` point at."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(np.int64)
        entries: Floats = np.take(self.entries, index)
        return entries

    def brightness(self, values: Floats) -> Floats:
        """Brightness of `values`, in 0–1."""
        return self.apply(values) / (2.0**self.bits - 1)

    def __str__(self) -> str:
        return f"{len(self.entries)} entries from {self.first}, {self.bits} bits"


def read_table(item: Dataset, *, highest: float, signed: bool, little_endian: bool) -> Table:
    """Read one item of a LUT sequence whose input is at most `highest`, and may be negative where it is `signed`.

    Entries that need more bits than the descriptor says have as many as the largest one needs. Raises `MalformedDicom`.
    """
    _, first, bits, entries = read_entries(item, little_endian=little_endian)
    if first >= 32768 and (signed or first > highest):
        first -= 65536
    return Table(first, entries, max(bits, int(entries.max()).bit_length()))


def read_entries(item: Dataset, *, little_endian: bool) -> tuple[int, int, int, Floats]:
    """The descriptor's three numbers, the first input as 16 bits without a sign, and as many entries as it says.

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
    """All entries; 8-bit ones lie packed or, by some writers, each in 16 bits. Only the length tells which."""
    if not isinstance(data, bytes):
        words = (np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF).astype(np.uint16)
        if len(words) >= count:
            return words.astype(np.float64)
        data, little_endian = words.astype("<u2").tobytes(), True
    if len(data) > count + 1:  # an odd number of packed entries is padded to an even one
        return np.frombuffer(data, "<u2" if little_endian else ">u2", len(data) // 2).astype(np.float64)
    packed = np.frombuffer(data, np.uint8)
    if in_words and not little_endian:  # of two entries in a word the first one is the low byte
        packed = packed[: len(packed) // 2 * 2].reshape(-1, 2)[:, ::-1].ravel()
    return packed.astype(np.float64)
