"""The base of all training objectives: counting, optimizer steps, validation, logging, checkpoints, and sampling."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from lit_aigc.errors import check
from lit_aigc.modules.checkpoint import CHECKPOINT_KEY, check_fits, module_of, read_checkpoint
from lit_aigc.modules.means import LogWindow, SampleMeans
from lit_aigc.modules.sampling import Sampling
from lit_aigc.modules.trainer_time import Timekeeper, check_limits, check_no_schedulers, trainer_progress
from lit_aigc.modules.updates import AGAINST_DIVERGENCE, Recipe, TrainingDiverged, Updates, length, whole
from lit_aigc.optimization.ema import EMA
from lit_aigc.optimization.optimizers import learning_rates
from lit_aigc.optimization.optimizers import optimizer as make_optimizer
from lit_aigc.spec import DataSpec
from lit_aigc.tokenization.tokenizers import Tokenizer


class GenerativeModule(Updates, Sampling):
    """A generative model and its training objective, under manual optimization.

    A subclass implements `train_batch`, `sample_block` and, where it has a held-out loss, `validate_batch`; its
    constructor ends with `prepare`. Manual optimization takes clipping, accumulation and
    schedules away from the Trainer; `update` gives them back.

    Under a Trainer without a clock (`lit_aigc.callbacks.clock`) `progress` follows the Trainer's own limits; see
    `lit_aigc.modules.trainer_time.trainer_progress`.

    Args:
        spec: The facts of the data.
        conditional: Whether samples are asked for by class label.
        recipe: How to optimize.

    Attributes:
        of_tokens: Whether it models sequences of tokens, rather than tensors of numbers; None: either.
        decays_vectors: Whether weight decay applies to biases and normalization too.
        trains_all_at_once: Whether each backward pass reaches all parameters, so that DDP needs to look for none.
        seed: Seed of all randomness of training; see `begin`.
        tokenizer: Of a model of text, what its ids mean; see `begin`, also set by `load_bundle`; else None.
        config: The resolved config that it was built from, which goes into checkpoints; set by `lit_aigc.build.build`.
        batches: Training batches done.
        samples_seen: Samples seen, over all processes; the x-axis of every log.
        generator_updates: Updates of the network that generates.
        skipped_updates: Updates that half precision skipped because a gradient overflowed; the scale is halved then.
        progress: Share of the budget that is used, in [0, 1].
        train_seconds: Seconds from the first to the last batch, validation in between included.
        validations: Validations done.
        log_every: Batches between two log entries; each is the mean over the batches since the last.
        recent: The latest such means.
        results: The latest value of everything logged for monitors: what ``summary.json`` holds.
        optimizer_names: The name of each of `configure_optimizers` in the log; see `learning_rates`.
        validation_keys: What validation logs for monitors; may be a property, known once `trainer` is there.
    """

    of_tokens: ClassVar[bool | None] = None
    decays_vectors: ClassVar[bool] = True
    trains_all_at_once: ClassVar[bool] = False
    optimizer_names: tuple[str, ...] = ("",)
    validation_keys: tuple[str, ...] | property = ()

    def __init__(self, spec: DataSpec, conditional: bool = False, recipe: Recipe | None = None) -> None:
        super().__init__(recipe)
        self.spec = spec
        self.conditional = conditional
        self.config: dict[str, Any] = {}
        self.begin()
        self.samples_seen = 0
        self.progress = 0.0
        self.train_seconds = 0.0
        self.validations = 0
        self.recent: dict[str, float] = {}
        self.results: dict[str, float] = {}
        self._started: float | None = None  # on `time.monotonic`, where no clock sets `progress` and `train_seconds`
        self._window = LogWindow()
        self._validation = SampleMeans()

    def begin(self, seed: int = 0, log_every: int = 50, tokenizer: Tokenizer | None = None) -> None:
        """Take in what belongs to a run of training, before the fit.

        Args:
            seed: Of all randomness of training.
            log_every: Batches between two log entries.
            tokenizer: Of a model of text, what its ids mean.

        Raises:
            InputError: If a number is out of range.
        """
        check(("log_every", log_every, log_every >= 1, "a number of batches, 1 or more"))
        self.seed, self.log_every, self.tokenizer = seed, log_every, tokenizer

    def prepare(
        self,
        generating: nn.Module,
        *others: nn.Module,
        optimizers: Mapping[str, tuple[Any, ...]] | None = None,
        compiled: Iterable[nn.Module] | None = None,
    ) -> None:
        """Do as the recipe says with the networks, and check the optimizers; the end of a subclass's constructor.

        Args:
            generating: The network that generates, whose weights are averaged.
            others: Networks besides it.
            optimizers: By name in the log, the config of an optimizer (see `lit_aigc.optimization.optimizers`) and the
                networks that it trains; none for a subclass with a `configure_optimizers` of its own.
            compiled: What `torch.compile` gets; all of these networks by default.

        Raises:
            InputError: If an optimizer has a wrong option: now, not when training starts.
        """
        if optimizers:
            self._trained_by, self.optimizer_names = dict(optimizers), tuple(optimizers)
        layout = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        for network in (generating, *others):
            network.to(memory_format=layout)
        if self.recipe.compile:
            for part in (generating, *others) if compiled is None else compiled:
                part.compile()
        if self.recipe.ema_decay:
            self.ema = EMA(generating, self.recipe.ema_decay, self.recipe.ema_start, self.recipe.ema_every)
        check_no_schedulers(self.configure_optimizers())

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return the optimizers that `prepare` was given."""
        return [
            make_optimizer(config, (p for network in networks for p in network.parameters()), self.decays_vectors)
            for config, *networks in self._trained_by.values()
        ]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move its other tensors with the module: Lightning moves a module after it has restored them."""
        super()._apply(fn, recurse)
        if self.ema:
            self.ema.convert(fn)
        self._window.convert(fn)
        return self

    # -- what a subclass implements

    def train_batch(self, batch: Any) -> Mapping[str, Tensor]:
        """Train on one batch with `update`, and return scalars to log, by name."""
        raise NotImplementedError

    def validate_batch(self, batch: Any) -> Mapping[str, Tensor]:
        """Return values ``(N, ...)`` of the samples of a held-out batch, by name.

        Called in evaluation mode, in full precision and with the averaged weights. The base class takes their means
        over all batches and processes in float64. Nothing by default: callbacks sample and measure.
        """
        return {}

    def validation_figures(self, means: Mapping[str, Tensor]) -> Mapping[str, float | Tensor]:
        """Return scalars by name, from the means of what `validate_batch` returned: those by default.

        Of these, `validation_keys` are logged.
        """
        return means

    def check_health(self, means: Mapping[str, float]) -> None:
        """Look at the latest means of what `train_batch` returned; raise `TrainingDiverged` where training is lost."""

    def rate_factor(self, index: int) -> float:
        """Return the factor on the learning rate of an optimizer, now: that of the recipe's schedule."""
        return self.recipe.rate_factor(self.progress)

    # -- training

    def on_train_start(self) -> None:
        """Find out how far training is, where no clock says so; refuse schedulers, which nobody would step.

        Raises:
            InputError: If the Trainer has a scheduler, or no limit for a schedule to run over.
        """
        check_no_schedulers(self.trainer.lr_scheduler_configs)
        self._started = None
        if not any(isinstance(callback, Timekeeper) for callback in self.trainer.callbacks):
            check_limits(self)
            self._started = time.monotonic() - self.train_seconds
            self.progress = trainer_progress(self.trainer) or 0.0

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Train on one batch: seeded by (seed, process, batch), counted, its scalars added to the log window."""
        self._seed_torch()
        for index, optimizer in enumerate(self.trainer.optimizers):
            factor = self.rate_factor(index)
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("base_lr", group["lr"]) * factor
        skipped_before = self.skipped_updates
        values = self.train_batch(batch)
        self.batches += 1
        self.samples_seen += length(batch) * self.world_size
        # Where a gradient overflowed nothing was learned. All processes leave the whole batch out of the log, so that
        # their windows hold the same names.
        if self.skipped_updates == skipped_before:
            self._window.add(values)
        if self._started is not None:
            self.train_seconds = time.monotonic() - self._started
            self.progress = trainer_progress(self.trainer) or 0.0
        if self.batches % self.log_every == 0 and self._window:
            self._log_window()
            self._window.clear()
            self.check_health(self.recent)

    def on_train_end(self) -> None:
        """Log the batches of the last window, where no clock does."""
        if self._started is not None:
            self.log_unfinished_window()

    @property
    def world_size(self) -> int:
        """The number of processes; 1 without a Trainer."""
        return self.trainer.world_size if self._trainer else 1

    @property
    def samples_per_second(self) -> float:
        """Over all of training so far, validation and checkpoints included; to a tenth."""
        return round(self.samples_seen / max(self.train_seconds, 1e-9), 1)

    def _seed_torch(self) -> None:
        """Seed the generators that dropout and the like draw from: their state needs no place in a checkpoint."""
        text = f"{self.seed}/{self.global_rank}/{self.batches}"
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        # Not torch.manual_seed: without CUDA it queues a call, with its stack, that nothing ever takes up.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    # -- validation

    @property
    def validates(self) -> bool:
        """True if it computes something on held-out batches."""
        own, base = type(self), GenerativeModule
        return own.validate_batch is not base.validate_batch or own.validation_step is not base.validation_step

    def on_validation_start(self) -> None:
        """Give all processes the first one's buffers: what is measured is what is saved, BatchNorm statistics too."""
        if self.world_size > 1:
            for tensor in (*self.buffers(), *(self.ema.buffers() if self.ema else ())):
                torch.distributed.broadcast(tensor, 0)

    def on_validation_epoch_start(self) -> None:
        """Start the sums."""
        self._validation = SampleMeans()

    @torch.no_grad()
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Add a batch to the sums, in evaluation mode and with averaged weights."""
        with self.averaged(), self.evaluating():
            self._validation.add(self.validate_batch(batch))

    def on_validation_epoch_end(self) -> None:
        """Log the figures over all processes, but those of a Trainer's sanity check."""
        if not self._validation or self.trainer.sanity_checking:
            return
        figures = self.validation_figures(self._validation.means(self.trainer.strategy.reduce))
        figures = {name: float(figures[name]) for name in self.validation_keys or figures}
        if self.trainer.state.fn == "validate":
            self.log_dict(figures)  # `trainer.validate` returns, prints and logs them by itself
        else:
            self.log_values(figures)

    # -- logging

    def log_values(self, values: Mapping[str, float | Tensor], monitor: bool = True) -> None:
        """Write values, equal on all processes, to every logger at `samples_seen`, and (`monitor`) to the monitors."""
        scalars = {name: float(value) for name, value in values.items()}
        for logger in self.trainer.loggers:
            logger.log_metrics(scalars, step=self.samples_seen)
        if monitor:
            self.results |= scalars
            self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in scalars.items()})

    def log_unfinished_window(self) -> None:
        """Log the mean over the batches since the last entry, for the end of training.

        The window stays open: a run that is extended later logs the same whole windows as one that never stopped.
        """
        if self._window:
            self._log_window()

    def _log_window(self) -> None:
        self.recent = self._window.means(self.trainer.strategy.reduce)
        if self.scaler:
            self.recent["skipped_updates"] = float(self.skipped_updates)
        self._raise_if_not_finite(self.recent)
        logged = self.recent | learning_rates(self.trainer.optimizers, self.optimizer_names)
        self.log_values({f"train/{name}": value for name, value in logged.items()}, monitor=False)

    def _raise_if_not_finite(self, means: Mapping[str, float]) -> None:
        bad = [f"{name} is {value}" for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise TrainingDiverged(
                f"Training diverged: {', '.join(bad)} within the {self.log_every} batches before batch {self.batches}. "
                f"{AGAINST_DIVERGENCE}"
            )

    def raise_if_broken(self) -> None:
        """Raise `TrainingDiverged` if a loss since the last log entry, or a weight, is not finite.

        All processes have to call it: they raise together, since one that raises alone leaves the others waiting.
        """
        norms = torch._foreach_norm([p.detach() for p in self.parameters()])
        sums = self._window.totals | {"the norm of the weights": whole(torch.stack(norms).sum())}
        over_all = self.trainer.strategy.reduce(torch.stack(list(sums.values())), reduce_op="sum").tolist()
        self._raise_if_not_finite(dict(zip(sums, over_all, strict=True)))

    # -- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save counters and averages, next to Lightning's loop state, from which a plain Trainer resumes."""
        checkpoint[CHECKPOINT_KEY] = {
            "model": self.config,
            "spec": self.spec.to_dict(),
            "counters": {name: getattr(self, name) for name in _COUNTERS},
            "window": self._window.state_dict(self.of_all),
            "recent": dict(self.recent),
            "results": dict(self.results),
            "ema": self.ema.state_dict() if self.ema else None,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` saved."""
        state = checkpoint[CHECKPOINT_KEY]
        for name, value in state["counters"].items():
            setattr(self, name, value)
        self._window.load_state_dict(state["window"], self.global_rank, self.world_size, self.device)
        self.recent, self.results = dict(state["recent"]), dict(state["results"])
        if self.ema and state["ema"]:
            self.ema.load_state_dict(state["ema"])

    @classmethod
    def load_from_checkpoint(
        cls, checkpoint_path: str | Path, map_location: Any = None, *, trust: Iterable[str] = (), **arguments: Any
    ) -> Self:
        """Build the module that a checkpoint is of, and restore it: weights, averaged weights and counters.

        As after training, the module has its own weights, and its averaged ones inside ``with module.averaged()``.
        Nothing in the file is executed. A model of text has no tokenizer: give it one by `begin` to read its texts.

        Args:
            checkpoint_path: The file, of `lit_aigc.train` or of Lightning's ``ModelCheckpoint``.
            map_location: The device to move it to; the CPU by default.
            trust: Packages outside of lit_aigc whose classes may be built.
            arguments: Those of the constructor, for a module that was not built from a config.

        Raises:
            InputError: If the file can't be read, is of another class, or names a class that is not trusted.
        """
        checkpoint = read_checkpoint(checkpoint_path)
        module = cls(**arguments) if arguments else module_of(checkpoint, checkpoint_path, cls, trust)
        check_fits(checkpoint, module, checkpoint_path)
        module.load_state_dict(checkpoint["state_dict"])
        module.on_load_checkpoint(checkpoint)
        return module.to(map_location or "cpu")

    def of_all(self, own: Tensor) -> Tensor:
        """Return a tensor of every process, stacked along a new first dimension; of a single process as it is."""
        return self.all_gather(own) if self.world_size > 1 else own


_COUNTERS = (
    "batches", "samples_seen", "generator_updates", "skipped_updates", "progress", "train_seconds", "validations",
)  # fmt: skip
