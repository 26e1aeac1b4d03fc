"""The models of a detect worker."""

import pytest
from structlog.testing import capture_logs

from shared.detector.card import ModelCard
from shared.detector.runtime import Detector
from shared.version import RENDITION_VERSION
from tests.integration.workshop import Workshop
from workers.model_cache import ModelCache


@pytest.mark.parametrize("version", [RENDITION_VERSION, RENDITION_VERSION - 1])
def test_a_model_that_was_trained_on_other_renditions_is_loaded_with_one_warning(
    workshop: Workshop, tiny_model: tuple[ModelCard, bytes], version: int
) -> None:
    card, weights = tiny_model
    model_id = workshop.promote(card.model_copy(update={"rendition_version": version}), weights)
    models = ModelCache(workshop.database, workshop.store, Detector)
    with capture_logs() as logged:
        assert models.detector(model_id) is models.detector(model_id)
    warned = [entry for entry in logged if entry["log_level"] == "warning"]
    expected = {"model_id": str(model_id), "trained_on": version, "served": RENDITION_VERSION}
    if version == RENDITION_VERSION:
        assert not warned
    else:
        assert warned == [{"event": "model_of_other_renditions", "log_level": "warning", **expected}]
