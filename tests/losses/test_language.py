from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from lit_aigc.losses.language import likelihood_figures, likelihood_sums, token_nats


def test_nats_of_a_token_are_minus_the_log_of_its_probability():
    probabilities = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]])
    nats = token_nats((probabilities.log() + 3).bfloat16().float(), torch.tensor([[1, 2]]))
    assert nats.shape == (1, 2)
    assert nats.flatten().tolist() == pytest.approx([math.log(4), -math.log(0.8)], rel=1e-2)
    exact = token_nats(probabilities.log() + 3, torch.tensor([[1, 2]]))
    assert exact.flatten().tolist() == pytest.approx([math.log(4), -math.log(0.8)], rel=1e-6)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_logits_of_low_precision_have_the_loss_and_the_gradient_of_exact_ones(kind):
    torch.manual_seed(0)
    low = (4 * torch.randn(3, 50, 300)).to(kind).requires_grad_()
    exact = low.detach().double().requires_grad_()
    targets, weights = torch.randint(300, (3, 50)), torch.rand(3, 50)
    weights[1, 10:] = 0  # padding
    nats = token_nats(low, targets)
    reference = F.cross_entropy(exact.flatten(0, 1), targets.flatten(), reduction="none").view(3, 50)
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats.double(), reference, rtol=1e-5, atol=1e-5)
    (nats * weights).sum().backward()
    (reference * weights).sum().backward()
    assert low.grad.dtype == kind and not low.grad[1, 10:].any()
    torch.testing.assert_close(low.grad.double(), exact.grad, rtol=2e-2, atol=4e-3)


def test_logits_of_low_precision_have_no_second_derivative():
    """It raises, where it could only be wrong; `torch.func` gives the first."""
    low, targets = torch.randn(1, 5, 7).bfloat16().requires_grad_(), torch.randint(7, (1, 5))
    (slope,) = torch.autograd.grad(token_nats(low, targets).square().sum(), low, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        slope.sum().backward()
    assert torch.equal(torch.func.grad(lambda x: token_nats(x, targets).square().sum())(low.detach()), slope)


def test_what_is_very_unlikely_costs_as_much_as_it_should():
    logits = torch.tensor([[[0.0, 500.0]]], dtype=torch.bfloat16)
    assert token_nats(logits, torch.tensor([[0]])).item() == 500
    assert token_nats(logits, torch.tensor([[1]])).item() == 0


def test_what_is_impossible_costs_infinitely_much_and_has_a_gradient():
    logits = torch.tensor([[[0.0, -torch.inf, 0.0]]], dtype=torch.bfloat16, requires_grad=True)
    nats = token_nats(logits, torch.tensor([[1]]))
    assert nats.item() == math.inf
    nats.sum().backward()
    assert logits.grad.tolist() == [[[0.5, -1.0, 0.5]]]


def test_sums_take_what_counts_alone():
    nats, targets = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]]), torch.tensor([[1, 2, 0], [2, 2, 1]])
    sizes = torch.tensor([[0, 0], [1, 2], [3, 5]])
    assert likelihood_sums(nats, targets, sizes).tolist() == [63, 6, 11, 19]
    mask = torch.tensor([[True, True, True], [False, True, False]])
    assert likelihood_sums(nats, targets, sizes, mask).tolist() == [23, 4, 7, 12]
    assert likelihood_sums(nats, targets, sizes, torch.zeros_like(mask)).tolist() == [0, 0, 0, 0]


def test_sums_of_batches_add_up_in_double_precision():
    torch.manual_seed(0)
    nats, targets = torch.rand(64, 300), torch.randint(0, 5, (64, 300))
    sizes = torch.arange(10).view(5, 2)
    whole = likelihood_sums(nats, targets, sizes)
    parts = sum(likelihood_sums(*part, sizes) for part in zip(nats.split(7), targets.split(7), strict=True))
    assert whole.dtype == torch.float64
    assert parts.tolist() == pytest.approx(whole.tolist(), rel=1e-13)
    assert float(whole[0]) == pytest.approx(math.fsum(nats.flatten().tolist()), rel=1e-13)


def test_numbers_by_hand():
    found = likelihood_figures(math.log(2) * 24, tokens=12, characters=8, size=16, words=3, suffix="_strided")
    expected = {"nats_per_token": 2 * math.log(2), "nats_per_char": 3 * math.log(2), "nats_per_byte": 1.5 * math.log(2)}
    expected |= {"bits_per_token": 2, "bits_per_char": 3, "bits_per_byte": 1.5, "perplexity": 256}
    assert found == pytest.approx({f"{key}_strided": value for key, value in expected.items()})


def test_what_is_not_known_has_no_number():
    assert likelihood_figures(10.0, 5) == pytest.approx({"nats_per_token": 2, "bits_per_token": 2 / math.log(2)})
    assert likelihood_figures(1e6, 5, words=5)["perplexity"] == math.inf
