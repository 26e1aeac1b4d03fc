"""The `viewport` parameter: the part of a picture to show, and its size, PS3.18 section 8.3.5.1.3."""

import math
from dataclasses import dataclass

import PIL.Image

from shared.errors import InvalidRequest

_MAX_SIDE_PX = 4096
_FORM = (
    "The viewport must be two numbers from 1 to 4096, `width,height`; a rendered resource also takes"
    " `,x,y,width,height` of the part to show, in pixels of the image, each of which may be empty."
)


@dataclass(frozen=True)
class Viewport:
    """A size to fit into, and the part of an image to show; None as width or height: up to the image's edge."""

    width_px: int
    height_px: int
    left: float = 0
    top: float = 0
    region_width: float | None = None
    region_height: float | None = None

    def show(self, picture: PIL.Image.Image, image_size_px: tuple[int, int]) -> PIL.Image.Image:
        """Return the part of a picture, as large as fits. `image_size_px` [H, W] is the size that the region refers to.

        Raises `InvalidRequest` if the region contains no pixel of the image.
        """
        height_px, width_px = image_size_px
        left, right, turn_x = _span(self.left, self.region_width, width_px)
        top, bottom, turn_y = _span(self.top, self.region_height, height_px)
        across, down = picture.width / width_px, picture.height / height_px
        box = int(left * across), int(top * down), math.ceil(right * across), math.ceil(bottom * down)
        part = picture.crop(box)
        scale = min(self.width_px / part.width, self.height_px / part.height)
        size = max(1, round(part.width * scale)), max(1, round(part.height * scale))
        shown = part.resize(size, PIL.Image.Resampling.BILINEAR)
        for turn, method in (
            (turn_x, PIL.Image.Transpose.FLIP_LEFT_RIGHT),
            (turn_y, PIL.Image.Transpose.FLIP_TOP_BOTTOM),
        ):
            shown = shown.transpose(method) if turn else shown
        return shown


def read_viewport(text: str, *, with_region: bool = True) -> Viewport | None:
    """Parse the parameter; None if it is empty. Raises `InvalidRequest` if it is not valid."""
    if not text:
        return None
    sizes, region = text.split(",")[:2], text.split(",")[2:]
    try:
        width_px, height_px = (int(size) for size in sizes)
        left, top, width, height = (
            float(part) if part.strip() else None for part in [*region, *[""] * (4 - len(region))]
        )
    except ValueError as exc:
        raise InvalidRequest(_FORM) from exc
    numbers = [number for number in (left, top, width, height) if number is not None]
    is_finite = all(abs(number) < 2**31 for number in numbers)
    if not (1 <= width_px <= _MAX_SIDE_PX and 1 <= height_px <= _MAX_SIDE_PX and is_finite):
        raise InvalidRequest(_FORM)
    if region and not with_region:
        raise InvalidRequest("The viewport of a thumbnail has a width and a height only.")
    return Viewport(width_px, height_px, left or 0, top or 0, width, height)


def _span(start: float, length: float | None, side_px: int) -> tuple[float, float, bool]:
    """Return the start and end of a region within a side, and whether to flip it, which a negative length means."""
    end = side_px if length is None else start + abs(length)
    start, end = max(0.0, start), min(float(side_px), end)
    if end - start < 1:
        raise InvalidRequest("The viewport's region has no pixel of the image.")
    return start, end, length is not None and length < 0
