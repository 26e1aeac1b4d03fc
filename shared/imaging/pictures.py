"""Decodes PNG and JPEG files, which have no grey-level chain, to one grey value per pixel. For decoder processes."""

from collections.abc import Callable

import cv2
import imagecodecs
import numpy as np

from shared.errors import ColourImage, UndecodablePixelData
from shared.imaging.codestream import read_jpeg_header
from shared.imaging.dicom_file import quietly
from shared.imaging.grey_levels import Pixels
from shared.imaging.header import PREFIX_BYTES, read_header
from shared.imaging.picture_header import PNG_SIGNATURE, bare_png, read_picture_header

#: An image is in colour if its channels differ by more than this many of 255 levels in more than this share of its
#: pixels. A coloured marker or JPEG noise in a grey image stays below.
COLOUR_LEVELS, COLOUR_SHARE = 16, 0.01

#: Functions that turn the stored image into the displayed one, by EXIF orientation.
_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).T,
    8: np.rot90,
}


def decode_picture(data: bytes, max_image_pixels: int) -> Pixels:
    """Decode a PNG or JPEG to uint8 or uint16 [H, W], turned by the EXIF orientation of a JPEG.

    Values of up to 8 bits become uint8 and deeper ones uint16, without scaling. Palettes are applied. RGB pixels with
    nearly equal channels become grey. Transparency, gamma and colour profiles are ignored. Raises `ColourImage`,
    `MultiFrameImage` and `UndecodablePixelData`.
    """
    prefix = data[:PREFIX_BYTES]
    read_header(prefix, len(data), max_image_pixels=max_image_pixels)
    header = read_picture_header(prefix)
    with quietly(UndecodablePixelData):
        channels: Pixels = _decode_png(data) if data.startswith(PNG_SIGNATURE) else _decode_jpeg(data)
        if channels.shape[:2] != (header.stored_height_px, header.stored_width_px):
            raise UndecodablePixelData
        return np.ascontiguousarray(_TURNS[header.orientation](_to_grey(channels)))


def _decode_png(data: bytes) -> Pixels:
    return np.asarray(imagecodecs.png_decode(bare_png(data)))


def _decode_jpeg(data: bytes) -> Pixels:
    # The decoder silently fills missing data with grey.
    if not read_jpeg_header(data).ended:
        raise UndecodablePixelData
    return np.asarray(imagecodecs.jpeg_decode(data))


def _to_grey(channels: Pixels) -> Pixels:
    """Return one value per pixel of [H, W] or [H, W, channels]; raises `ColourImage`."""
    if channels.dtype not in (np.uint8, np.uint16):
        raise UndecodablePixelData
    if channels.ndim == 2 or channels.shape[2] <= 2:
        return channels if channels.ndim == 2 else channels[:, :, 0]
    colours = cv2.split(channels)[:3]
    spread = cv2.subtract(cv2.max(cv2.max(*colours[:2]), colours[2]), cv2.min(cv2.min(*colours[:2]), colours[2]))
    full = np.iinfo(channels.dtype).max
    if (spread > COLOUR_LEVELS * full // 255).mean() > COLOUR_SHARE:
        raise ColourImage
    return np.asarray(cv2.cvtColor(cv2.merge(colours), cv2.COLOR_RGB2GRAY), channels.dtype)
