"""Directions and paths in a latent space, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from lit_aigc.errors import InputError
from lit_aigc.latents.geometry import (
    blended_classes,
    class_directions,
    class_means,
    first_layer,
    great_circle,
    moments,
    most_active,
    principal_directions,
    principal_plane,
    recorded,
    walk,
)
from lit_aigc.networks.dcgan import Generator
from lit_aigc.noise import Noise


def latents(n, d, seed=0):
    return Noise(seed).normal(n, d)


def orthogonal(m, d, seed=1):
    return torch.linalg.qr(latents(m, d, seed)).Q


def white(n, d):
    """Latents whose sample covariance is the identity to the bit, so that closed forms hold without sampling error."""
    q = torch.linalg.qr(torch.cat([torch.ones(n, 1), latents(n, d)], dim=1)).Q[:, 1:]
    return q * math.sqrt(n)


def test_a_linear_generators_principal_directions_are_its_right_singular_vectors():
    d, m = 6, 20
    v, scales = orthogonal(d, d, 2), torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 0.5])
    weight = orthogonal(m, d) * scales @ v.T
    z = white(500, d)
    found = principal_directions(z, z @ weight.T + 7, 4)
    assert torch.allclose((found.directions @ v[:, :4]).abs(), torch.eye(4), atol=1e-4)
    assert torch.allclose(found.explained, (scales.square() / scales.square().sum())[:4], atol=1e-5)
    assert torch.allclose(found.correlation, torch.ones(4), atol=1e-5)
    largest = found.directions.gather(1, found.directions.abs().argmax(dim=1, keepdim=True))
    assert (largest > 0).all()


def test_drawn_latents_come_near_the_closed_form():
    scales = torch.tensor([4.0, 2.0, 1.0, 0.5])
    z = latents(4000, 4)
    found = principal_directions(z, z * scales @ orthogonal(9, 4).T, 4)
    assert torch.allclose(found.directions.abs(), torch.eye(4), atol=0.1)
    assert (found.correlation > 0.99).all()


def test_what_tells_groups_apart_is_no_direction():
    z = white(400, 3)
    groups = torch.arange(400) % 2
    far = torch.tensor([[0.0, 0, 0], [0.0, 0, 100]])[groups]
    activations = z * torch.tensor([3.0, 1.0, 0.1]) + far
    with_groups = principal_directions(z, activations, 1, groups)
    assert with_groups.directions[0].abs() == pytest.approx([1, 0, 0], abs=0.1)
    assert with_groups.explained[0] == pytest.approx(9 / 10.01, abs=0.01)
    assert principal_directions(z, activations, 1).explained[0] > 0.99


def test_a_component_that_is_even_in_the_latent_has_no_correlation():
    z = white(4000, 2)
    activations = torch.stack([z[:, 0].square() * 10, z[:, 1]], dim=1)
    found = principal_directions(z, activations, 2)
    assert found.correlation[0] < 0.2
    assert found.correlation[1] > 0.99


def test_directions_are_a_function_of_what_is_given_and_leave_the_random_state():
    z, state = latents(300, 8), torch.random.get_rng_state()
    activations = torch.relu(z @ latents(8, 50, 3))
    one = principal_directions(z, activations, 5)
    torch.rand(3)
    assert torch.equal(principal_directions(z, activations, 5).directions, one.directions)
    torch.random.set_rng_state(state)
    principal_directions(z, activations, 5)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_directions_that_are_not_there():
    z = latents(10, 3)
    for k in (0, 4):
        with pytest.raises(InputError, match="from 1 to 3"):
            principal_directions(z, z, k)
    with pytest.raises(InputError, match="same for all latents"):
        principal_directions(z, torch.ones(10, 5), 1)


def test_a_plane_of_codes_keeps_what_varies_most():
    x, directions = white(300, 4), orthogonal(9, 4)
    codes = x * torch.tensor([4.0, 2.0, 1.0, 0.5]) @ directions.T + 5
    points, shares = principal_plane(codes)
    expected = x[:, :2] * torch.tensor([4.0, 2.0])
    signs = (points * expected).sum(dim=0).sign()
    assert torch.allclose(points * signs, expected, atol=1e-3)
    assert torch.allclose(shares, torch.tensor([16.0, 4.0]) / 21.25, atol=1e-5)
    assert (points.gather(0, points.abs().argmax(dim=0, keepdim=True)) > 0).all()


def test_a_plane_of_too_few_dimensions_or_of_nothing_that_varies_is_filled_with_zeros():
    points, shares = principal_plane(torch.tensor([[1.0], [3.0], [2.0]]))
    assert points.abs().tolist() == pytest.approx(np.array([[1, 0], [1, 0], [0, 0]]), abs=1e-6)
    assert shares.tolist() == pytest.approx([1, 0])
    for same in (torch.ones(4, 3), torch.ones(1, 3)):
        points, shares = principal_plane(same)
        assert (tuple(points.shape), points.abs().max().item()) == ((len(same), 2), 0)
        assert shares.tolist() == [0, 0]


def test_moments_are_exact_for_noise_itself_and_right_for_what_is_made_of_it():
    eps = latents(200, 3)
    mean, deviation = moments(eps, eps.clone())
    assert mean.tolist() == [0, 0, 0] and deviation.tolist() == [1, 1, 1]
    mean, deviation = moments(eps, eps * torch.tensor([1.0, 2.0, 5.0]) + torch.tensor([0.0, -4.0, 7.0]))
    assert torch.allclose(mean, torch.tensor([0.0, -4.0, 7.0]), atol=1e-4)
    assert torch.allclose(deviation, torch.tensor([1.0, 2.0, 5.0]), atol=1e-4)


def test_the_most_active_units_come_first():
    codes = latents(100, 4) * torch.tensor([0.1, 3.0, 0.0, 1.0]) + torch.tensor([0.0, 0.0, 50.0, 0.0])
    assert most_active(codes, 3).tolist() == [1, 3, 0]
    assert most_active(codes, 9).tolist() == [1, 3, 0, 2]


def test_means_and_directions_of_classes():
    z = torch.tensor([[1.0, 0], [3.0, 0], [0.0, 4], [0.0, 4]])
    labels = torch.tensor([0, 0, 2, 2])
    means, counts = class_means(z, labels, 3)
    assert means.tolist() == [[2, 0], [0, 0], [0, 4]]
    assert counts.tolist() == [2, 0, 2]
    directions, counts = class_directions(z, labels, 3)
    assert counts.tolist() == [2, 0, 2]
    way = torch.tensor([1.0, -2.0]) / math.sqrt(5)  # from the overall mean (1, 2) to (2, 0)
    assert torch.allclose(directions, torch.stack([way, torch.zeros(2), -way]))


def test_class_directions_of_a_toy_generator_whose_classes_are_half_spaces():
    z = latents(5000, 8)
    directions, counts = class_directions(z, (z[:, 3] > 0).long(), 2)
    axis = torch.eye(8)[3]
    assert directions @ axis == pytest.approx([-1, 1], abs=0.01)
    assert counts.sum() == 5000


def test_a_great_circle_keeps_the_ends_and_the_angle():
    first, second = torch.tensor([2.0, 0, 0]), torch.tensor([0.0, 2, 0])
    path = great_circle(first, second, 5)
    assert torch.allclose(path[[0, 4]], torch.stack([first, second]), atol=1e-6)
    assert path.norm(dim=1).tolist() == pytest.approx([2] * 5, abs=1e-5)
    angles = [math.atan2(y, x) for x, y, _ in path.tolist()]
    assert angles == pytest.approx([i * math.pi / 8 for i in range(5)], abs=1e-5)


def test_a_great_circle_between_latents_on_one_ray_is_a_straight_line():
    path = great_circle(torch.tensor([1.0, 0]), torch.tensor([3.0, 0]), 3)
    assert torch.allclose(path, torch.tensor([[1.0, 0], [2.0, 0], [3.0, 0]]))


def test_a_walk_sets_one_coordinate_and_keeps_the_rest():
    latent, direction = latents(1, 5)[0], orthogonal(5, 1)[:, 0]
    coordinates = torch.tensor([-3.0, 0.0, 2.0])
    path = walk(latent, direction, coordinates)
    assert torch.allclose(path @ direction, coordinates, atol=1e-5)
    rest = latent - (latent @ direction) * direction
    assert torch.allclose(path - coordinates[:, None] * direction, rest.expand(3, 5), atol=1e-5)
    assert torch.allclose(walk(latent, direction, (latent @ direction)[None])[0], latent, atol=1e-6)


class Backwards(nn.Module):
    """A network whose layers run in the other order than they are made."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(3)
        self.start = nn.Linear(4, 3)

    def forward(self, z):
        return self.last(self.norm(self.start(z)))


def test_the_first_layer_is_the_one_that_runs_first_and_what_it_gives_is_recorded():
    network, z = Backwards(), latents(5, 4)
    layer = first_layer(lambda: network(z), network)
    assert layer is network.start
    with recorded(layer) as outputs:
        network(z)
        network(z[:2])
    network(z)
    assert [len(output) for output in outputs] == [5, 2]
    assert torch.equal(outputs[0], network.start(z))
    assert not layer._forward_hooks
    with pytest.raises(InputError, match="no linear layer"):
        first_layer(lambda: None, nn.Tanh())


def test_between_classes_embeddings_are_blended_and_then_as_before():
    generator = Generator((1, 28, 28), num_classes=3, latent_dim=4, channels=4).eval()
    z, source, target = latents(3, 4), torch.tensor([0, 0, 0]), torch.tensor([2, 2, 2])
    with torch.no_grad():
        from_class, to_class = generator(z, source), generator(z, target)
        with blended_classes(generator, target, torch.tensor([0.0, 0.5, 1.0])):
            between = generator(z, source)
        halfway = generator.embedding.weight[[0, 2]].mean(dim=0)
        generator.embedding.weight[1] = halfway
        assert torch.allclose(between[0], from_class[0], atol=1e-6)
        assert torch.allclose(between[1], generator(z, torch.tensor([1, 1, 1]))[1], atol=1e-6)
        assert torch.allclose(between[2], to_class[2], atol=1e-6)
        assert torch.equal(generator(z, source), from_class)
    with pytest.raises(InputError, match="no class embeddings"), blended_classes(nn.Tanh(), target, z[:, 0]):
        pass
