"""The small detector that is shipped with Carina, so that the first findings need no download."""

import hashlib
from importlib.resources import files

from shared.detector.card import ModelCard
from shared.errors import InvalidModelFile


def load_demo_model() -> tuple[ModelCard, bytes]:
    """Return the demo model's card and weights; raises `InvalidModelFile` if they do not match."""
    folder = files(__name__)
    card = ModelCard.model_validate_json((folder / "card.json").read_bytes())
    weights = (folder / "weights.safetensors").read_bytes()
    if hashlib.sha256(weights).hexdigest() != card.weights_sha256:
        raise InvalidModelFile("The demo model's weights are not the ones that its card names.")
    return card, weights
