"""Where tensors are when a run resumes on another device than the CPU that it was read on."""

from __future__ import annotations

import pytest
from lightning.pytorch.strategies import SingleDeviceStrategy

from lit_aigc.config.compose import load
from lit_aigc.train.run import train
from tests.reliability.runs import MODELS, arguments


class Moved(Exception):
    """The module is on its device."""


@pytest.mark.parametrize("family", MODELS)
def test_everything_restored_follows_the_module_to_its_device(family, tmp_path, monkeypatch):
    """Lightning restores a module and then moves it; here to `meta`, for want of a GPU."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = [*arguments(family, tmp_path), "pause_after.batches=4", "model.recipe.ema_decay=0.9", "validations=0"]
    assert train(load("train", [*words, f"run_dir={tmp_path}/run"])).exit_code == 75
    found = {}

    def move(strategy):
        module = strategy.lightning_module.to("meta")
        found["live"] = [*module.parameters(), *module.buffers()]
        found["averaged"] = list(module.ema.state_dict()["shadow"].values())
        found["window"] = list(module._window.totals.values())
        if state := getattr(module, "_state", None):
            found["carried"] = [state.lengths, state.tail, *(tensor for layer in state.layers for tensor in layer)]
        raise Moved

    monkeypatch.setattr(SingleDeviceStrategy, "model_to_device", move)
    monkeypatch.setattr(SingleDeviceStrategy, "teardown", lambda strategy: None)  # it would move the module back
    with pytest.raises(Moved):
        train(load("train", [f"resume={tmp_path}/run"]))
    assert set(found) == {"live", "averaged", "window"} | ({"carried"} if family == "lstm" else set())
    for name, tensors in found.items():
        assert tensors, name
        assert {tensor.device.type for tensor in tensors} == {"meta"}, name
