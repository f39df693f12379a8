"""What every test runs under: no network, no outside settings, marked tests skipped with their reason."""

from __future__ import annotations

import os
import shutil
import socket
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
