"""Reads and writes weights: Carina's safetensors files, and checkpoints of other training scripts."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from shared.detector.architectures import ARCHITECTURES, Architecture
from shared.detector.card import DEFAULT_ABNORMALITY_EXPONENT, Category, ModelCard
from shared.detector.checkpoints import Checkpoint, read_checkpoint
from shared.detector.families import build, family_of, plan_of, recognise
from shared.detector.families.abnormality import PREFIX
from shared.errors import InvalidModelFile
from shared.version import RENDITION_VERSION

#: Number of outputs of torchvision's COCO detectors, background included.
_COCO_OUTPUTS = 91
#: Maximum number of keys that an error names.
_NAMED = 3


def encode_weights(state: Mapping[str, Tensor], dtype: torch.dtype = torch.float16) -> bytes:
    """Return a state dict as safetensors bytes, with kernels in `dtype`.

    Vectors stay in float32: they are small, and batch norm variances can exceed the range of float16.
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


def content_sha256(state: Mapping[str, Tensor]) -> str:
    """Return a digest of weights that is the same in every file format and precision.

    It covers the names, shapes and signs of the kernels. Rounding to a smaller type keeps all signs. Two different
    trainings share millions of signs only if one has hardly started.
    """
    digest = hashlib.sha256()
    for key in sorted(state):
        if state[key].ndim > 1:
            digest.update(f"{key} {list(state[key].shape)}\n".encode())
            digest.update(np.packbits(torch.signbit(state[key]).numpy(force=True)).tobytes())
    return digest.hexdigest()


def load_model(card: ModelCard, weights: bytes) -> nn.Module:
    """Return the card's network with these weights, on the CPU; raises `InvalidModelFile`."""
    if hashlib.sha256(weights).hexdigest() != card.weights_sha256:
        raise InvalidModelFile("The weights are not the ones that the model card names.")
    model = build(card)
    _fill(model, decode_weights(weights), card)
    return model


def import_checkpoint(
    source: Path | bytes | Checkpoint,
    categories: Sequence[Category],
    architecture: Architecture | None = None,
    *,
    name: str = "imported",
    **said: Any,
) -> tuple[ModelCard, bytes]:
    """Convert a training script's checkpoint to a card and float32 weights; raises `InvalidModelFile`.

    `source` is the input or the result of `read_checkpoint`. `categories` are in the order of the outputs 1 to N;
    output 0 is background. Without `architecture`, the names of the weights determine it. `said` holds fields of the
    card that weights do not show, such as `canvas_px` or `batch_norm_eps`; the defaults are torchvision's.
    """
    if not isinstance(source, Checkpoint):
        source = read_checkpoint(source.read_bytes() if isinstance(source, Path) else source)
    state = source.state
    architecture = _recognise(state, architecture)
    plan = plan_of(architecture)
    assumed = {
        "canvas_px": plan.canvas_px,
        "anchor_sizes_px": plan.anchor_sizes_px,
        "rendition_version": RENDITION_VERSION,
    }
    if family_of(architecture).count_outputs(state) == _COCO_OUTPUTS:
        assumed["batch_norm_eps"] = plan.coco_batch_norm_eps
    if any(name.startswith(PREFIX) for name in state):
        assumed["abnormality_exponent"] = DEFAULT_ABNORMALITY_EXPONENT
    chosen = {key: value for key, value in said.items() if value is not None}
    draft = ModelCard.model_validate(
        assumed
        | chosen
        | {"name": name, "architecture": architecture, "categories": tuple(categories), "weights_sha256": "0" * 64}
    )
    model = build(draft)
    _fill(model, state, draft)
    weights = encode_weights(model.state_dict(), torch.float32)
    return draft.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()}), weights


def _counts(key: str) -> bool:
    """Return whether a weight affects inference; the step counter of batch norm does not."""
    return not key.endswith("num_batches_tracked")


def _recognise(state: Mapping[str, Tensor], stated: Architecture | None) -> Architecture:
    """Return the architecture of these weights; raises `InvalidModelFile` if it is unknown or not the stated one."""
    found = recognise(state.keys())
    if found is not None and stated in (None, found):
        return found
    wanted = stated or " or ".join(ARCHITECTURES)
    seen = f"they are those of {found}" if found else f"it has {_name(list(state))}"
    raise InvalidModelFile(f"The checkpoint's weights are not those of {wanted}: {seen}.")


def _fill(model: nn.Module, state: Mapping[str, Tensor], card: ModelCard) -> None:
    """Load a state dict into a model; raises `InvalidModelFile` with the reason if it does not fit."""
    family = family_of(card.architecture)
    outputs, anchors = family.count_outputs(state), family.count_anchors(state)
    if outputs is not None and outputs != len(card.categories) + 1:
        raise InvalidModelFile(_wrong_outputs(outputs, card.categories))
    expected = {key: tensor.shape for key, tensor in model.state_dict().items()}
    sizes, ratios = len(card.anchor_sizes_px[0]), len(card.anchor_aspect_ratios)
    if anchors is not None and anchors != sizes * ratios:
        raise InvalidModelFile(
            f"The checkpoint has {anchors} anchors at each place, but the card has {sizes * ratios} ({sizes} sizes on "
            f"a level, {ratios} aspect ratios). Give the anchors that the model was trained with."
        )
    for key, shape in expected.items():
        if key in state and state[key].shape != shape:
            raise InvalidModelFile(
                f"The checkpoint's {key} has shape {list(state[key].shape)}, but {card.architecture} needs "
                f"{list(shape)}."
            )
        if (
            _counts(key)
            and key in state
            and not (state[key].is_floating_point() and state[key].layout == torch.strided)
        ):
            raise InvalidModelFile(f"The checkpoint's {key} is not a dense tensor of real numbers.")
    outcome = model.load_state_dict(dict(state), strict=False)
    missing = [key for key in outcome.missing_keys if _counts(key)]
    if missing:
        raise InvalidModelFile(
            f"The checkpoint lacks {len(missing)} weights of {card.architecture}, for example {_name(missing)}."
        )
    unexpected = [key for key in outcome.unexpected_keys if _counts(key)]
    if unexpected:
        raise InvalidModelFile(
            f"The checkpoint has {len(unexpected)} weights that {card.architecture} does not, "
            f"for example {_name(unexpected)}."
        )
    if not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
        raise InvalidModelFile("The checkpoint holds weights that are not finite numbers.")


def _wrong_outputs(outputs: int, categories: Sequence[Category]) -> str:
    sentence = (
        f"The checkpoint's box head predicts {outputs} classes with background, "
        f"but {len(categories)} categories were given."
    )
    normal = [category.name for category in categories if category.name.casefold() in ("no finding", "background")]
    if outputs == len(categories) and normal:
        return f"{sentence} Leave out {normal[0]!r}, if output 0 stands for it."
    if outputs == max(category.id for category in categories) + 1:
        return f"{sentence} Where an output's number is the category's id, list the ids without a class as well."
    return sentence


def _name(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_NAMED])
