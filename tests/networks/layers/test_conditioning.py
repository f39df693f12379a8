import pytest
import torch
from torch import nn

from lit_aigc.networks.layers.conditioning import ConditionalBatchNorm2d


def test_each_class_has_its_gain_and_bias():
    torch.manual_seed(0)
    layer = ConditionalBatchNorm2d(3, num_classes=4)
    nn.init.normal_(layer.gain.weight)
    nn.init.normal_(layer.bias.weight)
    x, y = torch.randn(8, 3, 5, 5) * 2 + 1, torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    mean, variance = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
    normalized = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    expected = normalized * layer.gain.weight[y][:, :, None, None] + layer.bias.weight[y][:, :, None, None]
    torch.testing.assert_close(layer(x, y), expected)
    torch.testing.assert_close(layer.norm.running_mean, 0.1 * mean)


@pytest.mark.parametrize("classes", [0, 5])
@pytest.mark.parametrize("training", [True, False])
def test_a_fresh_layer_is_batch_normalization(classes, training):
    layer = ConditionalBatchNorm2d(3, classes).train(training)
    plain = nn.BatchNorm2d(3).train(training)
    x = torch.randn(6, 3, 4, 4)
    torch.testing.assert_close(layer(x, torch.arange(6) % 5 if classes else None), plain(x))


def test_without_classes_it_learns_one_gain_and_bias():
    layer = ConditionalBatchNorm2d(3)
    assert {name: p.shape for name, p in layer.named_parameters()} == {"norm.weight": (3,), "norm.bias": (3,)}


def test_it_can_be_made_synchronous():
    layer = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(ConditionalBatchNorm2d(3, 2)))
    assert isinstance(layer[0].norm, nn.SyncBatchNorm)
