"""What a JPEG XL codestream says of its size, ISO/IEC 18181-1 annex D: bits, the lowest of each byte first."""

from shared.errors import MultiFrameImage, UndecodablePixelData
from shared.imaging.codestream import CodestreamHeader, find_box

_SIGNATURE = b"\xff\x0a"
_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
#: Width by height, where it is not said: (numerator, denominator) by its code.
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_GREY = 1
#: All that is read fits in here many times over.
_HEADER_BYTES = 64

#: The four ways to write an integer: what is added to how many bits.
_Ways = tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]
_SIZE: _Ways = ((1, 9), (1, 13), (1, 18), (1, 30))
_BITS: _Ways = ((8, 0), (10, 0), (12, 0), (1, 6))
_COUNT: _Ways = ((0, 0), (1, 0), (2, 4), (1, 12))
_ENUM: _Ways = ((0, 0), (1, 0), (2, 4), (18, 6))


def read_jpeg_xl_header(data: bytes) -> CodestreamHeader:
    """Read the size and the depth of a codestream, bare or in its container.

    Raises `MultiFrameImage` for an animation, and `UndecodablePixelData` for what is no plain image of integers: a
    preview, a turned picture, floats. Its decoder refuses what was cut off.
    """
    if data.startswith(_CONTAINER):
        data = find_box(data, b"jxlc", b"jxlp")
        data = data if data.startswith(_SIGNATURE) else data[4:]  # a part begins with its number
    if not data.startswith(_SIGNATURE):
        raise UndecodablePixelData
    bits = _Bits(data[len(_SIGNATURE) : _HEADER_BYTES])
    height_px, width_px = _read_size(bits)
    if bits.flag():  # every default: 8 bits in three colours
        return CodestreamHeader(height_px, width_px, 3, 8, signed=False, ended=True)
    if bits.flag():
        _read_extra_fields(bits)
    if bits.flag():  # floats
        raise UndecodablePixelData
    depth = bits.integer(_BITS)
    bits.take(1)  # whether 16 bits are enough for a decoder's buffers
    if bits.integer(_COUNT):  # channels beside the colours
        raise UndecodablePixelData
    bits.take(1)  # whether colours are stored as the eye sees them
    # Colours: whether every default holds, whether an ICC profile tells them, and their space.
    grey = not bits.flag() and (bits.take(1), bits.integer(_ENUM))[1] == _GREY
    return CodestreamHeader(height_px, width_px, 1 if grey else 3, depth, signed=False, ended=True)


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise UndecodablePixelData
        taken = self._value & (1 << count) - 1
        self._value >>= count
        self._left -= count
        return taken

    def flag(self) -> bool:
        return bool(self.take(1))

    def integer(self, ways: _Ways) -> int:
        least, count = ways[self.take(2)]
        return least + self.take(count)


def _read_size(bits: _Bits) -> tuple[int, int]:
    small = bits.flag()

    def side() -> int:
        return 8 * (1 + bits.take(5)) if small else bits.integer(_SIZE)

    height_px, code = side(), bits.take(3)
    if code == 0:
        return height_px, side()
    numerator, denominator = _RATIOS[code]
    return height_px, height_px * numerator // denominator


def _read_extra_fields(bits: _Bits) -> None:
    turned = bits.take(3)
    if bits.flag():  # the size to be shown at, which is nothing to us
        _read_size(bits)
    has_preview, is_animated = bits.flag(), bits.flag()
    if turned or has_preview:
        raise UndecodablePixelData
    if is_animated:
        raise MultiFrameImage
