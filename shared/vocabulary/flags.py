"""Finding flags: why an image may be unfit for a detector of frontal chest radiographs, or misread.

This is the only list of them. Columns, metrics, searches, refusals and the console's words all follow from it. A new
flag needs a member here, the code that raises it (`shared.imaging`), and a row in `docs/imaging.md`.
"""

from enum import Enum, StrEnum
from typing import Self


class Severity(Enum):
    """The effect of a flag on the findings of its image."""

    #: The detector was not made for such an image: its findings mean nothing, and prepare may reject it.
    UNFIT = "unfit"
    #: The picture may not show what was exposed. Kept even where `CARINA_SUITABILITY` is `off`; never rejects.
    MISREAD = "misread"
    #: The findings are less certain, but not void.
    UNCERTAIN = "uncertain"


class Flag(StrEnum):
    """What makes an image doubtful. Stable; part of the API. Of several that reject an image the first is its code."""

    #: The name that readers see.
    label: str
    #: One sentence for a reader, and for the reason of a rejected job.
    meaning: str
    severity: Severity

    def __new__(cls, code: str, label: str = "", meaning: str = "", severity: Severity = Severity.UNFIT) -> Self:
        """Make a member whose value is its code; the defaults are for `Flag(code)`, which looks one up."""
        flag = str.__new__(cls, code)
        flag._value_ = code
        flag.label, flag.meaning, flag.severity = label, meaning, severity
        return flag

    @property
    def rejects(self) -> bool:
        """Whether prepare rejects an image with this flag, where `CARINA_SUITABILITY` is `reject`."""
        return self.severity is Severity.UNFIT

    NOT_A_RADIOGRAPH = (
        "not_a_radiograph",
        "Not a radiograph",
        "The image is not a radiograph: its header names another kind of device.",
        Severity.UNFIT,
    )
    NOT_A_CHEST = (
        "not_a_chest",
        "Not a chest",
        "The image does not show a chest.",
        Severity.UNFIT,
    )
    LATERAL_VIEW = (
        "lateral_view",
        "Lateral view",
        "The image is a lateral view by its header. Send a frontal view.",
        Severity.UNFIT,
    )
    ROTATED = ("rotated", "Rotated", "The chest is shown rotated to its side or upside down.", Severity.UNFIT)
    SUSPECTED_INVERSION = (
        "suspected_inversion",
        "Suspected inversion",
        "Dark and bright look swapped, as after a wrong photometric interpretation. The image is shown as tagged.",
        Severity.MISREAD,
    )
    EMPTY_EXPOSURE = (
        "empty_exposure",
        "Empty exposure",
        "The image shows nothing: it has almost no contrast.",
        Severity.UNFIT,
    )
    CLIPPED_EXPOSURE = (
        "clipped_exposure",
        "Clipped exposure",
        "Large parts of the image are completely black or white, so findings there are lost.",
        Severity.UNFIT,
    )
    LOW_RESOLUTION = (
        "low_resolution",
        "Low resolution",
        "The image has so few pixels that small findings cannot be recognized.",
        Severity.UNCERTAIN,
    )
    IRREGULAR_FILE = (
        "irregular_file",
        "Irregular file",
        "The file breaks the DICOM standard and was read in the one way that makes sense; the grey levels say how.",
        Severity.MISREAD,
    )
