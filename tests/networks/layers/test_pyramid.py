import pytest
import torch
from torch.nn import functional as F

from lit_aigc.errors import InputError
from lit_aigc.networks.layers.pyramid import DownsampledConv2d, UpsampledConv2d, stages, upsample_bilinear, widths


@pytest.mark.parametrize(("size", "expected"), [(28, (7, 2)), (32, (4, 3)), (64, (4, 4)), (56, (7, 3))])
def test_stages(size, expected):
    assert stages((3, size, size)) == expected


@pytest.mark.parametrize("shape", [(1, 27, 27), (1, 8, 8), (1, 28, 32)])
def test_a_size_that_is_no_pyramid(shape):
    with pytest.raises(InputError, match=f"{shape[1]}x{shape[2]}.*28, 32 or 64"):
        stages(shape)


def test_widths():
    assert widths(16, 4, growth=4, widening=8) == [16, 64, 128, 128]
    assert widths(64, 3, growth=1, widening=4) == [64, 64, 64]
    with pytest.raises(InputError, match="growth=0"):
        widths(16, 4, growth=0, widening=8)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(7, 7), (4, 6)])
def test_one_convolution_for_upsampling_and_convolution(size, layout):
    torch.manual_seed(0)
    layer = UpsampledConv2d(3, 5).double().to(memory_format=layout)
    x = torch.randn(2, 3, *size, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    plain = F.conv2d(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3), layer.weight, layer.bias, padding=1)
    compare(layer, layer(x), plain, x)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(14, 14), (8, 12)])
def test_one_convolution_for_convolution_and_pooling(size, layout):
    torch.manual_seed(0)
    layer = DownsampledConv2d(3, 5).double().to(memory_format=layout)
    x = torch.randn(2, 3, *size, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    plain = F.avg_pool2d(F.conv2d(x, layer.weight, layer.bias, padding=1), 2)
    compare(layer, layer(x), plain, x)


def compare(layer, out, plain, x):
    torch.testing.assert_close(out, plain)
    inputs = [x, *layer.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(out.square().sum(), inputs), torch.autograd.grad(plain.square().sum(), inputs)
    )


def test_bilinear_weights():
    x = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    torch.testing.assert_close(upsample_bilinear(x)[0, 0, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]))
