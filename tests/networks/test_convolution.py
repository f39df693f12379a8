"""Convolutions of gray images equal torch's, with their first and second derivatives; gradients keep their layout."""

import pytest
import torch
from torch import nn

from lit_aigc.networks.convolution import DrawingConvTranspose2d, ReadingConv2d, keep_layout


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), [(8, 4, 2, 1), (7, 4, 2, 1), (6, 3, 1, 1)])
@pytest.mark.parametrize("kind", [ReadingConv2d, DrawingConvTranspose2d])
def test_values_and_derivatives_are_those_of_torch(kind, size, kernel, stride, padding):
    reads = kind is ReadingConv2d
    layer = kind(*((1, 5) if reads else (5, 1)), kernel, stride, padding).double()
    x = torch.randn(3, 1 if reads else 5, size, size, dtype=torch.float64).requires_grad_()

    def found(layer):
        y = layer(x)
        first = torch.autograd.grad(y.pow(3).sum(), [x, layer.weight, layer.bias], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [x, layer.weight])
        return y, *first, *second

    theirs = (nn.Conv2d if reads else nn.ConvTranspose2d)(
        layer.in_channels, layer.out_channels, kernel, stride, padding
    )
    theirs.load_state_dict(layer.state_dict())
    torch.testing.assert_close(found(layer), found(theirs.double()))


def test_under_autocast_they_compute_in_its_precision():
    layer = DrawingConvTranspose2d(8, 1, 4, 2, 1)
    x = torch.randn(2, 8, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        expected = nn.ConvTranspose2d.forward(layer, x)
    assert y.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, atol=0.02, rtol=0.02)


def test_the_gradient_comes_in_the_layout_of_its_tensor():
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    kept = keep_layout(x)
    weights = torch.randn(2, 48)
    (gradient,) = torch.autograd.grad((kept.flatten(1) * weights).sum(), kept)
    (kept_gradient,) = torch.autograd.grad((keep_layout(x).flatten(1) * weights).sum(), x)
    assert not gradient.is_contiguous(memory_format=torch.channels_last)
    assert kept_gradient.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(kept_gradient, weights.view(2, 3, 4, 4))


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_gradient_of_the_weight_has_its_strides(layout):
    layer = DrawingConvTranspose2d(8, 1, 4, 2, 1).to(memory_format=layout)
    layer(torch.randn(2, 8, 4, 4).to(memory_format=layout)).sum().backward()
    assert layer.weight.grad.stride() == layer.weight.stride()
