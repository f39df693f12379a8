import copy

import pytest
import torch

from lit_aigc.errors import InputError
from lit_aigc.networks import dcgan, mlp


@pytest.mark.parametrize("kind", [dcgan, mlp])
@pytest.mark.parametrize("classes", [0, 4])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64)])
def test_shapes_and_range(kind, classes, shape):
    generator = kind.Generator(shape, classes, latent_dim=6)
    discriminator = kind.Discriminator(shape, classes)
    y = torch.tensor([0, 1, 3]) if classes else None
    images = generator(torch.randn(3, 6), y)
    assert images.shape == (3, *shape)
    assert images.abs().max() <= 1.0
    assert discriminator(images, y).shape == (3,)


@pytest.mark.parametrize("size", [27, 8, 36, 4])
def test_a_size_that_dcgan_cannot_do(size):
    with pytest.raises(InputError, match=f"{size}x{size}.*28, 32 or 64"):
        dcgan.Generator((1, size, size))


def test_a_shape_that_is_not_square():
    with pytest.raises(InputError, match="28x32"):
        dcgan.Discriminator((1, 28, 32))


@pytest.mark.parametrize("kind", [dcgan, mlp])
def test_the_discriminator_projects_on_the_class(kind):
    """logits(x, a) - logits(x, b) is the inner product of features with the difference of the class embeddings."""
    discriminator = kind.Discriminator((1, 28, 28), 3).eval()
    torch.nn.init.normal_(discriminator.projection.weight)
    x = torch.randn(2, 1, 28, 28)
    features = discriminator.features(x).flatten(1)
    difference = discriminator(x, torch.tensor([2, 2])) - discriminator(x, torch.tensor([0, 0]))
    weight = discriminator.projection.weight
    torch.testing.assert_close(difference, features @ (weight[2] - weight[0]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [dcgan, mlp])
def test_a_fresh_generator_hears_the_latent_above_the_class(kind):
    """Where classes are louder than latents, the generator learns to make one picture a class."""
    torch.manual_seed(0)
    generator = kind.Generator((1, 28, 28), 10)
    z, y = torch.randn(200, 64), torch.arange(200) % 10
    latent_only = generator(z, torch.zeros_like(y)).var(dim=0).mean()
    class_only = generator(z[:1].expand(200, -1), y).var(dim=0).mean()
    assert latent_only > 2 * class_only


def test_spectral_normalization_bounds_each_layer():
    discriminator = dcgan.Discriminator((1, 28, 28), channels=4, normalization="spectral")
    for _ in range(50):
        discriminator(torch.randn(4, 1, 28, 28))
    discriminator.eval()
    convolution = discriminator.features[2]
    assert torch.linalg.matrix_norm(convolution.weight.flatten(1), 2).item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("normalization", ["batch", "spectral", "none"])
@pytest.mark.parametrize("classes", [0, 3])
def test_a_pair_is_two_passes(normalization, classes):
    """Logits, gradients and running statistics, to rounding."""
    torch.manual_seed(0)
    one = dcgan.Discriminator((1, 28, 28), classes, channels=4, normalization=normalization).double()
    two = copy.deepcopy(one)
    real, fake = torch.randn(6, 1, 28, 28).double(), 0.3 * torch.randn(6, 1, 28, 28).double()
    y = torch.arange(6) % 3 if classes else None
    pair = one.pair(real, fake, y)
    passes = two(real, y), two(fake, y)
    for logits, expected in zip(pair, passes, strict=True):
        # A spectral norm takes a power iteration a pass: one in a pair, two in two passes.
        tolerance = 0.2 if normalization == "spectral" else 1e-9
        torch.testing.assert_close(logits, expected, atol=tolerance, rtol=tolerance)
    if normalization == "spectral":
        return
    for logits in (pair, passes):
        (logits[0].square().mean() - logits[1].mean()).backward()
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    for a, b in zip(one.buffers(), two.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_component_moves_the_latent_by_its_mean():
    torch.manual_seed(0)
    mixed = dcgan.Generator((1, 28, 28), latent_dim=6, channels=4, components=3).eval()
    z = torch.randn(5, 6)
    largest = z[:, :3].argmax(dim=1)
    assert len(largest.unique()) > 1
    means, mixed.components = mixed.components, None
    plain = mixed(z + means[largest])
    mixed.components = means
    torch.testing.assert_close(mixed(z), plain)
    mixed(z).sum().backward()
    assert means.grad[largest.unique()].abs().sum(dim=1).min() > 0


def test_more_components_than_the_latent_can_tell_apart():
    with pytest.raises(InputError, match="components=9: expected 0 to latent_dim=8"):
        dcgan.Generator((1, 28, 28), latent_dim=8, components=9)


def test_the_minibatch_deviation_and_the_hidden_layer_keep_real_and_fake_apart():
    torch.manual_seed(0)
    network = dcgan.Discriminator((1, 28, 28), 3, channels=4, normalization="none", hidden=8, minibatch_group=2)
    real, fake, y = torch.randn(4, 1, 28, 28), torch.zeros(4, 1, 28, 28), torch.tensor([0, 1, 2, 0])
    for one, other in zip(network.pair(real, fake, y), (network(real, y), network(fake, y)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    alone = network(real[:1], y[:1])  # a group of one has no deviation
    assert not torch.allclose(alone, network(real, y)[:1])
