"""Initial weights in a file: checked against the network, and sent to where every trainer finds them."""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from deploy.cli.console import busy, remark
from shared.detector.architectures import Architecture

if TYPE_CHECKING:  # the HTTP client is only loaded by the commands that use it
    from api.client import Carina

_NAMED = re.compile(r"none|torchvision|object:.*")


def name_weights(client: "Carina", weights: str, architecture: Architecture) -> str:
    """Return weights as a config names them: of `model:NAME` the model's id; a file is sent to the API first.

    Raises `typer.BadParameter` where there is no such file, `InvalidModelFile` for one that the network's backbone
    cannot begin with, and what `Carina.find_model` raises.
    """
    if _NAMED.fullmatch(weights):
        return weights
    kind, _, model = weights.partition(":")
    if kind == "model":
        return f"model:{client.find_model(model)}"
    path = Path(weights)
    if not path.is_file():
        choices = "a file, none, torchvision, model:ID or object:SHA256"
        raise typer.BadParameter(f"--weights {weights} is not a file. Give {choices}.")
    with busy(f"Reading {path.name}"):
        content = path.read_bytes()
        _check_fit(content, architecture)
    sha256 = hashlib.sha256(content).hexdigest()
    with busy(f"Sending {len(content) / 1e6:.0f} MB"):
        client.put_weights(sha256, content)
    return f"object:{sha256}"


def _check_fit(content: bytes, architecture: Architecture) -> None:
    try:  # PyTorch takes seconds to load, which only those who name a file have to wait for.
        from shared.detector.checkpoints import read_checkpoint
        from shared.detector.families import build, plan_of
        from trainer.initial_weights import fill
    except ModuleNotFoundError:
        remark("PyTorch is not installed here, so only the trainer will check whether the weights fit the network.")
        return
    from shared.detector.card import Category, ModelCard
    from shared.version import RENDITION_VERSION

    plan = plan_of(architecture)
    card = ModelCard(
        name="weights",
        architecture=architecture,
        categories=(Category(id=1, name="any"),),
        canvas_px=plan.canvas_px,
        anchor_sizes_px=plan.anchor_sizes_px,
        rendition_version=RENDITION_VERSION,
        weights_sha256="0" * 64,
    )
    fill(build(card), read_checkpoint(content).state, card)
