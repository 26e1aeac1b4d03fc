"""The learning rate is a function of the position, and the average follows the weights."""

import pytest
import torch
from torch import nn

from tests.tiny_images import tiny_config
from trainer.optimization import Average, learning_rate, make_optimizer


def test_the_rate_warms_up_then_falls_as_a_cosine_to_zero() -> None:
    config = tiny_config(epochs=11, warmup_epochs=1, learning_rate=0.1)
    assert learning_rate(config, 1, 0) == pytest.approx(1e-4)
    assert learning_rate(config, 1, 0.5) == pytest.approx(0.05, rel=1e-2)
    assert learning_rate(config, 1, 1) == pytest.approx(0.1)
    assert learning_rate(config, 1, 6) == pytest.approx(0.05)
    assert learning_rate(config, 1, 11) == pytest.approx(0, abs=1e-12)


def test_a_warm_up_in_steps_does_not_depend_on_the_length_of_an_epoch() -> None:
    config = tiny_config(epochs=10, warmup_steps=4, learning_rate=0.1)
    for in_epoch in (2, 8):
        rates = [learning_rate(config, 1, steps / in_epoch, steps, in_epoch) for steps in range(10 * in_epoch)]
        assert rates[:5] == pytest.approx([1e-4, 0.025075, 0.05005, 0.075025, 0.1])
        assert max(rates) == pytest.approx(0.1)
        assert rates[4:] == sorted(rates[4:], reverse=True)
        assert rates[-1] < 0.01
    assert learning_rate(tiny_config(warmup_steps=0, learning_rate=0.1), 1, 0, 0, 5) == pytest.approx(0.1)


def test_the_rate_falls_in_steps_at_milestones() -> None:
    config = tiny_config(epochs=10, warmup_epochs=0, schedule="multistep", milestones=(3, 6), learning_rate=1.0)
    assert [learning_rate(config, 1, epoch) for epoch in (0, 2.9, 3, 5.9, 6, 9)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_the_rate_grows_with_the_number_of_ranks_unless_told_otherwise() -> None:
    config = tiny_config(warmup_epochs=0)
    assert learning_rate(config, 4, 0) == pytest.approx(4 * learning_rate(config, 1, 0))
    fixed = tiny_config(warmup_epochs=0, scale_learning_rate=False)
    assert learning_rate(fixed, 4, 0) == learning_rate(fixed, 1, 0)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_kernels_decay_and_biases_do_not(optimizer: str) -> None:
    layer = nn.Linear(2, 2)
    groups = make_optimizer(layer, tiny_config(optimizer=optimizer, weight_decay=0.1)).param_groups
    decay_of = {id(weight): group["weight_decay"] for group in groups for weight in group["params"]}
    assert decay_of == {id(layer.weight): 0.1, id(layer.bias): 0.0}


def test_the_average_follows_the_weights_quickly_at_first() -> None:
    layer = nn.Linear(1, 1, bias=False)
    average = Average(layer, 0.5)
    kept = []
    for value in (1.0, 2.0, 3.0):
        with torch.no_grad():
            layer.weight.fill_(value)
        average.update(layer)
        kept.append(next(average.model.parameters()).item())
    assert kept[0] == 1.0
    assert kept[0] < kept[1] < kept[2] < 3.0
    again = Average(nn.Linear(1, 1, bias=False), 0.5)
    again.load_state_dict(average.state_dict())
    again.update(layer)
    average.update(layer)
    assert torch.equal(next(again.model.parameters()), next(average.model.parameters()))


def test_without_a_decay_the_average_is_the_model_itself() -> None:
    layer = nn.Linear(1, 1)
    assert Average(layer, None).model is layer
