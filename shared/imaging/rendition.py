"""Makes the rendition of an image, which serving, training and the reader all use."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.errors import UndecodablePixelData
from shared.imaging.facts import ImageFacts
from shared.imaging.geometry import rendition_size
from shared.imaging.shrinking import shrink
from shared.version import RENDITION_VERSION

if TYPE_CHECKING:
    from shared.imaging.chest_classifier.classifier import ChestClassifier

#: The noise of a radiograph has no repetitions, so a search for them makes the file larger, and slower to write and
#: read. The filter UP is decoded 16 pixels at a time.
_PNG = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
)


@dataclass(frozen=True)
class Rendition:
    """An 8-bit grey PNG (0 is black), and the size of its original."""

    png: bytes
    height_px: int
    width_px: int
    original_height_px: int
    original_width_px: int
    facts: ImageFacts = field(default_factory=ImageFacts)
    version: int = RENDITION_VERSION


def make_rendition(
    data: bytes,
    *,
    rendition_px: int,
    max_image_pixels: int,
    classifier: "ChestClassifier | None" = None,
    threads: int = 1,
) -> Rendition:
    """Render a DICOM, PNG or JPEG file in square pixels, at most `rendition_px` on its longest side, never enlarged.

    Stored values are averaged over areas first, then the grey-level chain is applied to the smaller image as one table.
    This is 8 times as fast as the opposite order, and differs by at most one grey level. Without a `classifier`, the
    shipped one is used. `threads` and the errors are those of `shared.imaging.decode.decode`.
    """
    # Imported here, so that code that only reads renditions needs no decoders of originals.
    from shared.imaging.chest_classifier.classifier import load_classifier
    from shared.imaging.decode import decode
    from shared.imaging.suitability import judge

    image = decode(data, max_image_pixels, threads)
    height_px, width_px = image.pixels.shape
    size = rendition_size(height_px, width_px, rendition_px, image.geometry.aspect)
    small, padded = shrink(image.pixels, *size, image.grey_levels.padding)
    shown = image.grey_levels.render(small, padded)
    _, png = cv2.imencode(".png", shown.pixels, _PNG)
    flags, scores = judge(image.tag_flags, shown.pixels, height_px, width_px, classifier or load_classifier())
    facts = ImageFacts(spacing=image.geometry.spacing, grey_levels=shown.chain, flags=flags, chest_scores=scores)
    return Rendition(png.tobytes(), *size, height_px, width_px, facts)


def read_rendition(png: bytes) -> NDArray[np.uint8]:
    """Return the pixels of a rendition, uint8 [H, W]; raises `UndecodablePixelData`."""
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE) if png else None
    if pixels is None:
        raise UndecodablePixelData
    return np.asarray(pixels, np.uint8)
