"""The models of a detect worker. At most one is on the device; it can change between two batches."""

import gc
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import structlog
import torch

from shared.database import Database
from shared.detector.card import ModelCard
from shared.detector.runtime import Detector
from shared.errors import CarinaError, DatabaseUnavailable, ModelUnusable, ObjectStoreUnavailable
from shared.models import registry
from shared.object_store import ObjectStore, weights_key
from shared.tables import Model
from shared.version import RENDITION_VERSION

log = structlog.get_logger()

Load = Callable[[ModelCard, bytes], Detector]


class ModelCache:
    """Caches cards, for all threads, and one loaded detector, for the thread that detects."""

    def __init__(self, database: Database, store: ObjectStore, load: Load) -> None:
        self._database = database
        self._store = store
        self._load = load
        self._cards: dict[UUID, ModelCard] = {}
        self._loaded: tuple[UUID, Detector] | None = None

    def card(self, model_id: UUID) -> ModelCard:
        """Return a model's card; raise `DatabaseUnavailable`."""
        if model_id not in self._cards:
            with self._database.begin() as session:
                self._cards[model_id] = ModelCard.model_validate(session.get_one(Model, model_id).card)
        return self._cards[model_id]

    def detector(self, model_id: UUID) -> Detector:
        """Return the loaded model; a previous one is freed first.

        Raises `ModelUnusable`, `DatabaseUnavailable` and `ObjectStoreUnavailable`.
        """
        if self._loaded is None or self._loaded[0] != model_id:
            self._free()
            self._loaded = model_id, self._fetch_and_load(model_id)
            log.info("model_loaded", model_id=str(model_id))
            trained_on = self.card(model_id).rendition_version
            if trained_on != RENDITION_VERSION:  # it works, but its quality on these renditions was not measured
                log.warning(
                    "model_of_other_renditions", model_id=str(model_id), trained_on=trained_on, served=RENDITION_VERSION
                )
        return self._loaded[1]

    def load_active(self) -> None:
        """Load the active model before the first job needs it. Does nothing without one, or during an outage."""
        with suppress(CarinaError):
            with self._database.begin() as session:
                model = registry.active(session)
                model_id = model.id if model else None
            if model_id is not None:
                self.detector(model_id)

    def _fetch_and_load(self, model_id: UUID) -> Detector:
        card = self.card(model_id)
        try:
            weights = self._store.get(weights_key(card.weights_sha256), sha256=card.weights_sha256)
            return self._load(card, weights)
        except (DatabaseUnavailable, ObjectStoreUnavailable):
            raise
        except CarinaError as exc:
            raise ModelUnusable(f"The model {model_id} cannot be loaded: {exc.detail}") from exc

    def _free(self) -> None:
        self._loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
