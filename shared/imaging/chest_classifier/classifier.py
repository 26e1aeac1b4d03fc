"""Loads a chest classifier from its card and weights, and classifies renditions."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from shared.errors import ChestClassifierUnusable
from shared.imaging.chest_classifier.card import CLASSES, ChestClassifierCard
from shared.imaging.chest_classifier.network import Floats, forward, prepare
from shared.imaging.facts import ChestScores
from shared.vocabulary.flags import Flag

CARD_FILE, WEIGHTS_FILE = "card.json", "weights.safetensors"
SHIPPED = Path(__file__).parent / "shipped"

#: The flags of the classes; `frontal_chest` has none.
_FLAGS = {"rotated_chest": Flag.ROTATED, "inverted_chest": Flag.SUSPECTED_INVERSION, "other": Flag.NOT_A_CHEST}


class ChestClassifier:
    """A chest classifier: its card and its weights."""

    def __init__(self, card: ChestClassifierCard, weights: dict[str, Floats]) -> None:
        self.card = card
        self._weights = weights

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read `card.json` and `weights.safetensors`; raises `ChestClassifierUnusable`."""
        try:
            card = ChestClassifierCard.model_validate_json((folder / CARD_FILE).read_bytes())
            data = (folder / WEIGHTS_FILE).read_bytes()
        except (OSError, ValidationError) as exc:
            raise ChestClassifierUnusable(f"{folder} holds no chest classifier ({type(exc).__name__}).") from exc
        if hashlib.sha256(data).hexdigest() != card.weights_sha256:
            raise ChestClassifierUnusable(f"The weights in {folder} are not those that its card names.")
        if card.classes != CLASSES:
            raise ChestClassifierUnusable(f"The classifier in {folder} knows other classes.")
        try:
            classifier = cls(card, load_safetensors(data))
            classifier.look_at(np.zeros((card.side_px, card.side_px), np.uint8))
        except (SafetensorError, KeyError, ValueError) as exc:
            raise ChestClassifierUnusable(f"The weights in {folder} are of another network.") from exc
        return classifier

    def look_at(self, rendition: NDArray[np.uint8]) -> ChestScores:
        """Return the probability of each class for a rendition [H, W]."""
        shares = forward(self._weights, prepare(rendition, self.card.side_px))
        scores = {name: round(float(share), 4) for name, share in zip(CLASSES, shares, strict=True)}
        return ChestScores(classifier=self.card.weights_sha256[:12], scores=scores)

    def flag(self, looked: ChestScores) -> Flag | None:
        """Return the flag of the class that reaches its threshold, if any; thresholds above 0.5 allow only one."""
        for name, threshold in self.card.thresholds:
            if looked.scores[name] >= threshold:
                return _FLAGS[name]
        return None


@cache
def load_classifier(folder: str = "") -> ChestClassifier:
    """Return the classifier in a folder, or the shipped one; each is read only once."""
    return ChestClassifier.load(Path(folder) if folder else SHIPPED)
