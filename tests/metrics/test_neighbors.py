from __future__ import annotations

import pytest
import torch

from lit_aigc.errors import InputError
from lit_aigc.metrics import neighbors as module
from lit_aigc.metrics.neighbors import nearest, nearest_vectors
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch


def images(n, seed, channels=1, side=5):
    return (Noise(seed).uniform(n, channels, side, side) * 256).to(torch.uint8)


def batches(stream, size=7):
    return [Batch(stream[i : i + size], None, i) for i in range(0, len(stream), size)]


@pytest.mark.parametrize("channels", [1, 3])
def test_distances_and_places_are_those_of_brute_force(channels):
    queries, train = images(9, 1, channels), images(50, 2, channels)
    distances, places = nearest(queries, batches(train), 4)
    differences = queries[:, None].double() - train[None].double()
    table = differences.square().mean(dim=(2, 3, 4)).sqrt()
    expected = table.sort(dim=1)
    assert torch.allclose(distances, expected.values[:, :4], rtol=1e-12)
    assert torch.equal(places, expected.indices[:, :4])


def test_the_size_of_batches_changes_nothing():
    queries, train = images(6, 1), images(40, 2)
    one = nearest(queries, batches(train, 40), 3)
    for size in (1, 2, 13):
        assert all(torch.equal(a, b) for a, b in zip(nearest(queries, batches(train, size), 3), one, strict=True))


def test_a_copy_is_at_distance_0_and_black_from_white_at_255():
    train = images(30, 3)
    distances, places = nearest(train[[17]], batches(train), 2)
    assert distances[0, 0] == 0
    assert places[0, 0] == 17
    assert distances[0, 1] > 0
    black, white = torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    assert nearest(black, batches(white), 1)[0].item() == 255
    assert nearest(white, batches(white), 1)[0].item() == 0


def test_one_grey_level_in_one_large_bright_picture_is_seen():
    bright = torch.full((1, 3, 256, 256), 255, dtype=torch.uint8)
    other = bright.clone()
    other[0, 1, 7, 9] = 254
    assert nearest(bright, batches(other), 1)[0].item() == pytest.approx((3 * 256 * 256) ** -0.5, rel=1e-12)


def test_of_equal_distances_the_first_comes_first():
    train = torch.full((5, 1, 2, 2), 9, dtype=torch.uint8)
    train[0] = 200
    for size in (1, 2, 5):
        assert nearest(train[[4]], batches(train, size), 3)[1].tolist() == [[1, 2, 3]]


def test_features_have_the_euclidean_distance():
    queries, train = images(8, 1), images(30, 2)
    weight = Noise(4).normal(25, 6)

    def describe(x):
        return x.flatten(1).float() @ weight + 1000

    distances, places = nearest(queries, batches(train), 3, describe)
    expected = torch.cdist(
        describe(queries).double(), describe(train).double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    found = expected.sort(dim=1)
    assert torch.allclose(distances, found.values[:, :3], rtol=1e-6)
    assert torch.equal(places, found.indices[:, :3])
    assert nearest(train[[3]], batches(train), 1, describe)[0].item() < 1e-2


def test_fewer_images_than_neighbours():
    with pytest.raises(InputError, match="fewer than 4"):
        nearest(images(2, 1), batches(images(3, 2)), 4)


def whole(n, d, seed):
    return (Noise(seed).uniform(n, d) * 256).to(torch.uint8)


def by_differences(queries, stream, k):
    table = torch.stack([(stream.double() - query).square().sum(dim=1).sqrt() for query in queries.double()])
    found = table.sort(dim=1, stable=True)
    return found.values[:, :k], found.indices[:, :k]


@pytest.mark.parametrize("d", [1, 784, 1024, 1025, 3072])
def test_distances_of_whole_numbers_are_exact_at_any_width(d):
    """Black and white are as large as products get; 1,024 of them just fit into float32."""
    stream = torch.cat([whole(20, d, 1), torch.zeros(1, d).byte(), torch.full((2, d), 255).byte()])
    queries = torch.cat([stream[-3:], whole(3, d, 2)])
    distances, places = nearest_vectors(queries, [stream], 5)
    expected, first = by_differences(queries, stream, 5)
    assert torch.equal(distances, expected)
    assert torch.equal(places, first)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_blocks_make_no_difference(monkeypatch, kind):
    queries, stream = whole(17, 30, 1).to(kind), whole(90, 30, 2).to(kind)
    one = nearest_vectors(queries, [stream], 4)
    sizes = []
    products = module._products
    monkeypatch.setattr(module, "_products", lambda x, y: sizes.append((len(x), len(y))) or products(x, y))
    monkeypatch.setattr(module, "_COLUMNS", 8)
    monkeypatch.setattr(module, "_PAIRS", 40)
    other = nearest_vectors(queries, stream.split([1, 2, 50, 37]), 4)
    assert torch.equal(one[1], other[1])
    assert torch.allclose(one[0], other[0], rtol=1e-12, atol=0)
    assert max(columns for _, columns in sizes) == 8
    assert max(rows * columns for rows, columns in sizes) <= 40
    monkeypatch.setattr(module, "_NUMBERS", 90)  # room for three vectors
    assert torch.equal(nearest_vectors(queries, [stream], 4)[1], one[1])
    assert max(max(pair) for pair in sizes[-10:]) == 3


def test_equal_floats_far_from_0_are_at_distance_0():
    stream = Noise(3).normal(40, 16) + 1e6
    distances, places = nearest_vectors(stream[[31, 7]], stream.split(9), 1)
    assert distances[:, 0].tolist() == [0.0, 0.0]
    assert places[:, 0].tolist() == [31, 7]


def test_no_queries():
    distances, places = nearest_vectors(whole(0, 5, 1), [whole(4, 5, 2)], 2)
    assert distances.shape == places.shape == (0, 2)
