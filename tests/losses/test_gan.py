import math

import pytest
import torch

from lit_aigc.losses.gan import ADVERSARIAL_LOSSES


def test_non_saturating_loss_is_binary_cross_entropy():
    real, fake = torch.randn(7, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    loss = ADVERSARIAL_LOSSES["non_saturating"]
    entropy = torch.nn.functional.binary_cross_entropy
    expected = entropy(real.sigmoid(), torch.ones_like(real)) + entropy(fake.sigmoid(), torch.zeros_like(fake))
    torch.testing.assert_close(loss.discriminator(real, fake), expected)
    torch.testing.assert_close(loss.generator(fake), entropy(fake.sigmoid(), torch.ones_like(fake)))


def test_hinge_loss_at_hand_computed_points():
    loss = ADVERSARIAL_LOSSES["hinge"]
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 1.0])
    assert loss.discriminator(real, fake).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3)
    assert loss.generator(fake).item() == pytest.approx(1 / 3)


def test_losses_at_the_equilibrium():
    """A discriminator that knows nothing: 2 log 2 for the logistic loss, 2 for the hinge."""
    zeros = torch.zeros(5)
    assert ADVERSARIAL_LOSSES["non_saturating"].discriminator(zeros, zeros).item() == pytest.approx(2 * math.log(2))
    assert ADVERSARIAL_LOSSES["hinge"].discriminator(zeros, zeros).item() == 2.0


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_both_players_pull_the_fake_logits_apart(name):
    fake = torch.zeros(3, requires_grad=True)
    loss = ADVERSARIAL_LOSSES[name]
    (up,) = torch.autograd.grad(loss.discriminator(torch.zeros(3), fake), fake)
    (down,) = torch.autograd.grad(loss.generator(fake), fake)
    assert (up > 0).all()
    assert (down < 0).all()
