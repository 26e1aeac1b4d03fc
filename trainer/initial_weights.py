"""The weights that a training begins with."""

from collections.abc import Mapping
from uuid import UUID

import structlog
from torch import Tensor
from torchvision.models import MobileNet_V2_Weights, MobileNet_V3_Large_Weights, ResNet50_Weights
from torchvision.models.detection import FasterRCNN

from shared.database import Database
from shared.detector.card import Architecture
from shared.detector.checkpoints import read_checkpoint
from shared.detector.weights import decode_weights
from shared.errors import InvalidModelFile, NotFound
from shared.object_store import ObjectStore, weights_key
from shared.tables import Model

log = structlog.get_logger()

_IMAGENET: dict[Architecture, ResNet50_Weights | MobileNet_V2_Weights | MobileNet_V3_Large_Weights] = {
    "fasterrcnn_resnet50_fpn": ResNet50_Weights.IMAGENET1K_V1,
    "fasterrcnn_mobilenet_v3_large_320_fpn": MobileNet_V3_Large_Weights.IMAGENET1K_V1,
    "fasterrcnn_mobilenet_v2_fpn": MobileNet_V2_Weights.IMAGENET1K_V1,
    "carina_small": MobileNet_V2_Weights.IMAGENET1K_V1,
}
#: What classifiers of ImageNet put before the names of the backbone's weights.
_PREFIXES = ("backbone.body.", "features.", "")


def fetch(source: str, architecture: Architecture, database: Database, store: ObjectStore) -> dict[str, Tensor]:
    """Return the state dict that `TrainingConfig.initial_weights` names; empty for `none`."""
    kind, _, which = source.partition(":")
    if kind == "torchvision":
        state: dict[str, Tensor] = _IMAGENET[architecture].get_state_dict(progress=False, check_hash=True)
        return state
    if kind == "object":
        return read_checkpoint(store.get(weights_key(which), sha256=which)).state
    if kind == "model":
        with database.begin() as session:
            model = session.get(Model, UUID(which))
            if model is None:
                raise NotFound(f"There is no model {which}.")
            sha256 = model.weights_sha256
        return decode_weights(store.get(weights_key(sha256), sha256=sha256))
    return {}


def fill(model: FasterRCNN, state: Mapping[str, Tensor]) -> None:
    """Fill a model with what fits of a detector's or a backbone's weights; raises `InvalidModelFile`.

    The backbone must fit wholly. The pyramid and the heads are taken where names and shapes agree, so that a detector
    of other classes hands on all but its last layer.
    """
    if not state:
        return
    body = model.backbone.body
    own = {name: weight for name, weight in body.state_dict().items() if not name.endswith("num_batches_tracked")}
    for prefix in _PREFIXES:
        if all(prefix + name in state and state[prefix + name].shape == weight.shape for name, weight in own.items()):
            body.load_state_dict({name: state[prefix + name] for name in own}, strict=False)
            break
    else:
        missing = [name for name in own if not any(prefix + name in state for prefix in _PREFIXES)]
        raise InvalidModelFile(
            f"The initial weights do not fit the backbone: {len(missing)} of its {len(own)} weights are not among them"
            + (f", for example {missing[0]}." if missing else ", and others have another shape.")
        )
    rest = {
        name: state[name]
        for name, weight in model.state_dict().items()
        if not name.startswith("backbone.body.") and name in state and state[name].shape == weight.shape
    }
    model.load_state_dict(rest, strict=False)
    log.info("initial_weights", backbone=len(own), pyramid_and_heads=len(rest))
