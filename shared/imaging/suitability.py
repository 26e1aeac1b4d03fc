"""Whether an image is what the detector was made for: a frontal chest radiograph, upright, exposed and fine enough.

A flag says what is doubtful and changes no pixel. The header speaks first (`tagged_view`), then the pixels as they are
shown, last a classifier of whole films, which knows real frontal films well and everything else from a few examples.
"""

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.imaging.chest_classifier.classifier import ChestClassifier
from shared.imaging.facts import ChestScores
from shared.vocabulary.flags import Flag

#: The shortest side, in pixels of the original. A chest is about 35 cm across: below this a pixel is 0.7 mm and more,
#: five times a detector's own, a nodule of 5 mm is 7 pixels wide, and a rendition of 1,024 px would have to invent
#: every second pixel of what the detector learned from.
LOW_RESOLUTION_PX = 512
#: Between the 5th and the 95th percentile of the shown picture's averages over a 32nd of each side, in grey levels. Of
#: 394 real films the flattest has 75; grain that was stretched to full contrast averages out to 5.
EMPTY_LEVELS = 40
#: The share of the middle 60% by 60% that is shown as black, or as white: collimators, air beside the patient and
#: markers lie around it. Of 394 real films the worst has 0.056 and the second worst 0.011.
CLIPPED_SHARE = 0.15

#: What only a header can say for certain.
_OTHER_VIEWS = frozenset({Flag.NOT_A_RADIOGRAPH, Flag.NOT_A_CHEST, Flag.LATERAL_VIEW})
_CELLS = 32


def judge(
    tag_flags: Iterable[Flag],
    shown: NDArray[np.uint8],
    original_height_px: int,
    original_width_px: int,
    classifier: ChestClassifier,
) -> tuple[list[Flag], ChestScores | None]:
    """The flags, in the order of their definition, and the classifier's scores of a rendition [H, W].

    An empty exposure has no scores: there is nothing to classify. Where the header says that an image is no frontal
    chest radiograph, the classifier's word for which way up it is, or which grey it is in, is left out.
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
