"""What a DICOM file's pixels are once they are decoded, or why they are not."""

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.errors import PermanentError
from shared.imaging.decode import decode_dicom
from tests.synthetic_dicom import MAX_PIXELS


def pixels_of(data: bytes) -> NDArray[np.integer]:
    """The pixels [H, W] as they are stored."""
    return decode_dicom(data, MAX_PIXELS).pixels


def code_of(data: bytes) -> str:
    """The code that a file is refused with."""
    with pytest.raises(PermanentError) as caught:
        pixels_of(data)
    return caught.value.code
