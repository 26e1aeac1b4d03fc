"""Models and their weights."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from api.client.connection import Connection
from api.contract.models import ModelAnswer, ModelRequest, ModelsAnswer, PromotionRequest
from api.contract.weights import WeightsAnswer

_CHUNK_BYTES = 256 * 1024


class Models(Connection):
    """The detectors of the installation. Changes need a key with the scope `system`."""

    def models(self) -> list[ModelAnswer]:
        """Return every model, the newest first."""
        return self._get(ModelsAnswer, "/v1/models").models

    def put_weights(self, sha256: str, weights: bytes | Path) -> WeightsAnswer:
        """Store a weights file under its SHA-256, which needs the scope `train`."""

        def body() -> Iterator[bytes]:
            if isinstance(weights, bytes):
                yield weights
                return
            with weights.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk

        size = len(weights) if isinstance(weights, bytes) else weights.stat().st_size
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        answer = self._request("PUT", f"/v1/weights/{sha256}", content=body, headers=headers)
        return self._read(WeightsAnswer, answer)

    def register_model(self, card: Mapping[str, Any]) -> ModelAnswer:
        """Register a model whose weights are stored as a candidate; the same model again is the same one."""
        return self._post(ModelAnswer, "/v1/models", ModelRequest(card=dict(card)))

    def weights(self, model_id: UUID) -> bytes:
        """Return a model's weights, a safetensors file."""
        return self._request("GET", f"/v1/models/{model_id}/weights")

    def promote(self, model_id: UUID, *, reason: str | None = None) -> ModelAnswer:
        """Make a model the active one; refused with `promotion_refused` if the gate refused it and `reason` is None."""
        return self._post(ModelAnswer, f"/v1/models/{model_id}/promote", PromotionRequest(reason=reason))

    def roll_back(self) -> ModelAnswer:
        """Return to the model that was active before. Sent once only: a second try would go back further."""
        return self._read(ModelAnswer, self._attempt("POST", "/v1/models/rollback", {}))
