"""The codebook of a VQ-VAE: nearest codes, gradients, and how it follows the data."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lit_aigc.errors import InputError
from lit_aigc.networks.vector_quantizer import VectorQuantizer, as_rows, code_counts, map_size, perplexity


def quantizer(codes=8, dim=3, **options):
    torch.manual_seed(0)
    return VectorQuantizer(codes, dim, **options)


def test_each_vector_becomes_the_nearest_code_in_raster_order():
    made, z = quantizer(), torch.randn(2, 3, 2, 4)
    found = made(z)
    distances = torch.cdist(as_rows(z).double(), made.codebook.double())
    assert torch.equal(found.codes.flatten(), distances.argmin(dim=1))
    assert found.codes.shape == (2, 8)
    torch.testing.assert_close(found.values[1, :, 1, 2], made.codebook[found.codes[1, 1 * 4 + 2]])
    torch.testing.assert_close(made.lookup(found.codes, (2, 4)), found.values)


def test_the_nearest_is_found_in_full_precision_under_autocast():
    made = quantizer(codes=2, dim=1)
    made.codebook.copy_(torch.tensor([[100.0], [100.1]]))  # one number in bf16
    with torch.autocast("cpu", torch.bfloat16):
        assert made.nearest(torch.tensor([[100.01], [100.09]])).tolist() == [0, 1]


def test_the_gradient_goes_straight_through_and_commitment_pulls_the_vectors_only():
    made, z = quantizer(), torch.randn(2, 3, 2, 2, requires_grad=True)
    weights = torch.randn(2, 3, 2, 2)
    found = made(z)
    (gradient,) = torch.autograd.grad((found.values * weights).sum(), z, retain_graph=True)
    assert torch.equal(gradient, weights)
    near = made.lookup(found.codes, (2, 2))
    assert found.commitment.item() == pytest.approx((z - near).square().mean().item())
    (gradient,) = torch.autograd.grad(found.commitment, z)
    torch.testing.assert_close(gradient, 2 * (z - near).detach() / z.numel())
    assert not list(made.parameters())


def test_the_averages_move_as_computed_by_hand():
    made = quantizer(codes=3, dim=2, decay=0.75)
    made.start(torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 8.0]]), use=2.0)
    assert made.started
    made.load_state_dict(made.state_dict() | {"moves": torch.tensor(1000)})
    vectors, codes = torch.tensor([[1.0, 1.0], [3.0, 1.0], [8.0, 0.0]]), torch.tensor([0, 0, 1])
    statistics = made.statistics(vectors, codes)
    assert statistics.tolist() == [[2, 4, 2], [1, 8, 0], [0, 0, 0]]
    made.move(statistics)
    assert made.counts.tolist() == [2.0, 1.75, 1.5]
    assert made.sums.tolist() == [[1.0, 0.5], [8.0, 0.0], [0.0, 12.0]]
    torch.testing.assert_close(made.codebook, torch.tensor([[0.5, 0.25], [8 / 1.75, 0.0], [0.0, 8.0]]))


def test_the_first_batches_move_it_more():
    made = quantizer(codes=2, dim=1, decay=0.99)
    made.start(torch.tensor([[1.0], [-1.0]]), use=1.0)
    for weight in (9 / 11, 9 / 12):
        before = made.counts.clone()
        made.move(torch.tensor([[5.0, 5.0], [3.0, 3.0]]))
        torch.testing.assert_close(made.counts, before.lerp(torch.tensor([5.0, 3.0]), weight))


def test_a_code_that_is_never_used_stays_where_it_is():
    made = quantizer(codes=2, dim=1, decay=0.5, revive_below=0.0)
    made.start(torch.tensor([[1.0], [-1.0]]), use=1.0)
    for _ in range(200):  # its count underflows
        made.move(made.statistics(torch.full((4, 1), 2.0), torch.zeros(4, dtype=torch.int64)))
    assert made.codebook.flatten().tolist() == pytest.approx([2.0, -1.0])
    assert not made.dead().any()


def test_statistics_of_parts_add_up():
    made, vectors, codes = quantizer(), torch.randn(10, 3), torch.arange(10) % 8
    parts = made.statistics(vectors[:4], codes[:4]) + made.statistics(vectors[4:], codes[4:])
    torch.testing.assert_close(made.statistics(vectors, codes), parts)


def test_dead_codes_come_alive_where_the_vectors_are():
    made = quantizer(codes=4, dim=2, decay=0.9, revive_below=0.1)
    made.start(torch.full((4, 2), 50.0) * torch.tensor([[1.0], [-1.0], [2.0], [-2.0]]), use=16.0)
    data = torch.randn(64, 2) + torch.tensor([[50.0, 50.0]])
    for _ in range(60):
        made.move(made.statistics(data, made.nearest(data)))
        before = made.codebook.clone()
        dead = made.dead()
        made.revive(dead, data[:2])
        assert torch.equal(made.codebook[~dead], before[~dead])
        for place, code in enumerate(dead.nonzero()[:, 0]):
            assert torch.equal(made.codebook[code], data[place % 2])
            assert made.counts[code] == pytest.approx(made.counts.mean().item(), rel=0.5)
            assert torch.equal(made.sums[code], made.counts[code] * made.codebook[code])
    assert perplexity(torch.bincount(made.nearest(data), minlength=4).float()) > 2.5


def test_training_asks_nothing_of_the_device_and_a_loaded_codebook_knows_how_far_it_is():
    made = quantizer(codes=4, dim=2)
    made.start(torch.randn(4, 2), use=1.0)
    codes = torch.tensor([[0, 3], [3, 3]])
    for _ in range(3):
        made.move(made.statistics(torch.ones(4, 2), codes.flatten()))
    other = quantizer(codes=4, dim=2)
    other.load_state_dict(made.state_dict())
    assert other.started
    for each in (made, other):
        each.move(each.statistics(torch.zeros(4, 2), codes.flatten()))
    assert torch.equal(made.counts, other.counts)
    assert code_counts(codes, 5).tolist() == [1, 0, 0, 3, 0]
    with FakeTensorMode(allow_non_fake_inputs=True):  # it raises where a value is asked for
        device = torch.device("cuda", 0)
        made = quantizer(codes=4, dim=2)
        made._apply(lambda tensor: tensor.to(device))
        vectors = torch.empty(6, 2, device=device)
        if not made.started:
            made.start(vectors, use=1.5)
        near = made.nearest(vectors)
        made.move(made.statistics(vectors, near))
        made.revive(made.dead(), vectors)
        assert code_counts(near, 4).device == made.codebook.device == device


def test_a_batch_smaller_than_the_codebook_starts_it():
    made = quantizer(codes=5, dim=1)
    assert not made.started
    made.start(torch.tensor([[1.0], [2.0]]), use=0.4)
    assert made.codebook.flatten().tolist() == [1, 2, 1, 2, 1]


def test_perplexity_is_the_number_of_codes_used_alike():
    assert perplexity(torch.full((32,), 7.0)).item() == pytest.approx(32, rel=1e-6)
    assert perplexity(torch.tensor([0.0, 9.0, 0.0])).item() == pytest.approx(1)
    assert perplexity(torch.tensor([5.0, 5.0, 0.0])).item() == pytest.approx(2)


@pytest.mark.parametrize(("height", "size"), [(16, 8), (28, 7), (32, 8), (56, 7), (64, 8)])
def test_the_map_of_codes_has_seven_or_eight_pixels(height, size):
    assert map_size((1, height, height)) == size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codes": 1}, "codes=1: expected 2 or more"),
        ({"dim": 0}, "dim=0: expected 1 or more"),
        ({"decay": 1.0}, "decay=1.0"),
        ({"revive_below": -0.1}, "revive_below=-0.1"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        quantizer(**options)
