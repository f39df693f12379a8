import pytest
import torch

from lit_aigc.build import build, resolve
from lit_aigc.errors import InputError
from lit_aigc.modules.base import TrainingDiverged
from lit_aigc.noise import Noise
from lit_aigc.spec import Condition, DataSpec

SPEC = DataSpec("image", (1, 28, 28), num_classes=3, class_names=("a", "b", "c"), name="made_up")


def make(**changes):
    config = {
        "_target_": "lit_aigc.modules.gan.GAN",
        "conditional": True,
        "generator": {"_target_": "lit_aigc.networks.dcgan.Generator", "channels": 4, "latent_dim": 5},
        "discriminator": {"_target_": "lit_aigc.networks.dcgan.Discriminator", "channels": 4},
    }
    torch.manual_seed(0)
    return build(resolve(config | changes, SPEC), SPEC)


def test_samples_do_not_depend_on_how_many_are_drawn_at_once():
    module = make()
    whole = module.sample(200, noise=Noise(1))
    one_by_one = torch.cat([module.sample(1, noise=Noise(1, i)) for i in (0, 63, 64, 199)])
    assert torch.equal(whole[[0, 63, 64, 199]], one_by_one)
    pieces = torch.cat([module.sample(77, noise=Noise(1, 0)), module.sample(123, noise=Noise(1, 77))])
    assert torch.equal(whole, pieces)


def test_default_labels_go_by_the_global_index():
    module = make()
    labels = torch.arange(10, 20) % 3
    asked = module.sample(10, condition=Condition(labels), noise=Noise(1, 10))
    assert torch.equal(asked, module.sample(10, noise=Noise(1, 10)))


def test_sampling_leaves_modes_and_random_state_alone():
    module = make().train()
    module.generator.layers[0].eval()
    state = torch.get_rng_state()
    module.sample(3, noise=Noise(0))
    assert module.training
    assert not module.generator.layers[0].training
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0], [0]])
def test_labels_that_do_not_fit(labels):
    with pytest.raises(InputError, match="Labels must be 2 numbers from 0 to 2"):
        make().sample(2, condition=Condition(torch.tensor(labels)), noise=Noise(0))


def test_an_unconditional_model_refuses_labels():
    module = make(conditional=False)
    assert module.generator.embedding is None
    with pytest.raises(InputError, match="unconditional"):
        module.sample(1, condition=Condition(torch.tensor([0])), noise=Noise(0))


def test_interpolation_ends_at_the_samples():
    module = make().eval()
    ends = module.interpolate(5, condition=Condition(torch.zeros(5, dtype=torch.int64)), noise=Noise(4))[[0, -1]]
    samples = module.sample(2, condition=Condition(torch.zeros(2, dtype=torch.int64)), noise=Noise(4))
    torch.testing.assert_close(ends, samples, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "hing"}, "did you mean 'hinge'"),
        ({"n_critic": 0}, "n_critic=0"),
        ({"recipe": {"accumulate": 0}}, "recipe.accumulate=0"),
        ({"recipe": {"schedule": "cosin"}}, "did you mean 'cosine'"),
        ({"generator_optimizer": {"name": "SGDD"}}, "did you mean 'SGD'"),
        ({"generator_optimizer": {"lrr": 1}}, "did you mean 'lr'"),
    ],
)
def test_wrong_options(changes, message):
    with pytest.raises(InputError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("means", "seen"),
    [({"d_spread": 0.0, "d_loss": 1.386}, "same logit"), ({"d_spread": 20.0, "d_loss": 1e-6}, "without error")],
)
def test_a_collapsed_discriminator_is_told(means, seen):
    module = make()
    healthy = {"d_spread": 1.0, "d_loss": 0.7}
    for _ in range(9):
        module.check_health(means)
    module.check_health(healthy)  # it recovered: counting starts again
    for _ in range(9):
        module.check_health(means)
    with pytest.raises(TrainingDiverged, match=seen):
        module.check_health(means)
