"""Checks whether an image suits the detector: an upright frontal chest radiograph with good exposure and resolution.

A flag marks an image as doubtful and changes no pixels. Flags come from the header (`tagged_view`), from the rendered
pixels, and from the chest classifier. The classifier was trained on many real frontal images, and on few examples of
other images.
"""

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.imaging.chest_classifier.classifier import ChestClassifier
from shared.imaging.facts import ChestScores
from shared.vocabulary.flags import Flag

#: Minimum length of the shorter side, in pixels of the original. A chest is about 35 cm wide. In a smaller image, a
#: pixel is larger than 0.7 mm, five times a detector's pixel, and a nodule of 5 mm is 7 pixels wide. A rendition of
#: 1,024 px would contain only half of the resolution that the detector was trained on.
LOW_RESOLUTION_PX = 512
#: Minimum difference in grey levels between the 5th and the 95th percentile of the rendition, averaged to 32 × 32
#: cells. Of 394 real images, the flattest has 75. Noise that is stretched to full contrast averages to 5.
EMPTY_LEVELS = 40
#: Maximum share of black or white pixels in the central 60% × 60%; collimators, air beside the patient and markers are
#: outside it. Of 394 real images, the two highest shares are 0.056 and 0.011.
CLIPPED_SHARE = 0.15

#: Flags that only a header can determine with certainty.
_OTHER_VIEWS = frozenset({Flag.NOT_A_RADIOGRAPH, Flag.NOT_A_CHEST, Flag.LATERAL_VIEW})
_CELLS = 32


def judge(
    tag_flags: Iterable[Flag],
    shown: NDArray[np.uint8],
    original_height_px: int,
    original_width_px: int,
    classifier: ChestClassifier,
) -> tuple[list[Flag], ChestScores | None]:
    """Return the flags, in the order of their definition, and the classifier's scores of a rendition [H, W].

    An empty exposure has no scores. If the header states that the image is not a frontal chest radiograph, the
    classifier's flags for rotation and inversion are ignored.
    """
    flags = set(tag_flags)
    scores = None
    if min(original_height_px, original_width_px) < LOW_RESOLUTION_PX:
        flags.add(Flag.LOW_RESOLUTION)
    if _is_empty(shown):
        flags.add(Flag.EMPTY_EXPOSURE)
    else:
        if _is_clipped(shown):
            flags.add(Flag.CLIPPED_EXPOSURE)
        scores = classifier.look_at(shown)
        found = classifier.flag(scores)
        if found is Flag.NOT_A_CHEST or (found and not flags & _OTHER_VIEWS):
            flags.add(found)
    return [flag for flag in Flag if flag in flags], scores


def _is_empty(shown: NDArray[np.uint8]) -> bool:
    cells = cv2.resize(shown, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    low, high = np.percentile(cells, (5, 95))
    return bool(high - low < EMPTY_LEVELS)


def _is_clipped(shown: NDArray[np.uint8]) -> bool:
    height_px, width_px = shown.shape
    middle = shown[height_px // 5 : height_px - height_px // 5, width_px // 5 : width_px - width_px // 5]
    return max(int(np.count_nonzero(middle == end)) for end in (0, 255)) > CLIPPED_SHARE * middle.size
