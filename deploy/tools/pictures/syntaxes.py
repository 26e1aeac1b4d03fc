"""Draws one image in eight transfer syntaxes, as its file holds it and as Carina shows it.

`python -m deploy.tools.pictures.syntaxes docs/pictures/syntaxes.png` draws the picture of `docs/dicom.md`.
"""

import argparse
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from shared.imaging.decode import decode
from shared.imaging.dicom_file import read_dicom
from shared.imaging.frames import read_frame
from shared.imaging.header import PREFIX_BYTES
from shared.imaging.rendition import make_rendition, read_rendition
from shared.phantoms import encode_dicom, make_phantom, stored_values
from shared.phantoms.encoding import UIDS, TransferSyntax

#: By transfer syntax, what people call it.
SYNTAXES: dict[TransferSyntax, str] = {
    "explicit": "uncompressed",
    "rle": "RLE",
    "jpeg-lossless": "JPEG Lossless",
    "jpeg-ls": "JPEG-LS",
    "jpeg-2000": "JPEG 2000",
    "htj2k": "HTJ2K",
    "jpeg-xl": "JPEG XL",
    "jpeg-extended": "JPEG Extended",
}
SEED = 7
BITS: Literal[12] = 12
PANEL_PX = 208, 176  # height, width
_GAP_PX, _TEXT_PX, _MARGIN_PX = 12, 13, 84
#: Bytes of compressed data are noise, which a PNG cannot make smaller; so many of their levels look the same.
_NOISE_LEVELS = 32
_Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Column:
    """One syntax of the picture."""

    name: str
    uid: str
    held: _Grey  # [h, w]: the frame's bytes, one after the other, at most of the panel's size
    shown: _Grey  # [h, w]: the rendition
    frame_bytes: int
    #: Of the stored values.
    largest_error: int
    mean_error: float


def columns(height_px: int) -> list[Column]:
    """Encode an image of `height_px`, and decode it again, in every one of `SYNTAXES`."""
    height, width = PANEL_PX
    phantom = make_phantom(SEED, height_px, height_px * width // height)
    stored = stored_values(phantom, BITS, "MONOCHROME2")
    made = []
    for syntax, name in SYNTAXES.items():
        file = encode_dicom(phantom, bits_stored=BITS, transfer_syntax=syntax)
        frame = read_frame(read_dicom(file, max_bytes=PREFIX_BYTES))
        error = np.abs(decode(file, stored.size).pixels.astype(np.int64) - stored)
        rendition = make_rendition(file, rendition_px=max(PANEL_PX), max_image_pixels=stored.size)
        held = _lay_out(np.frombuffer(frame, np.uint8), stored.shape)
        shown = read_rendition(rendition.png)
        made.append(Column(name, UIDS[syntax], held, shown, len(frame), int(error.max()), float(error.mean())))
    return made


def _lay_out(data: _Grey, image_shape: tuple[int, ...]) -> _Grey:
    """Bytes line by line, as many in each as a row of the image has, some of them; all of its cells fill the panel."""
    (height, width), row_bytes = PANEL_PX, 2 * image_shape[1]
    lines = data[: len(data) // row_bytes * row_bytes].reshape(-1, row_bytes)
    size = width, max(1, round(len(lines) * height / image_shape[0]))
    step = 256 // _NOISE_LEVELS
    return np.asarray(cv2.resize(lines, size, interpolation=cv2.INTER_NEAREST) // step * step, np.uint8)


def draw(made: list[Column]) -> bytes:
    """The picture as a grey PNG."""
    height, width = PANEL_PX
    size = _MARGIN_PX + len(made) * (width + _GAP_PX), 2 * height + _GAP_PX + 6 * _TEXT_PX + 2 * _GAP_PX + 6
    canvas = Image.new("L", size, 255)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(_TEXT_PX)
    before_y = 2 * _TEXT_PX + _GAP_PX
    after_y = before_y + height + _GAP_PX
    for text, y in (("as the\nfile\nholds it", before_y), ("as\nCarina\nshows it", after_y)):
        pen.multiline_text((_GAP_PX, y), text, 0, font)
    whole = made[0].frame_bytes
    for index, column in enumerate(made):
        x = _MARGIN_PX + index * (width + _GAP_PX)
        pen.text((x, _GAP_PX // 2), column.name, 0, font)
        pen.text((x, _GAP_PX // 2 + _TEXT_PX + 1), column.uid, 110, ImageFont.load_default(_TEXT_PX - 3))
        pen.rectangle((x, before_y, x + width - 1, before_y + height - 1), 235)
        canvas.paste(Image.fromarray(column.held), (x, before_y))
        canvas.paste(Image.fromarray(column.shown), (x, after_y))
        size_line = f"{column.frame_bytes / 1e6:.2f} MB, {column.frame_bytes / whole:.0%}"
        loss = f"off by {column.mean_error:.1f} of {2**BITS},\nat most {column.largest_error}"
        error_lines = loss if column.largest_error else "every value exact"
        pen.multiline_text((x, after_y + height + 4), f"{size_line}\n{error_lines}", 0, font)
    buffer = BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, help="the PNG file to write")
    parser.add_argument("--height-px", type=int, default=2080, help="of the image")
    arguments = parser.parse_args()
    arguments.picture.write_bytes(draw(columns(arguments.height_px)))


if __name__ == "__main__":
    main()
