"""Optimizers by name, and their learning rates."""

from __future__ import annotations

import pytest
import torch

from lit_aigc.errors import InputError
from lit_aigc.optimization.optimizers import hidden_matrices, learning_rates, optimizer


def parameters():
    return [torch.nn.Parameter(torch.ones(3))]


def test_the_class_and_its_options():
    made = optimizer({"name": "AdamW", "lr": 0.1, "betas": [0.5, 0.9], "weight_decay": 0.2}, parameters())
    assert type(made) is torch.optim.AdamW
    assert made.defaults["lr"] == 0.1
    assert made.defaults["betas"] == (0.5, 0.9)
    assert made.defaults["weight_decay"] == 0.2


def test_fused_is_on_where_there_is_such_a_thing():
    assert optimizer({"name": "Adam"}, parameters()).defaults["fused"] is True
    assert optimizer({"name": "Adam", "fused": False}, parameters()).defaults["fused"] is False
    assert "fused" not in optimizer({"name": "RMSprop"}, parameters()).defaults


def test_adam_is_the_default_and_the_config_stays_as_it_was():
    config = {"lr": 0.1}
    assert type(optimizer(config, iter(parameters()))) is torch.optim.Adam
    assert config == {"lr": 0.1}


def test_a_step_moves_the_parameters():
    weights = parameters()
    made = optimizer({"name": "SGD", "lr": 0.5}, weights)
    weights[0].sum().backward()
    made.step()
    assert torch.equal(weights[0].detach(), torch.full((3,), 0.5))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"name": "Adamm"}, "unknown optimizer 'Adamm', did you mean 'Adam'?"),
        ({"name": "Optimizer"}, "unknown optimizer 'Optimizer'"),
        ({"name": "lr_scheduler"}, "unknown optimizer 'lr_scheduler'"),
        ({"name": "Adam", "beta": 1}, "unknown option 'beta' of optimizer Adam, did you mean 'betas'?"),
        ({"name": "Adam", "params": []}, "unknown option 'params' of optimizer Adam"),
        ({"name": "Adam", "lr": -1.0}, "Invalid learning rate"),
        ({"name": "Adam", "lr": "fast"}, "optimizer Adam can't do"),
        ({"name": "Adam", "betas": [0.5, 2.0]}, "Invalid beta"),
        ({"name": "Adam", "betas": 3}, "optimizer Adam can't do"),
    ],
)
def test_what_is_refused(config, expected):
    with pytest.raises(InputError) as error:
        optimizer(config, parameters())
    assert expected in str(error.value)


def test_unknown_options_come_in_one_message():
    with pytest.raises(InputError) as error:
        optimizer({"name": "SGD", "b": 1, "a": 2}, parameters())
    assert [line.split("'")[1] for line in str(error.value).splitlines()] == ["a", "b"]


def test_an_option_of_none_is_left_out():
    """So that a config that replaces Adam by another optimizer can take its betas away."""
    made = optimizer({"name": "RMSprop", "lr": 0.1, "betas": None}, [torch.nn.Parameter(torch.zeros(1))])
    assert (type(made).__name__, made.defaults["lr"]) == ("RMSprop", 0.1)


def test_hidden_matrices_are_those_of_linear_and_recurrent_layers_without_the_logits():
    network = torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(7, 4),
            "layer": torch.nn.Linear(4, 8),
            "recurrent": torch.nn.LSTM(8, 4),
            "norm": torch.nn.LayerNorm(4),
            "head": torch.nn.Linear(4, 7),
        }
    )
    recurrent = network["recurrent"]
    wanted = [network["layer"].weight, recurrent.weight_ih_l0, recurrent.weight_hh_l0]
    found = hidden_matrices(network, 7)
    assert len(found) == 3 and all(one is other for one, other in zip(found, wanted, strict=True))


def test_learning_rates_are_named_where_there_are_several():
    def made(*rates):
        return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])

    assert learning_rates([made(0.1)], ("",)) == {"lr": 0.1}
    assert learning_rates([made(0.1, 0.1), made(0.2)], ("", "matrix")) == {"lr": 0.1, "matrix_lr": 0.2}
    assert learning_rates([made(0.1, 0.3), made(0.2)], ("d",)) == {"d_lr_0": 0.1, "d_lr_1": 0.3, "1_lr": 0.2}
