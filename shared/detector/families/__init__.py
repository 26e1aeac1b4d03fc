"""The families of networks, one module each: how they are built, trained, run and recognised.

To add an architecture, add it to a module here, and to the list of names and the table in
`shared.detector.architectures`.
"""

from collections.abc import Collection
from importlib import import_module

from torch import nn

from shared.detector.architectures import ARCHITECTURES, Architecture
from shared.detector.card import ModelCard
from shared.detector.families import abnormality
from shared.detector.families.abnormality import add_head
from shared.detector.families.family import Family, Plan


def family_of(architecture: Architecture) -> Family:
    """Return the family that builds, trains and runs an architecture."""
    module = import_module(f"{__name__}.{ARCHITECTURES[architecture].family}")
    family: Family = module.FAMILY
    return family


def plan_of(architecture: Architecture) -> Plan:
    """Return an architecture's defaults and hallmark."""
    return family_of(architecture).plans[architecture]


def build(card: ModelCard) -> nn.Module:
    """Return the card's network with random weights; its state dict has torchvision's keys."""
    model = family_of(card.architecture).build(card)
    if card.abnormality_exponent is not None:
        add_head(model)
    return model


def loss_names(card: ModelCard) -> tuple[str, ...]:
    """Return the names of the parts of the card's loss, in the metrics of a training."""
    names = family_of(card.architecture).loss_names
    return names if card.abnormality_exponent is None else (*names, abnormality.LOSS)


def recognise(names: Collection[str]) -> Architecture | None:
    """Return the architecture whose hallmark is among the names of a checkpoint's weights.

    If several match, the one with the longest hallmark is returned, because it is the most specific.
    """
    hallmarks = {architecture: plan_of(architecture).hallmark for architecture in ARCHITECTURES}
    matching = [architecture for architecture, hallmark in hallmarks.items() if all(name in names for name in hallmark)]
    return max(matching, key=lambda architecture: len(hallmarks[architecture]), default=None)
