"""The ImageNet weights of the backbones, cached in the object store, so that only the first fetch needs the Internet.

The API and the command line check them before they queue a training that starts from them.
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

#: The URL at which PyTorch publishes the weights.
SOURCE = "https://download.pytorch.org/models/"
_REACH_S = 4.0


class WeightsUnavailable(RequestError):
    """The initial weights cannot be fetched."""

    code = "weights_unavailable"
    places = Place.REQUEST | Place.TASK
    status = 409


def pretrained_key(architecture: Architecture) -> str:
    """Return the object key of an architecture's ImageNet weights."""
    return f"models/imagenet/{ARCHITECTURES[architecture].imagenet_file}"


def pretrained_url(architecture: Architecture) -> str:
    """Return the URL of an architecture's ImageNet weights."""
    return SOURCE + ARCHITECTURES[architecture].imagenet_file


def read_pretrained(store: ObjectStore, architecture: Architecture) -> bytes | None:
    """Return the weights from the object store, else from this machine's cache of PyTorch, then stored; else None."""
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
    """Raise `WeightsUnavailable` if a training starts from ImageNet weights that cannot be fetched.

    They must be in the object store, in this machine's cache, or available at PyTorch's URL.
    """
    if config.initial_weights != "torchvision" or store.has(pretrained_key(config.architecture)):
        return
    if read_pretrained(store, config.architecture) is None and not _is_reachable(pretrained_url(config.architecture)):
        raise unavailable(config.architecture)


def unavailable(architecture: Architecture) -> WeightsUnavailable:
    """Return the error, whose message states the remedy."""
    return WeightsUnavailable(
        f"The ImageNet weights of {architecture} cannot be fetched: {pretrained_url(architecture)} does not answer. "
        "Start from `model:ID` or `none`, or fetch that file elsewhere and name it with `carina train --weights FILE`."
    )


def _is_whole(content: bytes, file: str) -> bool:
    return hashlib.sha256(content).hexdigest().startswith(Path(file).stem.rpartition("-")[2])


def _cache_folder() -> Path:
    """Return the folder in which PyTorch caches downloads."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(os.environ.get("TORCH_HOME") or cache / "torch") / "hub" / "checkpoints"


def _is_reachable(url: str) -> bool:
    """Whether a file can be downloaded. The time limit includes the name server's answer."""
    answers: list[int] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        with suppress(OSError, ValueError), urllib.request.urlopen(request, timeout=_REACH_S) as answer:
            answers.append(answer.status)

    asking = threading.Thread(target=ask, name="weights", daemon=True)
    asking.start()
    asking.join(_REACH_S)
    return answers == [200]
