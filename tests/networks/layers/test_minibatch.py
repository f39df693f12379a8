import numpy as np
import pytest
import torch

from lit_aigc.errors import InputError
from lit_aigc.networks.layers.minibatch import MinibatchStd


@pytest.mark.parametrize(("batch", "group"), [(8, 4), (8, 8), (4, 2), (6, 4), (7, 3), (3, 4), (1, 4), (5, 1)])
def test_against_numpy(batch, group):
    x = np.random.default_rng(0).normal(size=(batch, 3, 2, 5)).astype("float32")
    groups = max(batch // group, 1)
    expected = np.empty(batch)
    for first in range(groups):
        members = range(first, batch, groups)
        assert len(members) >= min(group, batch)
        expected[list(members)] = x[list(members)].std(axis=0).mean()
    out = MinibatchStd(group)(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(out[:, :3], x)
    np.testing.assert_allclose(out[:, 3], np.broadcast_to(expected[:, None, None], (batch, 2, 5)), rtol=1e-5, atol=1e-3)


def test_a_batch_of_one_picture_shows():
    layer = MinibatchStd(4)
    same, different = torch.randn(1, 3, 4, 4).expand(8, -1, -1, -1), torch.randn(8, 3, 4, 4)
    assert layer(same)[:, 3].max() < 1e-3
    assert layer(different)[:, 3].min() > 0.5


def test_gradients_are_finite_where_all_images_agree():
    x = torch.zeros(4, 2, 3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(MinibatchStd(4)(x).square().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_no_group_of_none():
    with pytest.raises(InputError, match="group=0"):
        MinibatchStd(0)
