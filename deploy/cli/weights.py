"""Initial weights that lie in a file: checked against the network, and brought to where every trainer finds them."""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from deploy.cli.console import busy
from shared.database import Database
from shared.detector.card import Architecture, Category, ModelCard
from shared.models import registry

if TYPE_CHECKING:
    from shared.object_store import ObjectStore

_NAMED = re.compile(r"none|torchvision|(model|object):.*")


def name_weights(named: str, database: Database) -> str:
    """Return weights as a config names them: of `model:NAME` the model's id. Raises what `models.find` raises."""
    kind, _, model = named.partition(":")
    if kind != "model":
        return named
    with database.begin() as session:
        return f"model:{registry.find(session, model).id}"


def store_weights(named: str, architecture: Architecture, store: "ObjectStore") -> str:
    """Return how a config names these weights; what is a file is stored first.

    Raises `typer.BadParameter` where there is no such file, and `InvalidModelFile` for one that the network's backbone
    cannot begin with.
    """
    from shared.object_store import weights_key

    if _NAMED.fullmatch(named):
        return named
    path = Path(named)
    if not path.is_file():
        raise typer.BadParameter(f"--weights {named}: this is no file, and none of none, torchvision and model:ID.")
    with busy(f"Reading {path.name}"):
        content = path.read_bytes()
        _check_fit(content, architecture)
    sha256 = hashlib.sha256(content).hexdigest()
    with busy(f"Storing {len(content) / 1e6:.0f} MB"):
        store.put(weights_key(sha256), content)
    return f"object:{sha256}"


def _check_fit(content: bytes, architecture: Architecture) -> None:
    # PyTorch takes seconds to load, which only those who name a file have to wait for.
    from shared.detector.architectures import BLUEPRINTS, build
    from shared.detector.checkpoints import read_checkpoint
    from shared.version import RENDITION_VERSION
    from trainer.initial_weights import fill

    blueprint = BLUEPRINTS[architecture]
    card = ModelCard(
        name="weights",
        architecture=architecture,
        categories=(Category(id=1, name="any"),),
        canvas_px=blueprint.canvas_px,
        anchor_sizes_px=blueprint.anchor_sizes_px,
        rendition_version=RENDITION_VERSION,
        weights_sha256="0" * 64,
    )
    fill(build(card), read_checkpoint(content).state)
