"""Building from plain dicts: what is found, filled in, refused."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest
import torch

from lit_aigc.build import build, did_you_mean, instantiate, locate, problems, resolve
from lit_aigc.errors import InputError
from lit_aigc.networks import mlp
from lit_aigc.spec import DataSpec

DIGITS = DataSpec("image", (1, 28, 28), num_classes=10, class_names=tuple("0123456789"), name="digits")
PICTURES = DataSpec("image", (3, 32, 32), name="pictures")
GAN = {
    "_target_": "lit_aigc.modules.gan.GAN",
    "conditional": True,
    "generator": {"_target_": "lit_aigc.networks.mlp.Generator", "hidden": [8]},
    "discriminator": {"_target_": "lit_aigc.networks.mlp.Discriminator", "hidden": [8]},
}
TOYS = "toys_of_the_build_test"
A_PART = f"expected a subclass of {TOYS}.Part, or a function that is annotated to return one"


@dataclasses.dataclass(frozen=True)
class Options:
    depth: int = 1
    rate: float = 0.5


class Part:
    def __init__(self, size: int, names: Sequence[str] = (), mode: Literal["fast", "slow"] = "fast"):
        self.size, self.names, self.mode = size, names, mode


class SubPart(Part):
    pass


def make_part() -> Part:
    return Part(1)


def guess():
    return Part(1)


class Whole:
    def __init__(
        self,
        part: Part,
        spec: DataSpec,
        options: Options | None = None,
        extra: Mapping[str, Any] | None = None,
        flag: bool = False,
        anything: Any = None,
    ):
        self.part, self.spec, self.options, self.extra, self.flag, self.anything = (
            part, spec, options, extra, flag, anything
        )  # fmt: skip


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    module = types.ModuleType("toys_of_the_build_test")
    for kind in (Part, SubPart, Whole, make_part, guess):
        setattr(module, kind.__name__, kind)
        monkeypatch.setattr(kind, "__module__", module.__name__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    # annotations are read by name, from where the class says that it was defined
    module.__dict__.update(
        DataSpec=DataSpec, Options=Options, Sequence=Sequence, Mapping=Mapping, Any=Any, Literal=Literal
    )


def part(**options):
    return {"_target_": "toys_of_the_build_test.Part", "size": 3, **options}


def whole(**options):
    return {"_target_": "toys_of_the_build_test.Whole", "part": part(), **options}


# -- instantiate


def test_children_are_built_first_and_plain_values_stay():
    built = instantiate(whole(extra={"a": [1, {"b": None}]}, flag=True), spec=DIGITS)
    assert isinstance(built.part, Part) and built.part.size == 3
    assert built.spec is DIGITS
    assert built.extra == {"a": [1, {"b": None}]}
    assert built.flag is True


def test_nodes_in_lists_are_built():
    built = instantiate(whole(anything=[part(size=1), part(size=2), 3]), spec=DIGITS)
    assert [getattr(item, "size", item) for item in built.anything] == [1, 2, 3]


def test_a_dataclass_parameter_is_made_of_its_fields():
    assert instantiate(whole(options={"depth": 4}), spec=DIGITS).options == Options(depth=4)
    assert instantiate(whole(options=None), spec=DIGITS).options is None


def test_given_arguments_go_only_where_the_signature_has_them():
    assert instantiate(part(), spec=DIGITS, run_dir="x").size == 3


def test_a_function_can_be_a_target():
    assert (
        instantiate({"_target_": "lit_aigc.optimization.schedules.schedule", "name": "constant", "progress": 0.5})
        == 1.0
    )


@pytest.mark.parametrize("value", [None, 3, "text", [1, 2], {"a": 1}])
def test_what_is_no_node_is_itself(value):
    assert instantiate(value) == value


def test_a_missing_option_is_named():
    with pytest.raises(InputError, match=r"toys_of_the_build_test.Whole needs the option 'part'"):
        instantiate({"_target_": "toys_of_the_build_test.Whole"}, spec=DIGITS)
    with pytest.raises(InputError, match="needs the option 'spec'"):
        instantiate(whole())


def test_every_problem_of_a_node_is_in_the_message():
    with pytest.raises(InputError) as error:
        instantiate(part(sise=1, nams=[], size="big"))
    assert len(str(error.value).splitlines()) == 3


# -- problems


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (part(nmes=[]), "unknown key 'm.nmes': Part has no such option, did you mean 'names'?"),
        (whole(options={"dept": 1}), "unknown key 'm.options.dept', did you mean 'depth'?"),
        (whole(part=part(sise=1)), "unknown key 'm.part.sise': Part has no such option, did you mean 'size'?"),
        (whole(anything=[part(sise=1)]), "did you mean 'size'?"),
        (part(size="big"), "m.size=big: expected a whole number"),
        (part(size=2.5), "m.size=2.5: expected a whole number"),
        (part(size=True), "m.size=True: expected a whole number"),
        (part(size=None), "m.size=None: expected a whole number"),
        (part(names="abc"), "m.names=abc: expected a list in brackets"),
        (part(names=[1]), "m.names=[1]: expected a list in brackets"),
        (part(mode="medium"), "m.mode=medium: expected fast or slow"),
        (whole(flag="yes"), "m.flag=yes: expected true or false"),
        (whole(flag=1), "m.flag=1: expected true or false"),
        (whole(options=3), "m.options=3: expected keys with values or null"),
        (whole(options={"depth": "deep"}), "m.options.depth=deep: expected a whole number"),
        (whole(extra=[1]), "m.extra=[1]: expected keys with values or null"),
        ({"_target_": "toys_of_the_build_test.Prt"}, "m: _target_: toys_of_the_build_test.Prt can't be imported"),
        (whole(part={"_target_": "os.system", "sise": 1}), f"m.part._target_=os.system is not a class: {A_PART}"),
        (whole(part={"_target_": f"{TOYS}.guess"}), f"m.part._target_={TOYS}.guess is not a class: {A_PART}"),
        (whole(part={"_target_": "torch.nn.Linear"}), f"m.part._target_=torch.nn.Linear is another class: {A_PART}"),
        (whole(anything={"_target_": "os.system"}), "m.anything: _target_: os.system is not a class."),
        ({"_target_": "os.path"}, "m: _target_: os.path is not a class."),
        ({"_target_": 5}, "m: _target_: 5 is not the dotted name"),
        ({"_target_": None}, "m: _target_: None is not the dotted name"),
    ],
)
def test_a_problem_is_said_with_its_place(node, expected):
    found = problems(node, "m")
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    "node",
    [
        part(names=["a"], mode="slow"),
        whole(part={"_target_": f"{TOYS}.SubPart", "size": 1}),
        whole(part={"_target_": f"{TOYS}.make_part"}),
        whole(options={"rate": 1}),  # a whole number is a number
        whole(options={"rate": 0.1}, extra=None, anything={"x": "y"}),
        {"a": 1},
        [],
        3,
    ],
)
def test_what_is_right_has_no_problems(node):
    assert problems(node, "m") == []


def test_the_first_word_of_a_name_is_enough_for_a_suggestion():
    assert did_you_mean("fid", ["kid_x", "fid_x"]) == ", did you mean 'fid_x'?"


@pytest.mark.parametrize("known", [["minutes", "samples"], {"minutes": 1}])
def test_did_you_mean(known):
    assert did_you_mean("minuts", known) == ", did you mean 'minutes'?"
    assert did_you_mean("zzz", known).startswith("; known: minutes")


# -- resolve and build


def test_facts_of_the_spec_are_filled_in_where_a_parameter_has_their_name():
    resolved = resolve(GAN, DIGITS)
    assert resolved["generator"]["shape"] == [1, 28, 28]
    assert resolved["generator"]["num_classes"] == 10
    assert resolved["discriminator"]["shape"] == [1, 28, 28]
    assert "num_classes" not in resolved and "class_names" not in resolved["generator"]


def test_resolving_leaves_the_config_alone_and_twice_is_once():
    before = repr(GAN)
    once = resolve(GAN, DIGITS)
    assert repr(GAN) == before
    assert resolve(once, DIGITS) == once


def test_what_the_config_sets_wins_over_the_spec():
    config = {**GAN, "generator": {**GAN["generator"], "num_classes": 3}}
    assert resolve(config, DIGITS)["generator"]["num_classes"] == 3
    config = {**GAN, "generator": {**GAN["generator"], "num_classes": None}}
    assert resolve(config, DIGITS)["generator"]["num_classes"] == 10


def test_an_unconditional_model_knows_no_classes():
    resolved = resolve({**GAN, "conditional": False}, DIGITS)
    assert resolved["generator"]["num_classes"] == resolved["discriminator"]["num_classes"] == 0
    assert build(resolved, DIGITS).generator.embedding is None


def test_a_conditional_model_of_data_without_labels_is_refused():
    with pytest.raises(InputError, match=r"model.conditional=true needs labels, and the data set pictures has none"):
        resolve(GAN, PICTURES)


def test_a_model_is_built_for_its_spec():
    module = build(resolve(GAN, DIGITS), DIGITS)
    assert isinstance(module.generator, mlp.Generator)
    assert module.generator.embedding.num_embeddings == 10
    assert module.spec is DIGITS
    images = module.generator(torch.zeros(2, 64), torch.tensor([0, 9]))
    assert images.shape == (2, 1, 28, 28)


# -- trust


@pytest.mark.parametrize(
    "target",
    [
        "lit_aigc.networks.mlp.Generator",
        "lit_aigc.modules.gan.GAN",
        "lit_aigc.augmentation.images.AdaptiveAugment",
        "lit_aigc.modules.latent.GenerativeModule",  # defined in lit_aigc.modules.base: trusted all the same
    ],
)
def test_classes_of_lit_aigc_are_trusted(target):
    assert locate(target, trust=()).__name__ == target.rpartition(".")[2]


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "torch.nn.Linear",
        "torch.load",
        "torch.utils.collect_env.run",
        "lit_aigc.networks.mlp.nn",  # a module
        "lit_aigc.networks.mlp.pairwise",  # a class from elsewhere
        "lit_aigc.networks.mlp.Sequence",
        "lit_aigc.networks.dcgan.spectral_norm",  # a function from elsewhere
        "lit_aigc.networks.dcgan._stages",  # a function of its own
        "lit_aigc.modules.base.contextlib",
        "lit_aigc.modules.base.Tensor",
        "lit_aigc.modules.base.InputError",
        "lit_aigc.modules.adversarial.did_you_mean",
        "lit_aigc.augmentation.images.Noise",  # a class from elsewhere
        "lit_aigc.augmentation.images.did_you_mean",
        "lit_aigc.modules.base.contextlib.ExitStack",
        "lit_aigc.networks.os.system",
        "lit_aigc.networks",
        "lit_aigc.networks.mlp",
        "lit_aigc.train.run.train",
        "lit_aigc.runs.folder.RunFolder",
        "lit_aigc.data.images.ImageData",
        "lit_aigc.callbacks.clock.Clock",
        "lit_aigc.networksevil.Net",
        "lit_aigc.networks_evil.Net",
        "Generator",
        "",
        ".lit_aigc.networks.mlp.Generator",
        "..os.system",
        "lit_aigc.networks..mlp.Generator",
        "lit_aigc.networks.mlp.Generator.__init__",
        "lit_aigc.networks.mlp.Generator.__class__",
        "lit_aigc.networks.mlp.__builtins__",
        "lit_aigc.networks.mlp.__loader__",
    ],
)
def test_anything_else_is_refused_from_a_file(target):
    with pytest.raises(InputError, match=r"refused|can't be imported"):
        locate(target, trust=())


def test_a_module_that_is_not_trusted_is_not_even_imported(tmp_path, monkeypatch):
    for name in ("lit_aigc_networks", "innocent_package"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nclass Net: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for target in ("lit_aigc_networks.Net", "innocent_package.Net"):
        with pytest.raises(InputError, match="refused"):
            locate(target, trust=())
    assert not (tmp_path / "canary").exists()


def test_a_package_that_the_user_trusts():
    assert locate("toys_of_the_build_test.Part", trust=["toys_of_the_build_test"]) is Part
    for trust in (["toys_of_the_build"], ["toys"], ["toys_of_the_build_test.Part"], ["t"], []):
        with pytest.raises(InputError, match="trust="):
            locate("toys_of_the_build_test.Part", trust=trust)


def test_trust_reaches_children():
    with pytest.raises(InputError, match="refused"):
        build({**GAN, "generator": {"_target_": "os.system", "command": "true"}}, DIGITS, trust=())
    with pytest.raises(InputError, match="refused"):
        build(
            {**resolve(GAN, DIGITS), "generator_optimizer": {"betas": [{"_target_": "os.system", "command": "true"}]}},
            DIGITS,
            trust=(),
        )


def test_a_users_own_config_may_name_anything():
    assert locate("torch.nn.Linear") is torch.nn.Linear
