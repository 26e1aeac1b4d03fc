"""Applies `CARINA_SUITABILITY` to doubtful images. `shared.imaging.suitability` raises the flags."""

from typing import Literal

from shared.errors import Place, UnsuitableImage, plain_code
from shared.imaging.facts import ImageFacts
from shared.vocabulary.flags import Flag, Severity

Suitability = Literal["off", "flag", "reject"]

for _flag in Flag:
    if _flag.rejects:
        plain_code(_flag, _flag.meaning, Place.JOB, is_final=True)


def refusal(suitability: Suitability, facts: ImageFacts) -> UnsuitableImage | None:
    """Return why the image is rejected under this setting, or None."""
    if suitability != "reject":
        return None
    return next((UnsuitableImage(flag, flag.meaning) for flag in facts.flags if flag.rejects), None)


def kept(suitability: Suitability, facts: ImageFacts) -> ImageFacts:
    """Return the facts to store. If the setting is `off`, only flags of images that may be misread are kept."""
    if suitability != "off":
        return facts
    return facts.model_copy(update={"flags": [flag for flag in facts.flags if flag.severity is Severity.MISREAD]})
