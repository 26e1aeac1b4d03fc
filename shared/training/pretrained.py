"""ImageNet's weights of the backbones: kept in the object store, so that only the first fetch needs the Internet.

The API and the command line look here before they queue a training that would begin from them.
"""

import hashlib
import os
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path

from shared.detector.architectures import ARCHITECTURES, Architecture
from shared.errors import ObjectMissing, Place, RequestError
from shared.object_store import ObjectStore
from shared.training.config import TrainingConfig

#: Where PyTorch publishes them.
SOURCE = "https://download.pytorch.org/models/"
_REACH_S = 4.0


class WeightsUnavailable(RequestError):
    """The initial weights cannot be fetched."""

    code = "weights_unavailable"
    places = Place.REQUEST | Place.TASK
    status = 409


def pretrained_key(architecture: Architecture) -> str:
    """Return the object's key of an architecture's ImageNet weights."""
    return f"models/imagenet/{ARCHITECTURES[architecture].imagenet_file}"


def pretrained_url(architecture: Architecture) -> str:
    """Return where an architecture's ImageNet weights can be downloaded."""
    return SOURCE + ARCHITECTURES[architecture].imagenet_file


def read_pretrained(store: ObjectStore, architecture: Architecture) -> bytes | None:
    """Return the file from the object store, else from this machine's cache of PyTorch's, which is then stored."""
    file = ARCHITECTURES[architecture].imagenet_file
    with suppress(ObjectMissing):
        content = store.read(pretrained_key(architecture))
        if _is_whole(content, file):
            return content
    with suppress(OSError):
        content = (_cache_folder() / file).read_bytes()
        if _is_whole(content, file):
            store.put(pretrained_key(architecture), content)
            return content
    return None


def require_pretrained(store: ObjectStore, config: TrainingConfig) -> None:
    """Raise `WeightsUnavailable` for a training from ImageNet's weights that no trainer could fetch.

    They have to be in the object store, in this machine's cache, or to be had from where PyTorch publishes them.
    """
    if config.initial_weights != "torchvision" or store.has(pretrained_key(config.architecture)):
        return
    if read_pretrained(store, config.architecture) is None and not _is_reachable(pretrained_url(config.architecture)):
        raise unavailable(config.architecture)


def unavailable(architecture: Architecture) -> WeightsUnavailable:
    """Return the error that says what to do."""
    return WeightsUnavailable(
        f"The ImageNet weights of {architecture} cannot be fetched: {pretrained_url(architecture)} does not answer. "
        "Start from `model:ID` or `none`, or fetch that file elsewhere and name it with `carina train --weights FILE`."
    )


def _is_whole(content: bytes, file: str) -> bool:
    return hashlib.sha256(content).hexdigest().startswith(Path(file).stem.rpartition("-")[2])


def _cache_folder() -> Path:
    """Where PyTorch keeps what it has downloaded."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(os.environ.get("TORCH_HOME") or cache / "torch") / "hub" / "checkpoints"


def _is_reachable(url: str) -> bool:
    """Whether a file can be downloaded; a name server that does not answer is not waited for longer than the file."""
    answers: list[int] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        with suppress(OSError, ValueError), urllib.request.urlopen(request, timeout=_REACH_S) as answer:
            answers.append(answer.status)

    asking = threading.Thread(target=ask, name="weights", daemon=True)
    asking.start()
    asking.join(_REACH_S)
    return answers == [200]
