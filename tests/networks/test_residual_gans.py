"""SNGAN, SAGAN and R3GAN: what all of them promise."""

import copy

import pytest
import torch
from torch.nn.utils import parametrize

from lit_aigc.errors import InputError
from lit_aigc.networks import r3gan, sagan, sngan

FORMS = [  # name, module, options of both networks
    ("sngan", sngan, {}),
    ("sagan", sagan, {}),
    ("r3gan", r3gan, {"group_size": 4, "blocks": 1}),
    ("r3gan-stride", r3gan, {"group_size": 4, "blocks": [1, 2], "stride": 2}),
]
forms = pytest.mark.parametrize(("kind", "options"), [form[1:] for form in FORMS], ids=[form[0] for form in FORMS])


def awake(network):
    """The network with every parameter moved off its start, where classes and branches are silent."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@forms
@pytest.mark.parametrize("classes", [0, 4])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 64, 64)])
def test_shapes_and_range(kind, options, classes, shape):
    generator = kind.Generator(shape, classes, latent_dim=6, channels=4, **options)
    discriminator = kind.Discriminator(shape, classes, channels=4, **options)
    y = torch.tensor([0, 1, 3]) if classes else None
    images = generator(torch.randn(3, generator.latent_dim), y)
    assert images.shape == (3, *shape)
    assert images.abs().max() <= 1.0
    assert images.std(dim=0).mean() > 0.02
    logits = discriminator(images, y)
    assert logits.shape == (3,)
    assert torch.equal(discriminator.eval()(images, y), discriminator.head(discriminator.features(images), y))


@forms
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 32)])
def test_a_size_that_it_cannot_do(kind, options, shape):
    for network in (kind.Generator, kind.Discriminator):
        with pytest.raises(InputError, match="28, 32 or 64"):
            network(shape, **options)


@forms
def test_a_fresh_generator_has_contrast(kind, options):
    """A fresh network's images have contrast without being saturated."""
    torch.manual_seed(0)
    for shape in ((1, 28, 28), (3, 32, 32)):
        generator = kind.Generator(shape, 10, channels=16, **options)
        images = generator(torch.randn(32, generator.latent_dim), torch.arange(32) % 10)
        assert 0.05 < images.std() < 0.8
        assert (images.abs() > 0.99).float().mean() < 0.1


@forms
def test_the_first_gradients_are_moderate(kind, options):
    torch.manual_seed(0)
    generator = kind.Generator((1, 28, 28), 10, channels=16, **options)
    discriminator = kind.Discriminator((1, 28, 28), 10, channels=16, **options)
    y = torch.arange(16) % 10
    discriminator(generator(torch.randn(16, generator.latent_dim), y), y).mean().backward()
    for network in (generator, discriminator):
        norm = torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None]).norm()
        assert 1e-4 < norm < 100


@forms
@pytest.mark.parametrize("classes", [0, 3])
def test_a_pair_is_two_passes(kind, options, classes):
    torch.manual_seed(0)
    discriminator = awake(kind.Discriminator((1, 28, 28), classes, channels=4, **options)).double()
    discriminator.eval()  # else spectral norms move on between the passes
    real, fake = torch.randn(6, 1, 28, 28).double(), 0.3 * torch.randn(6, 1, 28, 28).double()
    y = torch.arange(6) % 3 if classes else None
    pair = discriminator.pair(real, fake, y)
    passes = discriminator(real, y), discriminator(fake, y)
    torch.testing.assert_close(pair, passes)
    parameters = list(discriminator.parameters())
    for a, b in zip(
        *(torch.autograd.grad(a.square().mean() - b.mean(), parameters) for a, b in (pair, passes)), strict=True
    ):
        torch.testing.assert_close(a, b)


@forms
def test_the_class_reaches_the_output(kind, options):
    torch.manual_seed(0)
    generator = awake(kind.Generator((1, 28, 28), 3, latent_dim=6, channels=4, **options)).eval()
    discriminator = awake(kind.Discriminator((1, 28, 28), 3, channels=4, **options)).eval()
    z = torch.randn(1, 6)
    images = torch.cat([generator(z, torch.tensor([label])) for label in range(3)])
    assert torch.pdist(images.flatten(1)).min() > 1e-3
    logits = torch.stack([discriminator(images[:1], torch.tensor([label])) for label in range(3)])
    assert torch.pdist(logits).min() > 1e-5


@forms
def test_the_discriminator_projects_on_the_class(kind, options):
    """logits(x, a) - logits(x, b) is linear in the features: the same for two images whose features are the same."""
    torch.manual_seed(0)
    discriminator = awake(kind.Discriminator((1, 28, 28), 3, channels=4, **options)).double().eval()
    features = discriminator.features(torch.randn(2, 1, 28, 28).double())
    labels = torch.tensor([2, 2]), torch.tensor([0, 0])
    difference = discriminator.head(features, labels[0]) - discriminator.head(features, labels[1])
    doubled = discriminator.head(2 * features, labels[0]) - discriminator.head(2 * features, labels[1])
    torch.testing.assert_close(doubled, 2 * difference)
    if kind is not r3gan:
        weight = discriminator.projection.weight
        torch.testing.assert_close(difference, features @ (weight[2] - weight[0]))


@forms
@pytest.mark.parametrize("which", ["generator", "discriminator"])
def test_evaluation_treats_each_item_alone(kind, options, which):
    torch.manual_seed(0)
    y = torch.tensor([0, 1, 2])
    if which == "generator":
        network = awake(kind.Generator((1, 28, 28), 3, latent_dim=6, channels=4, **options)).eval()
        x = torch.randn(3, 6)
    else:
        network = awake(kind.Discriminator((1, 28, 28), 3, channels=4, **options)).eval()
        x = torch.randn(3, 1, 28, 28)
    torch.testing.assert_close(network(x, y)[1:2], network(x[1:2], y[1:2]), atol=1e-5, rtol=1e-4)


@forms
def test_the_gradient_penalty_has_the_right_gradient(kind, options):
    """Of |dD/dx|^2 with respect to the weights, against a difference quotient along a random direction."""
    torch.manual_seed(0)
    discriminator = awake(kind.Discriminator((1, 28, 28), 3, channels=4, **options)).double()
    for module in discriminator.modules():
        if parametrize.is_parametrized(module):  # the gradient of a spectral norm is right where its vectors are
            for _ in range(300):
                _ = module.weight
    discriminator.eval()
    x, y = torch.randn(2, 1, 28, 28).double().requires_grad_(), torch.tensor([0, 2])
    parameters = list(discriminator.parameters())

    def penalty(create_graph):
        (gradient,) = torch.autograd.grad(discriminator(x, y).sum(), x, create_graph=create_graph)
        return gradient.square().sum()

    gradients = torch.autograd.grad(penalty(True), parameters, allow_unused=True)
    direction = [torch.randn_like(p) for p in parameters]
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True) if g is not None)
    values = []
    step = 1e-6
    for sign in (1, -2):
        with torch.no_grad():
            torch._foreach_add_(parameters, direction, alpha=sign * step)
        values.append(penalty(False))
    difference = (values[0] - values[1]) / (2 * step)
    torch.testing.assert_close(slope, difference, rtol=1e-3, atol=1e-6)


@forms
def test_the_gradient_penalty_in_bfloat16(kind, options):
    torch.manual_seed(0)
    discriminator = awake(kind.Discriminator((1, 28, 28), 3, channels=8, **options)).to(
        memory_format=torch.channels_last
    )
    discriminator.eval()
    x, y = torch.randn(4, 1, 28, 28, requires_grad=True), torch.tensor([0, 1, 2, 0])
    found = []
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast, cache_enabled=False):
            logits = discriminator(x, y).float()
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        gradient.float().square().sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in discriminator.parameters() if p.grad is not None]))
        discriminator.zero_grad()
    assert torch.isfinite(found[1]).all()
    assert torch.cosine_similarity(*found, dim=0) > 0.98


@forms
def test_it_runs_in_bfloat16_with_channels_last(kind, options):
    """Each map stays in channels last: a copy would show as a contiguous one."""
    generator = kind.Generator((1, 28, 28), 3, latent_dim=6, channels=8, **options).to(
        memory_format=torch.channels_last
    )
    seen = []
    for module in generator.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.BatchNorm2d)):
            module.register_forward_hook(lambda m, i, out: seen.append(out))
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        images = generator(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))
    assert images.dtype == torch.bfloat16
    assert len(seen) > 3
    assert all(out.dtype == torch.bfloat16 and out.is_contiguous(memory_format=torch.channels_last) for out in seen)


@forms
def test_a_copy_gives_the_same(kind, options):
    """As averaged weights and bundles need it: through a state dict, and by deepcopy."""
    torch.manual_seed(0)
    one = awake(kind.Generator((1, 28, 28), 3, latent_dim=6, channels=4, **options)).eval()
    two = kind.Generator((1, 28, 28), 3, latent_dim=6, channels=4, **options).eval()
    two.load_state_dict(one.state_dict())
    z, y = torch.randn(2, 6), torch.tensor([0, 1])
    assert torch.equal(one(z, y), two(z, y))
    assert torch.equal(one(z, y), copy.deepcopy(one)(z, y))
