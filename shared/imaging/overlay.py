"""Draws findings on a rendition for the reader."""

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

RESEARCH_NOTE = "Research use only. Not a medical device."

#: The palette of Okabe and Ito (2008) without black; its colours are distinct for all kinds of colour vision.
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
_DARK, _LIGHT = "#101010", "#FFFFFF"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class OverlayBox:
    """One finding; the box is in rendition pixels."""

    box_xyxy_px: tuple[float, float, float, float]
    label: str
    score: float

    @property
    def text(self) -> str:
        """The text beside the box."""
        return f"{self.label} {self.score:.2f}"


def draw_overlay(
    rendition: NDArray[np.uint8],
    boxes: Sequence[OverlayBox],
    note: str = "",
    colours: Mapping[str, str] | None = None,
) -> bytes:
    """Draw `boxes` on a rendition, uint8 [H, W]; returns an RGB PNG of the same width.

    `colours` has a colour for each label; the default is the result of `assign_colours`. A strip with `RESEARCH_NOTE`
    and `note` is added below the rendition, so that it hides no pixels.
    """
    height_px, width_px = rendition.shape
    longest_px = max(height_px, width_px)
    font = ImageFont.load_default(max(12, longest_px / 52))
    picture = Image.fromarray(rendition).convert("RGB")
    draw = ImageDraw.Draw(picture)
    colours = colours or assign_colours(box.label for box in boxes)
    by_score = sorted(boxes, key=lambda box: box.score)  # the box with the highest score is drawn last, on top
    for box in by_score:
        _draw_box(draw, box.box_xyxy_px, colours[box.label], max(2, round(longest_px / 380)))
    taken: list[Box] = []
    for box in reversed(by_score):
        taken.append(_draw_label(draw, box, colours[box.label], font, taken))
    return _to_png(_add_footer(picture, " · ".join(filter(None, (RESEARCH_NOTE, note)))))


def assign_colours(labels: Iterable[str]) -> dict[str, str]:
    """Assign a colour to each label: mostly the same one in all images, and distinct if the palette is large enough."""
    colours: dict[str, str] = {}
    for label in sorted(set(labels)):
        start = zlib.crc32(label.encode()) % len(PALETTE)
        uses = Counter(colours.values())
        colours[label] = min(PALETTE[start:] + PALETTE[:start], key=lambda colour: uses[colour])
    return colours


def _draw_box(draw: ImageDraw.ImageDraw, box: Box, colour: str, line_px: int) -> None:
    """Draw a coloured frame between two dark lines, so that it is visible on bone and on air."""
    width_px, height_px = draw.im.size
    left, right = sorted(min(max(round(x), 0), width_px - 1) for x in (box[0], box[2] - 1))
    top, bottom = sorted(min(max(round(y), 0), height_px - 1) for y in (box[1], box[3] - 1))
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=_DARK, width=line_px + 2)
    draw.rectangle((left, top, right, bottom), outline=colour, width=line_px)


def _draw_label(draw: ImageDraw.ImageDraw, box: OverlayBox, colour: str, font: Font, taken: Sequence[Box]) -> Box:
    """Draw the label on a plate of its colour, and return the position of the plate."""
    _, top, _, bottom = draw.textbbox((0, 0), "Ág", font=font)  # all plates have the maximum height
    margin = max(2, round(bottom - top) // 6)
    width, height = draw.textlength(box.text, font=font) + 2 * margin, bottom - top + 2 * margin
    plate = _find_place(box.box_xyxy_px, (round(width), round(height)), draw.im.size, taken)
    draw.rectangle((plate[0], plate[1], plate[2] - 1, plate[3] - 1), fill=colour, outline=_DARK)
    ink = _DARK if _luminance(colour) > 0.3 else _LIGHT
    draw.text((plate[0] + margin, plate[1] + margin - top), box.text, font=font, fill=ink)
    return plate


def _find_place(box: Box, size: tuple[int, int], picture: tuple[int, int], taken: Sequence[Box]) -> Box:
    """Return the first position at, above or below the box that is inside the image and overlaps no other label."""
    width, height = size
    left_most, top_most = max(0, picture[0] - width), max(0, picture[1] - height)
    first: Box | None = None
    for x, y in _places(box, width, height, picture[1]):
        x, y = min(max(0, round(x)), left_most), min(max(0, round(y)), top_most)
        plate = (x, y, x + width, y + height)
        first = first or plate
        if not any(_overlap(plate, other) for other in taken):
            return plate
    assert first is not None
    return first


def _places(box: Box, width: int, height: int, picture_height: int) -> Iterator[tuple[float, float]]:
    left, top, right, bottom = box
    above = top - height
    if above >= 0:
        yield from ((left, above), (right - width, above))
    yield from ((left, bottom), (right - width, bottom), (left, top), (right - width, bottom - height))
    for step in range(1, picture_height // height + 1):  # if all are taken: search further away
        yield from ((left, above - step * height), (left, bottom + step * height))


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _luminance(colour: str) -> float:
    red, green, blue = ImageColor.getrgb(colour)[:3]
    return float(0.2126 * (red / 255) ** 2.2 + 0.7152 * (green / 255) ** 2.2 + 0.0722 * (blue / 255) ** 2.2)


def _add_footer(picture: Image.Image, text: str) -> Image.Image:
    width_px, height_px = picture.size
    font = ImageFont.load_default(max(9, max(picture.size) / 64))
    draw = ImageDraw.Draw(picture)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, font=font) > width_px - 8:
            lines.append(word)
        else:
            lines[-1] = longer
    footer = "\n".join(lines)
    bottom = draw.multiline_textbbox((4, 4), footer, font=font)[3]
    canvas = Image.new("RGB", (width_px, height_px + int(bottom) + 5), _DARK)
    canvas.paste(picture)
    ImageDraw.Draw(canvas).multiline_text((4, height_px + 4), footer, font=font, fill="#D0D0D0")
    return canvas


def _to_png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
