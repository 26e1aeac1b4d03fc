"""Weights as bytes: our own safetensors files, and checkpoints from elsewhere."""

import argparse
import hashlib
import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from shared.detector.architectures import BLUEPRINTS, build
from shared.detector.card import Architecture, Category, ModelCard
from shared.errors import InvalidModelFile
from shared.version import RENDITION_VERSION

#: Under which keys training scripts put the model beside their optimizer.
WRAPPINGS = ("model_state_dict", "state_dict", "model")


def encode_weights(state: Mapping[str, Tensor], dtype: torch.dtype = torch.float16) -> bytes:
    """Return a state dict as safetensors bytes, its kernels in `dtype`.

    Vectors stay in float32: they are few, and the variances of batch norm leave float16's range.
    """
    tensors = {
        key: tensor.detach().to("cpu", dtype if tensor.ndim > 1 else torch.float32).contiguous()
        for key, tensor in state.items()
        if _counts(key)
    }
    return save_safetensors(tensors)


def decode_weights(weights: bytes) -> dict[str, Tensor]:
    """Return safetensors bytes as a float32 state dict; raises `InvalidModelFile`."""
    try:
        return {key: tensor.float() for key, tensor in load_safetensors(weights).items()}
    except SafetensorError as exc:
        raise InvalidModelFile("The weights are not a safetensors file.") from exc


def load_model(card: ModelCard, weights: bytes) -> FasterRCNN:
    """Return the card's network with these weights, on the CPU; raises `InvalidModelFile`."""
    if hashlib.sha256(weights).hexdigest() != card.weights_sha256:
        raise InvalidModelFile("The weights are not the ones that the model card names.")
    model = build(card)
    _fill(model, decode_weights(weights), card)
    return model


def import_checkpoint(
    source: Path | bytes,
    categories: Sequence[Category],
    architecture: Architecture | None = None,
    *,
    name: str = "imported",
    trained_on: str = "",
    canvas_px: int | None = None,
    rendition_version: int = RENDITION_VERSION,
) -> tuple[ModelCard, bytes]:
    """Turn a training script's checkpoint into a card and float32 weights; raises `InvalidModelFile`.

    `source` is a state dict saved by torch or safetensors, plain or under one of `WRAPPINGS`, with or without DDP's
    `module.` prefix. `categories` are in the order of the outputs 1 to N; output 0 is background. The architecture is
    read off the weights' names where it is not stated.
    """
    state = read_state(source.read_bytes() if isinstance(source, Path) else source)
    architecture = _recognise(state, (architecture,) if architecture else tuple(BLUEPRINTS))
    blueprint = BLUEPRINTS[architecture]
    draft = ModelCard(
        name=name,
        architecture=architecture,
        categories=tuple(categories),
        canvas_px=canvas_px or blueprint.canvas_px,
        anchor_sizes_px=blueprint.anchor_sizes_px,
        rendition_version=rendition_version,
        weights_sha256="0" * 64,
        trained_on=trained_on,
    )
    model = build(draft)
    _fill(model, state, draft)
    weights = encode_weights(model.state_dict(), torch.float32)
    return draft.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()}), weights


def read_state(data: bytes) -> dict[str, Tensor]:
    """Return the state dict in a file of torch's or of safetensors, unwrapped."""
    if data[8:9] == b"{":
        return decode_weights(data)
    try:
        # torchvision's reference scripts store their command line, which is data only.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise InvalidModelFile(
            "The checkpoint is not a plain state dict: it holds Python objects, or is no file of PyTorch's. "
            "Save it with torch.save(model.state_dict(), path)."
        ) from exc
    except (RuntimeError, EOFError, ValueError, KeyError) as exc:
        raise InvalidModelFile("The checkpoint cannot be read: it is damaged, or is no file of PyTorch's.") from exc
    for wrapping in WRAPPINGS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapping), Mapping):
            content = content[wrapping]
    if not isinstance(content, Mapping) or not content or not all(map(_is_weight, content.items())):
        raise InvalidModelFile("The checkpoint holds no state dict (names with tensors).")
    return {key.removeprefix("module."): tensor for key, tensor in content.items()}


def _is_weight(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _counts(key: str) -> bool:
    """Whether a weight matters to inference: batch norm's step counter does not."""
    return not key.endswith("num_batches_tracked")


def _recognise(state: Mapping[str, Tensor], candidates: Sequence[Architecture]) -> Architecture:
    for architecture in candidates:
        if BLUEPRINTS[architecture].hallmark in state:
            return architecture
    raise InvalidModelFile(f"The checkpoint's weights are not those of {' or '.join(candidates)}.")


def _fill(model: FasterRCNN, state: dict[str, Tensor], card: ModelCard) -> None:
    """Load a state dict, or say in one sentence why it does not fit."""
    scores = state.get("roi_heads.box_predictor.cls_score.weight")
    if scores is not None and len(scores) != len(card.categories) + 1:
        raise InvalidModelFile(
            f"The checkpoint's box head predicts {len(scores)} classes with background, "
            f"but {len(card.categories)} categories were given."
        )
    for key, own in model.state_dict().items():
        if key in state and state[key].shape != own.shape:
            raise InvalidModelFile(
                f"The checkpoint's {key} has shape {list(state[key].shape)}, "
                f"but {card.architecture} needs {list(own.shape)}."
            )
    outcome = model.load_state_dict(state, strict=False)
    missing = [key for key in outcome.missing_keys if _counts(key)]
    if missing:
        raise InvalidModelFile(
            f"The checkpoint lacks {len(missing)} weights of {card.architecture}, for example {missing[0]}."
        )
    unexpected = [key for key in outcome.unexpected_keys if _counts(key)]
    if unexpected:
        raise InvalidModelFile(
            f"The checkpoint has {len(unexpected)} weights that {card.architecture} does not, "
            f"for example {unexpected[0]}."
        )
    if not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
        raise InvalidModelFile("The checkpoint holds weights that are not finite numbers.")
