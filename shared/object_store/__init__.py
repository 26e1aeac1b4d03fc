"""The object store: immutable bytes under content-addressed keys, verified when they are read."""

from shared.object_store.store import (
    PART_BYTES,
    ObjectStore,
    StoredObject,
    checkpoint_key,
    dataset_key,
    digest_in,
    original_key,
    rendition_key,
    result_key,
    weights_key,
)

__all__ = [
    "PART_BYTES",
    "ObjectStore",
    "StoredObject",
    "checkpoint_key",
    "dataset_key",
    "digest_in",
    "original_key",
    "rendition_key",
    "result_key",
    "weights_key",
]
