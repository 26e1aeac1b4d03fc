"""What a JPEG XL codestream says of its size, ISO/IEC 18181-1 annex D: bits, the lowest of each byte first."""

from shared.errors import MultiFrameImage, UndecodablePixelData
from shared.imaging.codestream import CodestreamHeader, find_box

SIGNATURE = b"\xff\x0a"
CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
#: Width by height, where it is not said: (numerator, denominator) by its code.
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
GREY = 1
#: All that is read fits in here many times over.
_HEADER_BYTES = 64

#: The four ways to write an integer: what is added to how many bits.
Ways = tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]
_SIZE: Ways = ((1, 9), (1, 13), (1, 18), (1, 30))
BITS: Ways = ((8, 0), (10, 0), (12, 0), (1, 6))
COUNT: Ways = ((0, 0), (1, 0), (2, 4), (1, 12))
ENUM: Ways = ((0, 0), (1, 0), (2, 4), (18, 6))


def read_jpeg_xl_header(data: bytes) -> CodestreamHeader:
    """Read the size and the depth of a codestream, bare or in its container.

    Raises `MultiFrameImage` for an animation, and `UndecodablePixelData` for what is no plain image of integers: a
    preview, a turned picture, floats. Its decoder refuses what was cut off.
    """
    if data.startswith(CONTAINER):
        data = find_box(data, b"jxlc", b"jxlp")
        data = data if data.startswith(SIGNATURE) else data[4:]  # a part begins with its number
    if not data.startswith(SIGNATURE):
        raise UndecodablePixelData
    bits = Bits(data[len(SIGNATURE) : _HEADER_BYTES])
    height_px, width_px = read_size(bits)
    if bits.flag():  # every default: 8 bits in three colours
        return CodestreamHeader(height_px, width_px, 3, 8, signed=False, ended=True)
    if bits.flag():
        read_extra_fields(bits)
    if bits.flag():  # floats
        raise UndecodablePixelData
    depth = bits.integer(BITS)
    bits.take(1)  # whether 16 bits are enough for a decoder's buffers
    if bits.integer(COUNT):  # channels beside the colours
        raise UndecodablePixelData
    bits.take(1)  # whether colours are stored as the eye sees them
    # Colours: whether every default holds, whether an ICC profile tells them, and their space.
    grey = not bits.flag() and (bits.take(1), bits.integer(ENUM))[1] == GREY
    return CodestreamHeader(height_px, width_px, 1 if grey else 3, depth, signed=False, ended=True)


class Bits:
    """Fields of a codestream, the lowest bit of each byte first (annex A)."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position, self._end = data, 0, 8 * len(data)

    def take(self, count: int) -> int:
        """The next up to 32 bits; raises `UndecodablePixelData` where there are fewer."""
        first, shift = divmod(self._position, 8)
        self._position += count
        if self._position > self._end:
            raise UndecodablePixelData
        return int.from_bytes(self._data[first : first + 5], "little") >> shift & (1 << count) - 1

    def byte_position(self) -> int:
        """Where the next whole byte begins; the bits before it are skipped, and have to be 0 (A.3.1)."""
        if self.take(-self._position % 8):
            raise UndecodablePixelData
        return self._position // 8

    def next_byte(self) -> int:
        """Where the next whole byte begins."""
        return -(-self._position // 8)

    def at(self, byte_position: int) -> "Bits":
        """The fields from there on."""
        bits = Bits(self._data)
        bits._position = 8 * byte_position
        return bits

    def flag(self) -> bool:
        """The next bit."""
        return bool(self.take(1))

    def integer(self, ways: Ways) -> int:
        """An integer, and before it the way in which it is written."""
        least, count = ways[self.take(2)]
        return least + self.take(count)


def read_size(bits: Bits) -> tuple[int, int]:
    """Height and width."""
    small = bits.flag()

    def side() -> int:
        return 8 * (1 + bits.take(5)) if small else bits.integer(_SIZE)

    height_px, code = side(), bits.take(3)
    if code == 0:
        return height_px, side()
    numerator, denominator = _RATIOS[code]
    return height_px, height_px * numerator // denominator


def read_extra_fields(bits: Bits) -> None:
    """Skip what is about showing an image; raise for a preview, a turned picture and an animation."""
    turned = bits.take(3)
    if bits.flag():  # the size to be shown at, which is nothing to us
        read_size(bits)
    has_preview, is_animated = bits.flag(), bits.flag()
    if turned or has_preview:
        raise UndecodablePixelData
    if is_animated:
        raise MultiFrameImage
