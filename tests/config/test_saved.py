"""A run goes on by ``resume=RUN_DIR`` alone, whatever it was started with, and whenever."""

import shutil
import sys

import lightning as L
import pytest
import torch

from lit_aigc.config.compose import compose, load
from lit_aigc.config.overrides import config_folder
from lit_aigc.config.saved import different_settings
from lit_aigc.files import read_yaml, write_yaml
from lit_aigc.runs import launch
from lit_aigc.runs.checkpoint import AtomicCheckpointIO
from lit_aigc.train import trainer as training
from lit_aigc.train.run import train
from tests.equality import assert_equal

TRAINERS = sorted(path.stem for path in (config_folder() / "trainer").glob("*.yaml"))
SMALL_DCGAN = ["model=dcgan", "model.generator.channels=4", "model.discriminator.channels=4"]


@pytest.fixture
def elsewhere(tiny):
    """The tiny run without its trainer and model."""
    return [argument for argument in tiny if not argument.startswith(("trainer", "model"))]


@pytest.mark.parametrize("name", TRAINERS)
def test_every_trainer_is_trusted_in_a_saved_config(elsewhere, tmp_path, name):
    config = compose("train", [*elsewhere, f"trainer={name}"])
    write_yaml(config, tmp_path / "config.yaml")
    assert load("train", [f"resume={tmp_path}"])["trainer"] == config["trainer"]


def test_one_device_is_the_default_and_all_gpus_are_asked_for():
    devices = {name: compose("train", [f"trainer={name}"])["trainer"]["devices"] for name in TRAINERS}
    assert devices == {"default": 1, "gpu": "auto", "cluster": "auto", "fsdp": "auto"}


def test_the_same_job_resumes_with_what_its_config_said_under_former_defaults():
    def config(devices, precision, reference, monitor):
        measures = {"generative_metrics": {"reference": reference, "extractor": monitor}}
        return {"trainer": {"devices": devices, "precision": precision}, "callbacks": measures, "monitor": monitor}

    now = config(1, "auto", None, "inception")
    assert different_settings(config("auto", "bf16-mixed", "train", None), now) == []
    assert different_settings(config("auto", "32-true", "shipped", "inception"), now) == []
    before = {"callbacks": {"generative_metrics": {"reference": None, "num_samples": 5000, "metrics": None}}}
    after = {"callbacks": {"generative_metrics": {"reference": "train", "num_samples": 10_000, "metrics": ["kid"]}}}
    assert different_settings(before, after) == []
    assert len(different_settings(after, before)) == 2
    other = config(2, "bf16-mixed", None, "inception")
    assert different_settings(config("auto", "32-true", None, "inception"), other) == [
        "trainer.devices=auto there, 2 here",
        "trainer.precision=32-true there, bf16-mixed here",
    ]


def test_a_cluster_run_goes_on_by_resume_alone(elsewhere, tmp_path, monkeypatch):
    """On one CPU process, BatchNorm and all; also under the name that the strategy once had."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # torch replaces it
    cluster = ["trainer=cluster", "trainer.accelerator=cpu", "trainer.devices=1", "trainer.precision=32-true"]
    arguments = [*elsewhere, *SMALL_DCGAN, *cluster]
    try:
        train(load("train", [*arguments, f"run_dir={tmp_path}/parts", "pause_after.batches=2"]))
        before = shutil.copytree(tmp_path / "parts", tmp_path / "before")
        config = read_yaml(before / "config.yaml")
        config["trainer"]["strategy"]["_target_"] = "lit_aigc.launch.data_parallel"
        write_yaml(config, before / "config.yaml")
        ends = [train(load("train", [f"resume={run}"])) for run in (tmp_path / "parts", before)]
        ends.append(train(load("train", [*arguments, f"run_dir={tmp_path}/whole"])))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    assert [end.exit_code for end in ends] == [0, 0, 0]
    assert isinstance(ends[1].trainer.strategy, launch.DataParallel)
    for end in ends[:2]:
        assert_equal(ends[2].module.state_dict(), end.module.state_dict())


def test_sync_batchnorm_is_left_out_on_cpus_with_one_line(elsewhere, tmp_path, caplog, monkeypatch):
    config = compose("train", [*elsewhere, *SMALL_DCGAN, "trainer=cluster", "trainer.accelerator=cpu"])
    config["trainer"] |= {"devices": 2, "precision": "32-true"}
    modules = [L.LightningModule(), L.LightningModule()]
    modules[0].layer, modules[1].layer = torch.nn.BatchNorm2d(1), torch.nn.LayerNorm(1)
    for module in modules:
        module.validates = True

    def trainer(module):
        return training.build_trainer(config, module, [], [], tmp_path, AtomicCheckpointIO(), None)

    for module, lines in zip(modules, (1, 0), strict=True):
        caplog.clear()
        built = trainer(module)
        assert (built.world_size, built.strategy._layer_sync) == (2, None)
        assert caplog.text.count("sync_batchnorm applies on GPUs only") == lines
    assert config["trainer"]["sync_batchnorm"]  # of the run folder, which may resume on GPUs

    monkeypatch.setattr(training, "accelerator_of", lambda name: "cuda")
    monkeypatch.setattr(training, "choose_precision", lambda asked, *_: asked)
    monkeypatch.setattr(training, "instantiate", lambda node, **_: node)
    assert trainer(modules[0])["sync_batchnorm"]
