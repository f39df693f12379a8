import pytest
import torch
from torch.nn import functional as F

from lit_aigc.losses.gan_regularization import (
    clip_weights,
    feature_matching,
    interpolate,
    one_centered_penalty,
    squared_gradient,
    zero_centered_penalty,
)


def quadratic(x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """``x A x / 2`` with a symmetric A: its gradient is ``A x``."""
    return 0.5 * torch.einsum("ni,ij,nj->n", x, a, x)


@pytest.fixture
def problem():
    torch.manual_seed(0)
    a = torch.randn(5, 5, dtype=torch.float64)
    return torch.randn(4, 5, dtype=torch.float64).requires_grad_(), (a + a.T).requires_grad_()


def test_squared_gradient_of_a_quadratic_form(problem):
    x, a = problem
    torch.testing.assert_close(
        squared_gradient(quadratic(x, a), x).double(), (x @ a).square().sum(1), rtol=1e-6, atol=1e-6
    )


def test_the_zero_centered_penalty_and_its_gradient_have_closed_forms(problem):
    """``E |A x|^2 / 2`` has the gradient ``A E[x x^T]`` with respect to A."""
    x, a = problem
    penalty = zero_centered_penalty(quadratic(x, a), x)
    assert penalty.item() == pytest.approx(0.5 * (x @ a).square().sum(1).mean().item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(penalty, a)
    closed = a @ x.T @ x / len(x)
    # quadratic() sees A through x A x only, so autograd gives the symmetric part
    torch.testing.assert_close((gradient + gradient.T) / 2, (closed + closed.T) / 2, rtol=1e-5, atol=1e-6)


def test_the_one_centered_penalty_of_a_linear_function():
    w = torch.tensor([3.0, 4.0], requires_grad=True)
    x = torch.randn(6, 2, requires_grad=True)
    penalty = one_centered_penalty(x @ w, x)
    assert penalty.item() == pytest.approx((5 - 1) ** 2, rel=1e-5)
    (gradient,) = torch.autograd.grad(penalty, w)
    torch.testing.assert_close(gradient, 2 * 4 * torch.tensor([0.6, 0.8]), rtol=1e-4, atol=1e-4)


def test_a_dead_discriminator_gives_finite_gradients():
    w = torch.zeros(2, requires_grad=True)
    x = torch.randn(6, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(one_centered_penalty(x @ w, x), w)
    assert gradient.isfinite().all()


def test_penalty_gradients_agree_with_finite_differences_through_a_network():
    torch.manual_seed(1)
    conv, x = torch.randn(3, 1, 3, 3, dtype=torch.float64, requires_grad=True), torch.randn(2, 1, 6, 6).double()

    def penalty(weight: torch.Tensor) -> torch.Tensor:
        images = x.clone().requires_grad_()
        return zero_centered_penalty(F.softplus(F.conv2d(images, weight)).sum(dim=(1, 2, 3)), images).double()

    (gradient,) = torch.autograd.grad(penalty(conv), conv)
    step = torch.zeros_like(conv)
    step[1, 0, 2, 0] = 1e-3
    difference = (penalty(conv + step) - penalty(conv - step)) / 2e-3
    assert gradient[1, 0, 2, 0].item() == pytest.approx(difference.item(), rel=1e-3)


def test_between_is_a_convex_combination_image_by_image():
    real, fake = torch.ones(3, 1, 2, 2), torch.zeros(3, 1, 2, 2)
    points = interpolate(real, fake, torch.tensor([0.0, 0.25, 1.0]))
    assert points[:, 0, 0, 0].tolist() == [0.0, 0.25, 1.0]
    assert (points == points[:, :, :1, :1]).all()


def test_feature_matching_is_the_squared_distance_of_means_and_leaves_the_real_side_alone():
    real = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    fake = torch.tensor([[0.0, 0.0], [2.0, 2.0], [1.0, 1.0]], requires_grad=True)
    loss = feature_matching(real, fake)
    assert loss.item() == pytest.approx(((2 - 1) ** 2 + (3 - 1) ** 2) / 2)
    loss.backward()
    assert real.grad is None
    assert fake.grad is not None


def test_clip_weights():
    weights = [torch.tensor([-2.0, 0.005]), torch.tensor([[0.5]])]
    clip_weights(weights, 0.01)
    assert [w.flatten().tolist() for w in weights] == [pytest.approx([-0.01, 0.005]), pytest.approx([0.01])]


def test_the_loss_scale_keeps_half_precision_gradients_from_becoming_0():
    """A factor of 2 ** -14 twice is less than half precision can hold, and the scale cancels."""
    x = torch.ones(3, 2, dtype=torch.float16, requires_grad=True)
    logits = ((x * 2**-14) * 2**-14).sum(dim=1).float()
    assert zero_centered_penalty(logits, x) == 0
    assert zero_centered_penalty(logits, x, torch.tensor(2.0**12)) == 2**-56
    steep = torch.full((3, 2), 2.0**-5, dtype=torch.float16)  # a norm of about 0.044
    expected = (steep[0].float().norm() - 1).square()
    torch.testing.assert_close(one_centered_penalty((x * steep).sum(dim=1).float(), x, torch.tensor(2.0**12)), expected)
