"""What a file looks like once it is rendered."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from shared.detector.boxes import rescale
from shared.errors import PermanentError
from shared.imaging.rendition import Rendition, make_rendition, read_rendition
from tests.synthetic_dicom import MAX_PIXELS, make_dicom

#: An image that stored values are repeated on has this many pixels on each side.
SIDE_PX = 64


def show(data: bytes, rendition_px: int = 1024) -> NDArray[np.uint8]:
    """The pixels of a file's rendition."""
    return read_rendition(make_rendition(data, rendition_px=rendition_px, max_image_pixels=MAX_PIXELS).png)


def scale_xy(rendition: Rendition) -> tuple[float, float]:
    """Factors from a rendition's pixels to its original's."""
    sizes = (rendition.width_px, rendition.height_px), (rendition.original_width_px, rendition.original_height_px)
    _, _, x, y = rescale((0, 0, 1, 1), *sizes)[0].tolist()
    return x, y


def chain_of(data: bytes) -> list[str]:
    """What a file's rendition says of its grey levels."""
    return make_rendition(data, rendition_px=1024, max_image_pixels=MAX_PIXELS).facts.grey_levels


def code_of(data: bytes) -> str:
    """The code that a file is refused with."""
    with pytest.raises(PermanentError) as caught:
        show(data)
    return caught.value.code


def image_of(values: Sequence[int], kind: type[np.integer] = np.uint16, **elements: object) -> bytes:
    """A DICOM file in which each of `values` is stored equally often, but for a remainder."""
    return make_dicom(np.resize(np.array(values, kind), (SIDE_PX, SIDE_PX)), **elements)


def levels_of(values: Sequence[int], kind: type[np.integer] = np.uint16, **elements: object) -> list[int]:
    """The level, 0–255, at which each of `values` is shown in a DICOM file with these `elements`."""
    return [int(level) for level in show(image_of(values, kind, **elements)).ravel()[: len(values)]]


def table(first: int, entries: Sequence[int] | NDArray[np.integer], bits: int, **elements: object) -> list[Dataset]:
    """A modality or VOI LUT sequence with entries of 16 bits; `elements` replaces those of its item."""
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item["LUTDescriptor"].VR = "US" if first >= 0 else "SS"
    item.LUTData = np.asarray(entries).astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return [item]
