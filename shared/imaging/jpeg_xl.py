"""Reads the header of a JPEG XL codestream (ISO/IEC 18181-1 annex D): bit fields, lowest bit of each byte first."""

from shared.errors import MultiFrameImage, UndecodablePixelData
from shared.imaging.codestream import CodestreamHeader, find_box

SIGNATURE = b"\xff\x0a"
CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
#: Ratio of width to height if the width is not stated: (numerator, denominator) by code.
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
GREY = 1
#: Many times the size of the fields that are read.
_HEADER_BYTES = 64

#: The four ways to write an integer: (offset, number of bits).
Ways = tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]
_SIZE: Ways = ((1, 9), (1, 13), (1, 18), (1, 30))
BITS: Ways = ((8, 0), (10, 0), (12, 0), (1, 6))
COUNT: Ways = ((0, 0), (1, 0), (2, 4), (1, 12))
ENUM: Ways = ((0, 0), (1, 0), (2, 4), (18, 6))


def read_jpeg_xl_header(data: bytes) -> CodestreamHeader:
    """Read the size and the bit depth of a codestream, bare or in its container.

    `ended` is always True: the decoder rejects cut-off data. Raises `MultiFrameImage` for an animation, and
    `UndecodablePixelData` for an image with a preview, an orientation, extra channels or floats.
    """
    if data.startswith(CONTAINER):
        data = find_box(data, b"jxlc", b"jxlp")
        data = data if data.startswith(SIGNATURE) else data[4:]  # a partial codestream starts with its number
    if not data.startswith(SIGNATURE):
        raise UndecodablePixelData
    bits = Bits(data[len(SIGNATURE) : _HEADER_BYTES])
    height_px, width_px = read_size(bits)
    if bits.flag():  # all defaults: 8 bits in three colours
        return CodestreamHeader(height_px, width_px, 3, 8, signed=False, ended=True)
    if bits.flag():
        read_extra_fields(bits)
    if bits.flag():  # floats
        raise UndecodablePixelData
    depth = bits.integer(BITS)
    bits.take(1)  # whether 16-bit buffers are enough for decoding
    if bits.integer(COUNT):  # extra channels
        raise UndecodablePixelData
    bits.take(1)  # whether the colour space is XYB
    # Colours: whether all defaults apply, whether there is an ICC profile, and the colour space.
    grey = not bits.flag() and (bits.take(1), bits.integer(ENUM))[1] == GREY
    return CodestreamHeader(height_px, width_px, 1 if grey else 3, depth, signed=False, ended=True)


class Bits:
    """Reads the bit fields of a codestream, lowest bit of each byte first (annex A)."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position, self._end = data, 0, 8 * len(data)

    def take(self, count: int) -> int:
        """Return the next `count` bits, at most 32; raises `UndecodablePixelData` if there are fewer."""
        first, shift = divmod(self._position, 8)
        self._position += count
        if self._position > self._end:
            raise UndecodablePixelData
        return int.from_bytes(self._data[first : first + 5], "little") >> shift & (1 << count) - 1

    def byte_position(self) -> int:
        """Skip to the next whole byte and return its position; the skipped bits must be 0 (A.3.1)."""
        if self.take(-self._position % 8):
            raise UndecodablePixelData
        return self._position // 8

    def next_byte(self) -> int:
        """Return the position of the next whole byte, without skipping to it."""
        return -(-self._position // 8)

    def at(self, byte_position: int) -> "Bits":
        """Return a reader that starts at `byte_position`."""
        bits = Bits(self._data)
        bits._position = 8 * byte_position
        return bits

    def flag(self) -> bool:
        """Return the next bit."""
        return bool(self.take(1))

    def integer(self, ways: Ways) -> int:
        """Return an integer; two bits before it select one of its `ways`."""
        least, count = ways[self.take(2)]
        return least + self.take(count)


def read_size(bits: Bits) -> tuple[int, int]:
    """Read height and width."""
    small = bits.flag()

    def side() -> int:
        return 8 * (1 + bits.take(5)) if small else bits.integer(_SIZE)

    height_px, code = side(), bits.take(3)
    if code == 0:
        return height_px, side()
    numerator, denominator = _RATIOS[code]
    return height_px, height_px * numerator // denominator


def read_extra_fields(bits: Bits) -> None:
    """Skip the fields about display.

    Raises `UndecodablePixelData` for an orientation or a preview, and `MultiFrameImage` for an animation.
    """
    turned = bits.take(3)
    if bits.flag():  # the intrinsic size, which is ignored
        read_size(bits)
    has_preview, is_animated = bits.flag(), bits.flag()
    if turned or has_preview:
        raise UndecodablePixelData
    if is_animated:
        raise MultiFrameImage
