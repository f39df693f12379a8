import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from lit_aigc.networks import sngan


@pytest.mark.parametrize("classes", [0, 3])
def test_the_largest_singular_value_of_every_layer_of_the_discriminator_is_one(classes):
    torch.manual_seed(0)
    discriminator = sngan.Discriminator((1, 28, 28), classes, channels=4, widening=8)
    y = torch.tensor([0, 1]) if classes else None
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.mul_(3.0).add_(0.1 * torch.randn_like(parameter))
    for _ in range(30):
        discriminator(torch.randn(2, 1, 28, 28), y)
    kinds = (nn.Conv2d, nn.Linear, nn.Embedding)
    layers = {name: m for name, m in discriminator.named_modules() if isinstance(m, kinds)}
    assert len(layers) == 3 * 3 + 1 + bool(classes)  # the blocks, the logit, the projection
    for name, layer in layers.items():
        sigma = torch.linalg.svdvals(layer.weight.detach().flatten(1))[0].item()
        assert sigma == pytest.approx(1.0, abs=0.02), name


def test_the_generator_is_normalized_if_asked():
    plain = sngan.Generator((1, 28, 28), channels=4)
    normalized = sngan.Generator((1, 28, 28), channels=4, spectral=True)
    assert not any(parametrize.is_parametrized(m) for m in plain.modules())
    assert sum(parametrize.is_parametrized(m) for m in normalized.modules()) == 2 * 3 + 2


def test_the_papers_widths():
    """32 px: 256 everywhere in the generator, 128 in the discriminator, with two halvings and two flat blocks."""
    generator = sngan.Generator((3, 32, 32), channels=256, growth=1)
    assert [block.second.weight.shape for block in generator.blocks] == [(256, 256, 3, 3)] * 3
    assert generator.project.weight.shape == (4 * 4 * 256, 128)
    discriminator = sngan.Discriminator((3, 32, 32), channels=128, growth=1, flat_blocks=2)
    assert [block.second.weight.shape for block in discriminator.blocks] == [(128, 128, 3, 3)] * 4
    assert discriminator.blocks[0].first.weight.shape == (128, 3, 3, 3)
    assert [block.shortcut is None for block in discriminator.blocks] == [False, False, True, True]
    assert discriminator.blocks(torch.zeros(1, 3, 32, 32)).shape == (1, 128, 8, 8)


def test_an_up_block_step_by_step():
    """Against the paper's order of layers, with upsampling as a step of its own."""
    torch.manual_seed(0)
    block = sngan.UpBlock(4, 3, num_classes=2).double().eval()
    x, y = torch.randn(2, 4, 5, 5).double(), torch.tensor([1, 0])

    def upsample(x):
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    h = upsample(block.first_norm(x, y).relu())
    h = torch.conv2d(h, block.first.weight, padding=1)
    h = block.second(block.second_norm(h, y).relu())
    torch.testing.assert_close(block(x, y), h + block.shortcut(upsample(x)))


def test_features_are_sums_over_positions():
    discriminator = sngan.Discriminator((1, 32, 32), channels=4).eval()
    x = torch.randn(2, 1, 32, 32)
    maps = discriminator.blocks(x)
    assert maps.shape[2:] == (8, 8)
    torch.testing.assert_close(discriminator.features(x), maps.clamp(min=0).flatten(2).sum(dim=2))
