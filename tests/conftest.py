"""What every test runs under: no network, no outside settings, marked tests skipped with their reason."""

from __future__ import annotations

import dataclasses
import importlib
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Settings of the caller's shell that would change what a test sees.
FOREIGN_PREFIXES = ("WANDB_", "SLURM_", "TORCHELASTIC_", "LIT_AIGC_")
FOREIGN_NAMES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "NODE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)

# One thread a process, set before torch is imported: several processes run at a time, and threads that share a core
# wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REFERENCE_DATA = os.environ.get("LIT_AIGC_DATA")

try:
    import hypothesis
except ImportError:
    pass
else:
    hypothesis.settings.register_profile("lit_aigc", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("lit_aigc")


def _skip_reason(item: pytest.Item) -> str | None:
    if item.get_closest_marker("reference_data") and not (REFERENCE_DATA and Path(REFERENCE_DATA).is_dir()):
        return "needs real data sets: set LIT_AIGC_DATA to a folder in torchvision's layout (MNIST/raw/...)"
    if item.get_closest_marker("cluster") and shutil.which("sbatch") is None:
        return "needs a SLURM cluster: sbatch is not on the PATH"
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            return "needs a CUDA device"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    if reason := _skip_reason(item):
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def clean_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see neither the caller's W&B, SLURM and torchrun settings, nor (unless marked) the reference data."""
    for name in list(os.environ):
        if name.startswith(FOREIGN_PREFIXES) or name in FOREIGN_NAMES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    if request.node.get_closest_marker("reference_data"):
        monkeypatch.setenv("LIT_AIGC_DATA", str(REFERENCE_DATA))


@pytest.fixture(autouse=True)
def even_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No precision is slow, so that no test depends on the machine, or on what else it does during the probe."""
    monkeypatch.setattr("lit_aigc.machine.precision.bf16_slowdown", lambda: 1.0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that would leave this machine raises, so that a test that needs the network can't pass here."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family != socket.AF_UNIX and not (str(host).startswith("127.") or host in ("::1", "localhost", "")):
            raise OSError(f"a test tried to connect to {host}: tests run offline")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture
def reference_data() -> Path:
    """The folder of real data sets; for tests marked ``reference_data``."""
    assert REFERENCE_DATA is not None, "mark the test with @pytest.mark.reference_data"
    return Path(REFERENCE_DATA)


# A model and a budget so small that a run takes a fraction of a second.
TINY = (
    "data=mnist5k",
    "model=mlp_gan",
    "model.generator.hidden=[8]",
    "model.generator.latent_dim=4",
    "model.discriminator.hidden=[8]",
    "budget.samples=null",
    "budget.batches=4",
    "data.batch_size=8",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    "trainer.precision=32-true",
    "callbacks.progress=null",
    "callbacks.sample_grid=null",
    "callbacks.reconstructions=null",
    "callbacks.text_samples=null",
    "callbacks.generative_metrics=null",
    "callbacks.curves=null",
    "callbacks.neighbors=null",
    "monitor=null",
    "log_every=2",
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code, and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Arguments of a training run that takes a fraction of a second."""
    return list(TINY)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a verb in this process as the command line would: ``command("train", "seed=1") -> Outcome``."""

    def run(verb: str, *arguments: str) -> Outcome:
        from lit_aigc.config.command import command

        main = importlib.import_module(f"lit_aigc.{verb}.__main__").main
        monkeypatch.setattr(sys, "argv", [f"lit_aigc/{verb}/__main__.py", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            command(verb, main)
        return Outcome(stop.value.code or 0, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a tiny GAN on mnist5k, trained for four batches; not to be changed, only copied."""
    from lit_aigc.config.compose import load
    from lit_aigc.train.run import train

    folder = tmp_path_factory.mktemp("tiny") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(FOREIGN_PREFIXES) or name in FOREIGN_NAMES:
                patch.delenv(name)
        assert train(load("train", [*TINY, f"run_dir={folder}"])).exit_code == 0
    return folder
