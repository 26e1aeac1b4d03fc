"""Erasing a study: its rows at once, then its objects, and marks on the datasets that were made from it.

`studies` removes the rows and, in the same transaction, writes a row of what is left to do (`tables.Erasure`).
`remainder` does that: at once, and again from the sweep where the object store was down or the process was killed.

Bytes of one digest are one object, whoever sent them. `objects` removes an object only if no image refers to it, which
it looks up under a lock of the object's key; code that refers to an object takes the same lock (`hold_object`). A file
may be stored before an object is erased and get its row after: `tables.ErasedObject` tells for an hour that this has to
be looked at. `datasets` marks what was made from erased images.
"""

from shared.erasure.datasets import DatasetErased, require_whole
from shared.erasure.objects import ErasedMeanwhile, discard, hold_object
from shared.erasure.remainder import finish_all
from shared.erasure.studies import Erased, erase_study

__all__ = [
    "DatasetErased",
    "Erased",
    "ErasedMeanwhile",
    "discard",
    "erase_study",
    "finish_all",
    "hold_object",
    "require_whole",
]
