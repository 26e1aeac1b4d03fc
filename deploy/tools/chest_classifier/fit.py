"""A training of the classifier, and the choice of its thresholds."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from deploy.tools.chest_classifier.material import Material
from deploy.tools.chest_classifier.network import Network
from deploy.tools.chest_classifier.variation import Floats, vary
from shared.imaging.chest_classifier.card import CLASSES, INVERTED, OTHER, ROTATED, Thresholds
from shared.imaging.chest_classifier.network import standardise

SIDE_PX = 64
_LEARNING_RATE, _WEIGHT_DECAY = 4e-3, 1e-2
#: An image is varied this many times to choose thresholds on: few images must stand for many.
_VARIATIONS = 40
#: Of frontal images, varied, at most this share may be flagged for each reason.
_FALSE_ALARMS = 0.001
#: Below the first a class is not the likeliest; what reaches the last always is.
_LOWEST, _HIGHEST = 0.6, 0.995


def fit(material: Material, steps: int, batch_size: int, seed: int, report: Callable[[int, float], object]) -> Network:
    """Train a network; `report` gets the number of steps done and the loss, averaged over the last ones or so."""
    torch.set_num_threads(1)  # in so small a network threads wait for each other most of the time
    torch.manual_seed(seed)
    network = Network(SIDE_PX)
    optimizer = torch.optim.AdamW(network.parameters(), _LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
    batches = material.batches(np.random.default_rng(seed), steps, batch_size, SIDE_PX)
    average = 0.0
    network.train()
    for step, (pictures, labels) in enumerate(batches, start=1):
        loss = nn.functional.cross_entropy(network(torch.from_numpy(pictures)), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        average += (loss.item() - average) / min(step, 50)
        report(step, average)
    return network.eval()


def choose_thresholds(network: Network, chests: Sequence[Floats], seed: int) -> Thresholds:
    """For each reason, the score that next to no frontal image of `chests` reaches, in many takings of each."""
    rng = np.random.default_rng(seed)
    pictures = [standardise(vary(image, rng, SIDE_PX)) for image in chests for _ in range(_VARIATIONS)]
    with torch.no_grad():
        scores = network(torch.from_numpy(np.stack(pictures))).softmax(1).numpy()  # [N, classes]
    highest = np.quantile(scores, 1 - _FALSE_ALARMS, axis=0)
    chosen = {
        name: round(float(np.clip(score, _LOWEST, _HIGHEST)), 3) for name, score in zip(CLASSES, highest, strict=True)
    }
    return Thresholds(**{name: chosen[name] for name in (ROTATED, INVERTED, OTHER)})
