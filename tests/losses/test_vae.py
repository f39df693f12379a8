"""The terms of variational bounds against `torch.distributions` and by hand."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from lit_aigc.losses.vae import annealed, free_bits, importance_bound
from lit_aigc.networks.layers.densities import bernoulli_log_prob, kl_standard_normal, normal_log_prob


@pytest.fixture
def moments():
    """Means and log-variances of two sets of normal distributions."""
    generator = torch.Generator().manual_seed(0)
    return [2 * torch.randn(50, 7, generator=generator, dtype=torch.float64) for _ in range(4)]


def normal(mean, log_var):
    return Normal(mean, (0.5 * log_var).exp())


def test_normal_log_prob_is_that_of_torch(moments):
    x, mean, log_var, _ = moments
    torch.testing.assert_close(normal_log_prob(x, mean, log_var), normal(mean, log_var).log_prob(x))


def test_bernoulli_log_prob_is_minus_the_cross_entropy_as_are_its_gradients():
    logits = torch.tensor([-500.0, -90.0, -20.0, -3.0, -1e-3, 0.0, 1e-3, 3.0, 20.0, 90.0, 500.0]).repeat(3, 1)
    target = torch.tensor([[0.0], [0.3], [1.0]]).expand_as(logits)
    ours, theirs = logits.clone().requires_grad_(), logits.double().requires_grad_()
    log_prob = bernoulli_log_prob(ours, target)
    expected = -F.binary_cross_entropy_with_logits(theirs, target.double(), reduction="none")
    torch.testing.assert_close(log_prob, expected.float(), rtol=1e-6, atol=1e-7)
    (log_prob.sum(dim=1) * torch.tensor([1.0, 2.0, -3.0])).sum().backward()
    (expected.sum(dim=1) * torch.tensor([1.0, 2.0, -3.0])).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad.float(), rtol=1e-5, atol=1e-7)


def test_kl_is_that_of_torch(moments):
    _, mean, log_var, _ = moments
    standard = normal(torch.zeros_like(mean), torch.zeros_like(mean))
    torch.testing.assert_close(kl_standard_normal(mean, log_var), kl_divergence(normal(mean, log_var), standard))


def test_kl_of_equals_is_zero_and_a_least():
    at = torch.zeros(2, requires_grad=True)
    kl = kl_standard_normal(at, at)
    kl.sum().backward()
    assert kl.tolist() == at.grad.tolist() == [0.0, 0.0]


def test_free_bits_are_counted_for_the_mean_of_the_batch():
    """A group below its free nats has no gradient, though single images are above; the others have all of theirs."""
    kl = torch.tensor([[0.0, 1.0], [0.8, 3.0]], requires_grad=True)
    paid = free_bits(kl, 0.5)
    assert paid.tolist() == [0.5, 2.0]
    paid.sum().backward()
    assert kl.grad.tolist() == [[0.0, 0.5], [0.0, 0.5]]


def test_importance_bound_by_hand():
    assert importance_bound(torch.tensor([[-3.0], [2.0]])).tolist() == [-3.0, 2.0]
    weights = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    expected = [math.log(2), math.log(2)]
    assert importance_bound(weights.log()).tolist() == pytest.approx(expected)
    assert importance_bound(torch.tensor([-2000.0, -2000.0])).item() == -2000.0  # no underflow


def test_importance_bound_weighs_gradients_by_the_normalized_weights():
    log_weights = torch.tensor([0.0, math.log(3.0)], requires_grad=True)
    importance_bound(log_weights).backward()
    assert log_weights.grad.tolist() == pytest.approx([0.25, 0.75])


def test_annealing_is_a_straight_rise():
    assert [annealed(2.0, progress, 0.5) for progress in (0.0, 0.25, 0.5, 1.0)] == [0.0, 1.0, 2.0, 2.0]
    assert annealed(2.0, 0.0, 0.0) == 2.0
