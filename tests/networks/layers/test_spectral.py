import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lit_aigc.networks.layers.spectral import SpectralNorm, spectral_norm

LAYERS = [nn.Conv2d(6, 8, 3), nn.Conv2d(4, 3, 1), nn.Linear(10, 7), nn.Embedding(5, 9), nn.Linear(4, 1)]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_largest_singular_value_is_one(layer, layout):
    torch.manual_seed(0)
    layer = spectral_norm(copy.deepcopy(layer).to(memory_format=layout))
    original = layer.parametrizations.weight.original
    for _ in range(100):
        _ = layer.weight
    sigma = torch.linalg.svdvals(original.flatten(1))[0]
    torch.testing.assert_close(layer.weight, original / sigma, rtol=1e-3, atol=1e-5)


def test_it_is_close_from_the_first_use_on():
    torch.manual_seed(0)
    for _ in range(10):
        layer = spectral_norm(nn.Conv2d(16, 32, 3))
        assert torch.linalg.svdvals(layer.weight.detach().flatten(1))[0].item() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_those_of_torchs_own(layout):
    torch.manual_seed(0)
    ours = nn.Conv2d(4, 6, 3).double().to(memory_format=layout)
    theirs = parametrizations.spectral_norm(copy.deepcopy(ours), n_power_iterations=200, eps=1e-12)
    ours = spectral_norm(ours).double()
    for _ in range(300):
        _ = ours.weight
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    for layer in (ours, theirs):
        layer(x).pow(3).sum().backward()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.parametrizations.weight.original.grad, theirs.parametrizations.weight.original.grad)


def test_the_estimate_moves_once_a_training_pass_and_else_never():
    layer = spectral_norm(nn.Conv2d(6, 8, 3))
    state = layer.parametrizations.weight[0]
    with torch.no_grad():
        layer.parametrizations.weight.original.normal_()  # a weight it has not seen
    x = torch.randn(1, 6, 4, 4)

    def moves():
        before = state.u.clone()
        layer(x)
        return not torch.equal(before, state.u)

    assert moves()
    layer.eval()
    assert not moves()
    layer.train().requires_grad_(False)
    assert not moves()
    layer.requires_grad_(True)
    assert moves()


def test_two_passes_before_one_backward():
    layer = spectral_norm(nn.Linear(4, 3))
    x = torch.randn(2, 4)
    (layer(x).sum() + layer(x).square().sum()).backward()
    assert torch.isfinite(layer.parametrizations.weight.original.grad).all()


def test_autocast_leaves_the_estimate_in_full_precision():
    weight = torch.randn(64, 64)
    norm = SpectralNorm(weight, iterations=50)
    with torch.autocast("cpu", torch.bfloat16):
        normalized = norm(weight)
    torch.testing.assert_close(normalized, norm(weight), rtol=1e-5, atol=1e-6)


def test_a_weight_of_zeros_stays_zero():
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    assert torch.equal(spectral_norm(layer).weight, torch.zeros(2, 3))


def test_the_power_iteration_is_in_full_precision_under_autocast(monkeypatch):
    """CPU autocast leaves `torch.mv` alone, CUDA autocast doesn't: so what is looked at is whether it is on."""
    weight, seen, multiply = torch.randn(6, 5, requires_grad=True), [], torch.mv
    torch.manual_seed(0)
    norm = SpectralNorm(weight, iterations=1)
    plain = copy.deepcopy(norm)
    with monkeypatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr(torch, "mv", lambda *args: (seen.append(torch.is_autocast_enabled("cpu")), multiply(*args))[1])
        normalized = norm(weight)
        assert torch.is_autocast_enabled("cpu")
    assert seen == [False] * 3
    assert normalized.dtype == norm.u.dtype == torch.float32
    assert torch.equal(normalized, plain(weight))
    assert torch.equal(norm.u, plain.u)
