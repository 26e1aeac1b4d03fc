"""A detector with random weights that is quick on a CPU, and finds something else on every image."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from shared.detector.card import Category, ModelCard
from shared.detector.families import build, plan_of
from shared.detector.fitting import fit_to_canvas
from shared.detector.weights import encode_weights
from shared.phantoms import make_phantom
from shared.version import RENDITION_VERSION

#: Ids with gaps, in no order.
CATEGORIES = tuple(Category(id=id_, name=name) for id_, name in ((30, "Mass"), (7, "Opacity"), (12, "Fibrosis")))


def make_tiny_model(
    seed: int = 0,
    *,
    categories: Sequence[Category] = CATEGORIES,
    canvas_px: int = 128,
    abnormality_exponent: float | None = None,
) -> tuple[ModelCard, bytes]:
    """Return a card and float32 weights; another seed gives another model. It reports at most three boxes an image."""
    draft = ModelCard(
        name=f"tiny-{seed}",
        architecture="carina_small",
        categories=tuple(categories),
        canvas_px=canvas_px,
        anchor_sizes_px=plan_of("carina_small").anchor_sizes_px,
        score_threshold=0.0,
        max_detections=3,
        abnormality_exponent=abnormality_exponent,
        rendition_version=RENDITION_VERSION,
        weights_sha256="0" * 64,
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = build(draft)
        # Random layers shrink what passes them, until batch norm has seen images.
        for module in model.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        images = [(make_phantom(number, 96, 90).pixels * 255).astype(np.uint8) for number in range(4)]
        canvases = np.stack([fit_to_canvas(image, canvas_px).canvas for image in images])
        model.backbone.train()(torch.from_numpy(canvases)[:, None].expand(-1, 3, -1, -1) / 57.0 - 2)
        # Far apart, so that rounding does not change the order of boxes.
        model.roi_heads.box_predictor.cls_score.weight.mul_(5)
        model.rpn.head.cls_logits.weight.mul_(20)
    weights = encode_weights(model.state_dict(), torch.float32)
    return draft.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()}), weights
