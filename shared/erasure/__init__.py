"""Erases a study: first its rows, then its objects, and marks the datasets that were made from it.

`studies` deletes the rows and, in the same transaction, adds a row with the remaining work (`tables.Erasure`).
`finishing` does this work: immediately, and again in each sweep if the object store was down or the process was killed.

Equal bytes are one object, even of several projects. `objects` deletes an object only if no row refers to it, which it
checks under a lock on the object's key. Code that adds a reference takes the same lock (`hold_object`). A file may be
stored before an object is erased and get its row afterwards: `tables.ErasedObject` records for an hour that this object
must be checked. `datasets` marks the datasets that contain erased images.
"""

from shared.erasure.datasets import DatasetErased, require_whole
from shared.erasure.finishing import finish_all
from shared.erasure.objects import ErasedMeanwhile, discard, hold_object
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
