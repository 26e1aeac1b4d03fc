"""What becomes of an image that preparing has found doubtful: nothing, a flag beside its result, or a refusal."""

from collections.abc import Mapping
from typing import Literal

from shared.errors import (
    ClippedExposure,
    EmptyExposure,
    LateralView,
    NotAChest,
    NotARadiograph,
    RotatedImage,
    UnsuitableImage,
)
from shared.imaging.facts import Flag, ImageFacts

Suitability = Literal["off", "flag", "reject"]

#: What says that an image is no frontal chest film that findings could be read from; the first that holds is the job's
#: code. Not among them: a suspected inversion, a low resolution and an irregular file, where findings are less certain
#: but not void.
REFUSALS: Mapping[Flag, type[UnsuitableImage]] = {
    Flag.NOT_A_RADIOGRAPH: NotARadiograph,
    Flag.NOT_A_CHEST: NotAChest,
    Flag.LATERAL_VIEW: LateralView,
    Flag.ROTATED: RotatedImage,
    Flag.EMPTY_EXPOSURE: EmptyExposure,
    Flag.CLIPPED_EXPOSURE: ClippedExposure,
}
#: Flags that are kept whatever the gate is set to.
_OF_THE_PICTURE = {Flag.SUSPECTED_INVERSION, Flag.IRREGULAR_FILE}


def refusal(suitability: Suitability, facts: ImageFacts) -> UnsuitableImage | None:
    """Why the setting has an image of these facts refused; None where it has not."""
    if suitability != "reject":
        return None
    return next((error() for flag, error in REFUSALS.items() if flag in facts.flags), None)


def kept(suitability: Suitability, facts: ImageFacts) -> ImageFacts:
    """The facts as they are to be stored: where the gate is off, only flags that tell how far to trust the picture.

    These are no matter of the gate: the picture, and so the findings, may be of the negative or of a file misread.
    """
    if suitability != "off":
        return facts
    return facts.model_copy(update={"flags": [flag for flag in facts.flags if flag in _OF_THE_PICTURE]})
