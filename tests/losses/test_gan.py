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
    torch.testing.assert_close(loss.generator(None, fake), entropy(fake.sigmoid(), torch.ones_like(fake)))


def test_hinge_loss_at_hand_computed_points():
    loss = ADVERSARIAL_LOSSES["hinge"]
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 1.0])
    assert loss.discriminator(real, fake).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3)
    assert loss.generator(None, fake).item() == pytest.approx(1 / 3)


def test_losses_at_the_equilibrium():
    """A discriminator that knows nothing: 2 log 2 for the logistic loss, 2 for the hinge."""
    zeros = torch.zeros(5)
    assert ADVERSARIAL_LOSSES["non_saturating"].discriminator(zeros, zeros).item() == pytest.approx(2 * math.log(2))
    assert ADVERSARIAL_LOSSES["hinge"].discriminator(zeros, zeros).item() == 2.0


def test_minimax_generator_wants_what_the_discriminator_dreads():
    """It goes up with the fake part of the discriminator's loss: a zero-sum game."""
    loss = ADVERSARIAL_LOSSES["minimax"]
    fake, real = torch.tensor([0.3, -1.2]), torch.full((2,), 1e4)  # the real part is 0 there
    assert loss.generator(None, fake).item() == pytest.approx(-loss.discriminator(real, fake).item())
    assert loss.generator(None, fake).item() == pytest.approx((1 - fake.sigmoid()).log().mean().item(), rel=1e-6)


def test_least_squares_loss_is_half_the_squared_error():
    loss = ADVERSARIAL_LOSSES["least_squares"]
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-1.0, 0.5])
    assert loss.discriminator(real, fake).item() == pytest.approx(0.5 * ((1 + 0.25) / 2 + (1 + 0.25) / 2))
    assert loss.generator(None, fake).item() == pytest.approx(0.5 * (4 + 0.25) / 2)


def test_wasserstein_loss_is_a_difference_of_means():
    loss = ADVERSARIAL_LOSSES["wasserstein"]
    real, fake = torch.tensor([3.0, 5.0]), torch.tensor([1.0, 0.0])
    assert loss.discriminator(real, fake).item() == pytest.approx(0.5 - 4.0)
    assert loss.generator(None, fake).item() == pytest.approx(-0.5)


def test_relativistic_loss_is_cross_entropy_of_the_differences():
    loss = ADVERSARIAL_LOSSES["relativistic"]
    real, fake = torch.randn(7, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    difference = (real - fake).sigmoid()
    torch.testing.assert_close(loss.discriminator(real, fake), -difference.log().mean())
    torch.testing.assert_close(loss.generator(real, fake), -(1 - difference).log().mean())
    torch.testing.assert_close(loss.discriminator(real + 3, fake + 3), loss.discriminator(real, fake))


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_both_players_pull_the_fake_logits_apart(name):
    fake = torch.full((3,), 0.1, requires_grad=True)
    loss = ADVERSARIAL_LOSSES[name]
    (up,) = torch.autograd.grad(loss.discriminator(torch.zeros(3), fake), fake)
    (down,) = torch.autograd.grad(loss.generator(torch.zeros(3), fake), fake)
    assert (up > 0).all()
    assert (down < 0).all()


@pytest.mark.parametrize("name", [name for name, loss in ADVERSARIAL_LOSSES.items() if loss.least > float("-inf")])
def test_no_loss_is_below_its_least_value_and_a_perfect_discriminator_is_near_it(name):
    loss = ADVERSARIAL_LOSSES[name]
    real, fake = torch.randn(1000) * 5, torch.randn(1000) * 5
    assert loss.discriminator(real, fake).item() > loss.least
    best = (torch.ones(3), torch.zeros(3)) if name == "least_squares" else (torch.full((3,), 30.0), -torch.ones(3) * 30)
    assert loss.discriminator(*best).item() == pytest.approx(loss.least, abs=1e-6)
