"""Finds the weights in a training script's checkpoint, and renames them to torchvision's keys.

No code in a checkpoint is executed: PyTorch reads it with `weights_only=True`.
"""

import argparse
import collections
import io
import pathlib
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from shared.errors import InvalidModelFile

#: Keys under which training scripts store a moving average of the weights, which they use for evaluation.
AVERAGED = (
    "model_ema",
    "ema_model",
    "ema",
    "state_dict_ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "averaged_model",
)
#: Keys under which training scripts store the weights, next to the optimizer state.
PLAIN = ("model_state_dict", "state_dict", "model", "net", "network", "weights", "module", "shadow")
#: Parts that DDP, `torch.compile`, FSDP, activation checkpointing and averaging add to keys, anywhere and repeatedly.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_AVERAGE = re.compile(r"(^|[._])(ema|averaged?)([._]|$)")
#: Keys under which callbacks and libraries store a moving average in any form.
_AVERAGE_HOLDER = re.compile(r"(?i)(^|[._])ema|averag")
_COUNTERS = frozenset({"n_averaged", "updates", "num_updates", "step", "decay"})
#: The backbone in the keys of torchvision's detectors; the script added any prefix before it.
_BACKBONE = re.compile(r"(?:^|(?<=\.))backbone\.body\.")
_DEEPEST = 4
#: NumPy's function that restores a pickled number.
_SCALAR: Any = np.float64(0).__reduce__()[0]
#: Types that the wrappers store next to the weights; they hold only values.
_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    collections.defaultdict,
    dict,
    list,
    (pathlib.PurePosixPath, "pathlib.PosixPath"),
    (pathlib.PurePosixPath, "pathlib._local.PosixPath"),
    (pathlib.PureWindowsPath, "pathlib.WindowsPath"),
    (pathlib.PureWindowsPath, "pathlib._local.WindowsPath"),
    np.dtype,
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
]


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a detector or a backbone."""

    #: Keyed as in torchvision, as far as the keys were recognised.
    state: dict[str, Tensor]
    #: Sentences about the weights that were chosen or left out.
    notes: tuple[str, ...] = ()


def read_checkpoint(data: bytes) -> Checkpoint:
    """Return the weights in a PyTorch or safetensors file; raises `InvalidModelFile`."""
    content = _read_safetensors(data) if data[8:9] == b"{" else _read_pickle(data)
    found = _find(content, _DEEPEST)
    if found is None:
        raise InvalidModelFile("The checkpoint holds no state dict (names with tensors).")
    state, chosen = found
    notes = [f"The moving average of the weights ({chosen}) was taken, not the last weights."] if chosen else []
    if not chosen and (average := _find_unnamed_average(content, _DEEPEST)):
        notes = [f"The last weights were taken, not the moving average ({average}): its form is not known."]
    return _to_detector(_unwrap(state), notes)


def _read_safetensors(data: bytes) -> Mapping[str, Tensor]:
    try:
        return load_safetensors(data)
    except SafetensorError as exc:
        raise InvalidModelFile("The weights are not a safetensors file.") from exc


def _read_pickle(data: bytes) -> object:
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # The errors below replace PyTorch's warnings.
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        named = re.search(r"GLOBAL ([\w.]+)", str(exc))
        raise InvalidModelFile(
            "The checkpoint is not a plain state dict: it holds Python objects"
            + (f" ({named[1]})" if named else "")
            + ", which Carina never loads, or is no file of PyTorch's. "
            "Save it with torch.save(model.state_dict(), path)."
        ) from exc
    except (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as exc:
        if "TorchScript" in str(exc):
            raise InvalidModelFile(
                "The checkpoint is a TorchScript program. Save the weights with torch.save(model.state_dict(), path)."
            ) from exc
        raise InvalidModelFile("The checkpoint cannot be read: it is damaged, or is no file of PyTorch's.") from exc


def _find(content: object, depth: int) -> tuple[Mapping[str, Tensor], str] | None:
    """Return the state dict inside wrappers, and its key if it is a moving average (otherwise an empty string)."""
    if not isinstance(content, Mapping) or depth == 0:
        return None
    for keys in (AVERAGED, PLAIN):
        for key in keys:
            found = _find(content.get(key), depth - 1)
            if found is not None:
                return found[0], found[1] or (key if keys is AVERAGED else "")
    extra = ("_extra_state",)
    weights = {key: value for key, value in content.items() if not str(key).endswith(extra)}
    if not weights or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items()):
        return None
    return weights, ""


def _find_unnamed_average(content: object, depth: int) -> str | None:
    """Return the key of a moving average that is not a state dict, such as a list of tensors."""
    if not isinstance(content, Mapping) or depth == 0:
        return None
    for key, value in content.items():
        is_container = isinstance(value, Mapping | list | tuple)
        if is_container and _AVERAGE_HOLDER.search(str(key)) and _holds_tensors(value, depth):
            return str(key)
        if found := _find_unnamed_average(value, depth - 1):
            return found
    return None


def _holds_tensors(content: object, depth: int) -> bool:
    if isinstance(content, Tensor):
        return True
    inner = content.values() if isinstance(content, Mapping) else content if isinstance(content, list | tuple) else ()
    return depth > 0 and any(_holds_tensors(each, depth - 1) for each in inner)


def _unwrap(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = ".".join(part for part in key.split(".") if part not in _WRAPPERS)
        if name in renamed:
            raise InvalidModelFile(f"The checkpoint has two weights for {name}: with and without a wrapper's prefix.")
        renamed[name] = tensor
    return {name: tensor for name, tensor in renamed.items() if name not in _COUNTERS}


def _to_detector(state: dict[str, Tensor], notes: list[str]) -> Checkpoint:
    """Remove the prefix that Lightning and other scripts add to the detector's keys (`model.`, `net.`)."""
    found = prefixes = sorted({key[: match.start()] for key in state if (match := _BACKBONE.search(key))})
    averaged = [prefix for prefix in prefixes if _AVERAGE.search(prefix)]
    if len(averaged) == 1 and len(prefixes) > 1:
        notes = [*notes, f"The moving average of the weights ({averaged[0]}*) was taken, not the last weights."]
        prefixes = averaged
    if len(prefixes) > 1:
        named = " and ".join(f"{prefix or 'no prefix'}" for prefix in prefixes[:2])
        raise InvalidModelFile(
            f"The checkpoint holds several detectors, by the prefixes of its keys: {named}. Save one of them alone."
        )
    if not prefixes or not prefixes[0]:
        return Checkpoint(state, tuple(notes))
    (prefix,) = prefixes
    own = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    others = [key for key in state if not key.startswith(tuple(found))]
    if others:
        notes = [*notes, f"{len(others)} weights outside {prefix}* were left out, for example {others[0]}."]
    return Checkpoint(own, tuple(notes))
