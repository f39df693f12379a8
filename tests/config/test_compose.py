"""Configs: every key checked, free text taken as it is, resumed runs change only what may."""

from __future__ import annotations

import sys
import textwrap

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lit_aigc.config import overrides
from lit_aigc.config.compose import compose, load
from lit_aigc.errors import InputError
from lit_aigc.files import read_yaml, write_yaml


def refusal(*arguments: str, verb: str = "train") -> str:
    with pytest.raises(InputError) as error:
        load(verb, list(arguments))
    return str(error.value)


# -- data and models of two kinds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["data=text_files", "data.root=notes"],
            "data=text_files holds tokens, and the model models numbers (pixels). Choose experiment=gpt_text_files.",
        ),
        (
            ["model=gpt"],
            "the data holds numbers (pixels), and model=gpt models tokens. Choose experiment=gpt_multi30k or ",
        ),
        (
            ["model=lstm", "data=openmoji"],
            "data=openmoji holds numbers (pixels), and model=lstm models tokens. Choose exper",
        ),
        (
            ["data=pydocs", "model=vqvae"],
            "model=vqvae models numbers (pixels). Choose experiment=gpt_pydocs or lstm_pydocs.",
        ),
        (["model=gpt2"], "Choose an experiment for this data: see --help."),
    ],
)
def test_a_model_of_another_kind_than_the_data_is_refused_before_the_data_is_read(arguments, message):
    assert message in refusal(*arguments)


# -- unknown keys


UNKNOWN = {
    "sed=1": "unknown key 'sed', did you mean 'seed'?",
    "budget.minuts=1": "unknown key 'budget.minuts', did you mean 'minutes'?",
    "data.batchsize=1": "unknown key 'data.batchsize': ImageData has no such option, did you mean 'batch_size'?",
    "data.source.corupt=1": "unknown key 'data.source.corupt': Mnist5k has no such option",
    "model.generator.latentdim=1": "Generator has no such option, did you mean 'latent_dim'?",
    "model.recipe.ema_decy=0.9": "unknown key 'model.recipe.ema_decy', did you mean 'ema_decay'?",
    "trainer.acelerator=cpu": "Trainer has no such option, did you mean 'accelerator'?",
    "callbacks.sample_gird.rows=3": "unknown key 'callbacks.sample_gird', did you mean 'sample_grid'?",
    "callbacks.sample_grid.row=3": "unknown key 'callbacks.sample_grid.row', did you mean 'rows'?",
    "callbacks.neighbrs=null": "unknown key 'callbacks.neighbrs', did you mean 'neighbors'?",
    "logger.wandb.project=x": "unknown key 'logger.wandb'",
}


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_unknown_keys_are_refused_with_or_without_a_plus(plus):
    message = refusal(*(plus + argument for argument in UNKNOWN))
    assert len(message.splitlines()) == len(UNKNOWN)
    for expected in UNKNOWN.values():
        assert expected in message


@pytest.mark.parametrize("argument", list(UNKNOWN)[:3])
def test_one_unknown_key_is_refused(argument):
    assert refusal(argument).startswith(UNKNOWN[argument])


def test_a_known_key_with_a_plus_is_only_set():
    assert compose("train", ["+trainer.max_epoch=1"[1:].replace("max_epoch=1", "deterministic=true")]) == compose(
        "train", ["+trainer.deterministic=true"]
    )


def test_a_key_that_only_the_signature_knows_is_accepted():
    assert compose("train", ["trainer.benchmark=true"])["trainer"]["benchmark"] is True


def test_all_problems_come_in_one_message():
    message = refusal("sed=1", "budget.minuts=1", "+model.n_critics=2", "log_every=x", "data.batch_size=many")
    assert len(message.splitlines()) == 5
    for part in ("'sed'", "'budget.minuts'", "'model.n_critics'", "log_every=x", "data.batch_size=many"):
        assert part in message


def test_problems_of_other_verbs():
    message = refusal("m=3", "seed=x", verb="generate")
    assert "bundle= is missing" in message
    assert "unknown key 'm'" in message
    assert "seed=x: expected a whole number" in message


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("experiment=dcgan_mnist5", "experiment=dcgan_mnist5 is unknown, did you mean 'dcgan_mnist5k'?"),
        ("data=mnist5", "data=mnist5 is unknown, did you mean 'mnist5k'?"),
        ("model=resnet", "model=resnet is unknown; known: "),
        ("trainer=tpu", "trainer=tpu is unknown, did you mean 'gpu'?"),
        ("callbacks=none", "callbacks=none is unknown"),
        ("logger=wandbb", "logger=wandbb is unknown, did you mean 'wandb'?"),
    ],
)
def test_an_unknown_member_of_a_group(argument, expected):
    assert expected in refusal(argument)


def test_unknown_members_of_several_groups_come_in_one_message():
    assert len(refusal("data=mnist5", "model=dcgann").splitlines()) == 2


@pytest.mark.parametrize("argument", ["seed", "--fast", "-x"])
def test_what_is_no_override(argument):
    assert argument in refusal(argument)


@pytest.mark.parametrize("argument", ["seed=[1", "seed={a", "data.augment=[a", "seed=${nothing}", "seed='1"])
def test_a_broken_value_is_refused_without_a_traceback(argument):
    message = refusal(argument)
    assert argument in message or (argument == "seed=${nothing}" and "nothing" in message)


def test_a_target_that_is_not_there_is_named():
    message = refusal("model.generator._target_=lit_aigc.networks.dcgan.Generatr")
    assert "model.generator" in message
    assert "lit_aigc.networks.dcgan.Generatr" in message


# -- what composing gives


def test_the_config_is_plain_and_survives_yaml():
    composed = compose("train", ["run_dir=here", "logger=tensorboard"])
    assert yaml.safe_load(yaml.safe_dump(composed)) == composed
    assert composed["experiment"] == "dcgan_mnist5k"
    assert "hydra" not in composed
    assert composed["run_dir"] == "here"


def test_the_seed_reaches_the_data():
    composed = compose("train", ["seed=7"])
    assert (composed["seed"], composed["data"]["seed"]) == (7, 7)


def test_the_command_line_wins_over_the_experiment():
    composed = compose("train", ["budget.samples=5", "trainer.precision=32-true", "model=mlp_gan"])
    assert composed["budget"] == {"minutes": None, "samples": 5, "batches": None}
    assert composed["trainer"]["precision"] == "32-true"
    assert composed["model"]["generator"]["_target_"] == "lit_aigc.networks.mlp.Generator"


def test_a_callback_is_switched_off_by_null():
    assert compose("train", ["callbacks.curves=null"])["callbacks"]["curves"] is None


def test_other_callbacks_leave_the_experiments_settings_of_the_default_ones_behind(tmp_path):
    (tmp_path / "callbacks").mkdir()
    (tmp_path / "callbacks" / "few.yaml").write_text("curves: {_target_: lit_aigc.callbacks.curves.Curves}\n")
    few = [f"--config-dir={tmp_path}", "callbacks=few"]
    assert set(compose("train", few)["callbacks"]) == {"curves"}
    assert "unknown key 'callbacks.sample_grid'" in refusal(*few, "callbacks.sample_grid.rows=3")
    assert compose("train", ["callbacks=null"])["callbacks"] == {}
    assert "logger" not in compose("train", ["logger=null"])


def test_a_callback_of_the_users_own_is_added_to_the_others(tmp_path):
    (tmp_path / "callbacks").mkdir()
    node = "{_target_: lit_aigc.callbacks.curves.Curves}"
    (tmp_path / "callbacks" / "mine.yaml").write_text(f"mine: {node}\n")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "exp.yaml").write_text(
        "# @package _global_\ndefaults:\n  - dcgan_mnist\n  - override /callbacks: [default, mine]\n  - _self_\n"
    )
    (tmp_path / "experiment" / "few.yaml").write_text(
        "# @package _global_\ndefaults:\n  - dcgan_mnist\n  - override /callbacks: mine\n  - _self_\n"
    )
    folder, default = f"--config-dir={tmp_path}", compose("train", ["data=mnist"])["callbacks"]
    both = {**default, "mine": {"_target_": "lit_aigc.callbacks.curves.Curves"}}
    assert compose("train", [folder, "data=mnist", "+callbacks=mine"])["callbacks"] == both
    assert compose("train", [folder, "data=mnist", "callbacks=[default,mine]"])["callbacks"] == both
    assert compose("train", [folder, "experiment=exp"])["callbacks"] == both
    assert set(compose("train", [folder, "experiment=few"])["callbacks"]) == {"mine"}
    assert "callbacks=mien is unknown, did you mean 'mine'?" in refusal(folder, "+callbacks=mien")
    assert set(compose("train", ["logger=wandb", "+logger=tensorboard"])["logger"]) == {"wandb", "tensorboard"}


def test_composing_leaves_no_state_behind():
    first = compose("train", ["seed=1"])
    compose("generate", ["bundle=x"])
    assert compose("train", ["seed=1"]) == first


# -- free text and paths

FREE = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
NASTY = st.text(st.sampled_from("\\'\"${}[](),=:;!?#&|<>*~@%^+- ab/.\n\té漢🙂"), min_size=1, max_size=12)


def by_the_user_quoted(text: str) -> bool:
    return text == "null" or (len(text) > 1 and text[0] == text[-1] and text[0] in "'\"")


EXAMPLES = [
    "To be, or not!",
    'it\'s "quoted", ${HOME} {a: b} [1, 2]',
    "C:\\Users\\me\\",
    "\\${x}",
    "\\\\'${x}\\'\\",
    "a=b",
    "'",
    '"a" and "b',
    " leading and trailing ",
    "two\nlines",
    "~/x",
    "1e5",
    "true",
]


@given(text=st.one_of(NASTY, FREE, st.sampled_from(EXAMPLES)))
@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_survives_the_grammars_of_hydra_and_omegaconf(text):
    if by_the_user_quoted(text):
        return
    value = OverridesParser.create().parse_override(overrides.quoted(f"prompt={text}")).value()
    assert OmegaConf.to_container(OmegaConf.create({"prompt": value}), resolve=True)["prompt"] == text


@pytest.mark.parametrize("text", EXAMPLES)
def test_free_text_arrives_as_it_was_written(text):
    assert compose("generate", ["bundle=x", f"out={text}"])["out"] == text


@pytest.mark.parametrize("key", ["bundle", "out"])
def test_a_path_with_commas_quotes_and_blanks(key):
    text = "To be, or not! it's/${here}/[1]"
    assert compose("generate", ["bundle=x", f"{key}={text}"])[key] == text


@pytest.mark.parametrize("key", ["run_dir", "init_from"])
def test_a_path_of_training(key):
    text = "/data/my runs, (old)/it's \\ ${x}"
    assert compose("train", [f"{key}={text}"])[key] == text


@pytest.mark.parametrize("key", ["data.root", "callbacks.generative_metrics.weights_path"])
def test_a_path_deep_in_the_config(key):
    text = "/data/my images, (old)/it's"
    node = compose("train", ["data=image_folder", f"{key}={text}"])
    for part in key.split("."):
        node = node[part]
    assert node == text


def test_texts_that_look_like_two_quoted_ones_are_one_text():
    assert compose("generate", ["bundle=x", "out='a' and 'b'"])["out"] == "'a' and 'b'"


def test_what_the_user_quoted_for_hydra_is_left_alone():
    assert compose("generate", ["bundle=x", "out='a, b'"])["out"] == "a, b"
    assert compose("generate", ["bundle=x", 'out="it\'s"'])["out"] == "it's"


def test_numbers_and_null_in_place_of_text():
    assert compose("train", ["run_dir=null"])["run_dir"] is None
    assert compose("generate", ["bundle=12", "out=3e4"])["bundle"] == "12"


# -- the user's own


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A package with a network, and a config folder with an experiment and a model that use it."""
    package = tmp_path / "code" / "painters_of_mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "networks.py").write_text(
        textwrap.dedent(
            """
            from torch import nn

            class Painter(nn.Module):
                def __init__(self, shape, num_classes: int = 0, strokes: int = 3):
                    super().__init__()
                    self.latent_dim = strokes
                    self.net = nn.Linear(strokes, shape[0] * shape[1] * shape[2])
                    self.shape = tuple(shape)

                def forward(self, z, y=None):
                    return self.net(z).tanh().unflatten(1, self.shape)
            """
        )
    )
    folder = tmp_path / "conf, of (mine) it's"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "painter_mnist5k.yaml").write_text(
        "# @package _global_\n# a painter\ndefaults:\n  - override /data: mnist5k\n  - override /model: painter\n\n"
        "budget: {batches: 2}\nmonitor: null\n"
    )
    (folder / "model").mkdir()
    (folder / "model" / "painter.yaml").write_text(
        "# a painter\n_target_: lit_aigc.modules.gan.GAN\nconditional: true\n"
        "generator: {_target_: painters_of_mine.networks.Painter}\n"
        "discriminator: {_target_: lit_aigc.networks.mlp.Discriminator, hidden: [8]}\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    yield folder
    for name in [name for name in sys.modules if name.startswith("painters_of_mine")]:
        del sys.modules[name]


def test_an_own_experiment_names_own_classes(own):
    arguments = ["--config-dir", str(own), "experiment=painter_mnist5k"]
    composed = load("train", arguments)
    assert composed["experiment"] == "painter_mnist5k"
    assert composed["model"]["generator"] == {"_target_": "painters_of_mine.networks.Painter"}
    assert composed["budget"]["batches"] == 2
    message = refusal(*arguments, "model.generator.stroke=3")
    assert "unknown key 'model.generator.stroke': Painter has no such option, did you mean 'strokes'?" in message


def test_an_own_model_trains_and_its_bundle_asks_for_trust(own, command, tiny, tmp_path):
    arguments = [argument for argument in tiny if not argument.startswith("model")]
    run = tmp_path / "run"
    outcome = command("train", f"--config-dir={own}", "experiment=painter_mnist5k", *arguments, f"run_dir={run}")
    assert outcome.code == 0, outcome.err
    bundle = f"bundle={run / 'bundle'}"
    refused = command("generate", bundle, "n=1", f"out={tmp_path / 'samples'}")
    assert refused.code == 2
    assert "painters_of_mine.networks.Painter is refused" in refused.err
    assert "trust=" in refused.err
    outcome = command("generate", bundle, "n=1", f"out={tmp_path / 'samples'}", "trust=[painters_of_mine]")
    assert outcome.code == 0, outcome.err
    assert (
        command("generate", bundle, "trust=painters_of_mine").err.count("trust=painters_of_mine: expected a list") == 1
    )


def test_a_config_folder_that_is_not_there():
    assert "--config-dir /no/such" in refusal("--config-dir=/no/such")
    assert "--config-dir" in refusal("--config-dir")


def test_an_unknown_member_lists_the_users_own_too(own):
    assert "painter" in refusal(f"--config-dir={own}", "model=nothing_like_it")


# -- resuming


@pytest.fixture
def saved(tmp_path):
    """A run folder with the config of a run that was told much."""
    run = tmp_path / "run"
    run.mkdir()
    composed = compose("train", ["seed=5", "model=mlp_gan", "model.n_critic=3", "budget.batches=7"])
    write_yaml(composed, run / "config.yaml")
    return run


def test_a_resumed_run_has_its_saved_config(saved):
    assert load("train", [f"resume={saved}"]) == read_yaml(saved / "config.yaml") | {"resume": str(saved)}


@pytest.mark.parametrize(
    ("argument", "path", "value"),
    [
        ("budget.batches=9", ("budget", "batches"), 9),
        ("budget.samples=null", ("budget", "samples"), None),
        ("pause_after.batches=2", ("pause_after", "batches"), 2),
        ("trainer.devices=2", ("trainer", "devices"), 2),
        ("trainer.accelerator=cpu", ("trainer", "accelerator"), "cpu"),
        ("+data.workers=0", ("data", "workers"), 0),
        ("logger=tensorboard", ("logger", "tensorboard", "_target_"), "lit_aigc.loggers.tensorboard.TensorBoardLogger"),
        ("logger=null", ("logger",), None),
    ],
)
def test_what_a_resumed_run_may_change(saved, argument, path, value):
    before = read_yaml(saved / "config.yaml")
    resumed = load("train", [f"resume={saved}", argument])
    node = resumed
    for key in path:
        node = node[key]
    assert node == value
    if path[0] != "logger":  # the rest is as it was
        changed = before[path[0]] if len(path) == 2 else before
        changed[path[-1]] = value
        assert resumed == before | {"resume": str(saved)}


def test_changes_of_a_resumed_run_leave_the_rest_of_the_saved_config_alone(saved):
    resumed = load("train", [f"resume={saved}", "budget.batches=9", "trainer.devices=2"])
    assert (resumed["seed"], resumed["data"]["seed"], resumed["model"]["n_critic"]) == (5, 5, 3)
    assert resumed["budget"]["samples"] == read_yaml(saved / "config.yaml")["budget"]["samples"]


@pytest.mark.parametrize("argument", ["seed=1", "model.n_critic=1", "data.batch_size=2", "model=dcgan", "run_dir=x"])
def test_what_a_resumed_run_may_not_change(saved, argument):
    message = refusal(f"resume={saved}", argument)
    assert f"{argument.partition('=')[0]} can't change when a run is resumed" in message
    assert "budget" in message


def test_a_misspelt_change_of_a_resumed_run(saved):
    assert "did you mean 'batches'?" in refusal(f"resume={saved}", "budget.batchs=9")


@pytest.mark.parametrize("content", ["", "- a\n", "a: [", "\x00"])
def test_a_damaged_saved_config(saved, content):
    (saved / "config.yaml").write_text(content)
    assert "config.yaml" in refusal(f"resume={saved}")


def test_a_saved_config_runs_no_code(saved, tmp_path):
    (saved / "config.yaml").write_text(f"!!python/object/apply:os.system ['touch {tmp_path / 'canary'}']\n")
    assert "config.yaml" in refusal(f"resume={saved}")
    assert not (tmp_path / "canary").exists()


# -- seeds


@pytest.mark.parametrize("verb", ["train", "generate", "evaluate", "sweep"])
@pytest.mark.parametrize("seed", [-1, 2**63, 99999999999999999999])
def test_seeds_have_one_range(verb, seed):
    needed = {"generate": ["bundle=x"], "evaluate": ["bundle=x"], "sweep": ["file=x"]}.get(verb, [])
    assert refusal(f"seed={seed}", *needed, verb=verb) == f"seed={seed}: expected a whole number from 0 to {2**63 - 1}"
    compose(verb, [f"seed={2**63 - 1}", *needed])


def test_the_seed_of_a_part_is_checked_too():
    message = refusal("callbacks.generative_metrics.seed=-3", "data.seed=-3", "seed=-2")
    assert [line.partition(":")[0] for line in message.splitlines()] == ["seed=-2", "data.seed=-3"]
    assert refusal("seeds=[0,-1]", "experiments=[dcgan_mnist5k]", verb="compare").startswith("seeds=-1: expected")
