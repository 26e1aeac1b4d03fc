"""The initial weights of a training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

import structlog
import torch
from torch import Tensor, nn

from shared.database import Database
from shared.detector.architectures import Architecture
from shared.detector.card import ModelCard
from shared.detector.checkpoints import read_checkpoint
from shared.detector.families import family_of
from shared.detector.weights import decode_weights
from shared.errors import InvalidModelFile, NotFound
from shared.object_store import ObjectStore, weights_key
from shared.tables import Model
from shared.training.pretrained import pretrained_url, read_pretrained, unavailable

log = structlog.get_logger()

#: Prefixes of the backbone's weights in ImageNet classifiers.
_PREFIXES = ("features.", "")


@dataclass(frozen=True)
class InitialWeights:
    """The initial weights of a training; empty for `none`."""

    state: dict[str, Tensor] = field(default_factory=dict)
    #: Card of the model with these weights, if known; it names the classes of their last layer.
    card: ModelCard | None = None


def fetch(source: str, architecture: Architecture, database: Database, store: ObjectStore) -> InitialWeights:
    """Return the weights that `TrainingConfig.initial_weights` refers to."""
    kind, _, which = source.partition(":")
    if kind == "torchvision":
        return InitialWeights(_fetch_imagenet(architecture, store))
    if kind == "object":
        return InitialWeights(read_checkpoint(store.get(weights_key(which), sha256=which)).state)
    if kind == "model":
        with database.begin() as session:
            model = session.get(Model, UUID(which))
            if model is None:
                raise NotFound(f"There is no model {which}.")
            sha256, card = model.weights_sha256, ModelCard.model_validate(model.card)
        return InitialWeights(decode_weights(store.get(weights_key(sha256), sha256=sha256)), card)
    return InitialWeights()


def _fetch_imagenet(architecture: Architecture, store: ObjectStore) -> dict[str, Tensor]:
    """Return ImageNet's weights. Only the first trainer of an installation downloads them."""
    content = read_pretrained(store, architecture)
    if content is None:
        try:
            torch.hub.load_state_dict_from_url(pretrained_url(architecture), progress=False, check_hash=True)
        except (OSError, RuntimeError) as exc:  # RuntimeError: the digest of the download differs
            raise unavailable(architecture) from exc
        content = read_pretrained(store, architecture)
    if content is None:
        raise unavailable(architecture)
    return read_checkpoint(content).state


def fill(model: nn.Module, state: Mapping[str, Tensor], card: ModelCard, base: ModelCard | None = None) -> None:
    """Load the matching weights of a detector or a backbone into the card's model. Raises `InvalidModelFile`.

    The backbone must match completely. Weights of the pyramid and the heads are loaded if their names and shapes match.
    With the base model's card, the last layer is loaded class by class, by name; a class that the base does not have
    keeps its random weights.
    """
    if not state:
        return
    if base is not None:
        state = {**state, **_match_classes(model, state, card, base)}
    body = family_of(card.architecture).body(model)
    body_name = next(name for name, module in model.named_modules() if module is body) + "."
    prefixes = (body_name, *_PREFIXES)
    own = {name: weight for name, weight in body.state_dict().items() if not name.endswith("num_batches_tracked")}
    for prefix in prefixes:
        if all(prefix + name in state and state[prefix + name].shape == weight.shape for name, weight in own.items()):
            body.load_state_dict({name: state[prefix + name] for name in own}, strict=False)
            break
    else:
        missing = [name for name in own if not any(prefix + name in state for prefix in prefixes)]
        raise InvalidModelFile(
            f"The initial weights do not fit the backbone: {len(missing)} of its {len(own)} weights are not among them"
            + (f", for example {missing[0]}." if missing else ", and others have another shape.")
        )
    rest = {
        name: state[name]
        for name, weight in model.state_dict().items()
        if not name.startswith(body_name) and name in state and state[name].shape == weight.shape
    }
    model.load_state_dict(rest, strict=False)
    log.info("initial_weights", backbone=len(own), pyramid_and_heads=len(rest))


def _match_classes(
    model: nn.Module, state: Mapping[str, Tensor], card: ModelCard, base: ModelCard
) -> dict[str, Tensor]:
    """Return the last layer with the base's rows for background and classes of the same name."""
    theirs = {category.name.casefold(): label for label, category in enumerate(base.categories, start=1)}
    rows = [(0, 0)] + [
        (label, theirs[category.name.casefold()])
        for label, category in enumerate(card.categories, start=1)
        if category.name.casefold() in theirs
    ]
    family = family_of(card.architecture)
    layer = {}
    for name, weight in model.state_dict().items():
        if name not in state:
            continue
        filled = weight.clone(memory_format=torch.contiguous_format)
        mine = family.by_class(name, filled, len(card.categories) + 1)
        given = family.by_class(name, state[name], len(base.categories) + 1)
        if mine is None or given is None or mine.shape[1:] != given.shape[1:]:
            continue
        for label, their_label in rows:
            mine[label] = given[their_label]
        layer[name] = filled
    return layer
