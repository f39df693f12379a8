"""What every training objective shares: counting, optimizer steps, logging, checkpoints, and the one way to sample."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import lightning as L
import torch
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn

from lit_aigc.errors import InputError
from lit_aigc.machine.precision import full_precision
from lit_aigc.noise import Noise
from lit_aigc.optimization.ema import EMA
from lit_aigc.optimization.optimizers import learning_rates, schedule
from lit_aigc.spec import Batch, Condition, DataSpec
from lit_aigc.tokenization.tokenizers import Tokenizer

SAMPLING_BLOCK = 64
CHECKPOINT_KEY = "lit_aigc"


class TrainingDiverged(RuntimeError):
    """Training can't go on: says what was seen. The last good checkpoint stays."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a module is optimized, whatever its objective.

    Attributes:
        schedule: Learning-rate schedule over the budget: ``constant``, ``linear`` or ``cosine``.
        warmup: Share of the budget over which the learning rate rises from 0.
        final: Factor on the learning rate at the end of the schedule.
        clip_norm: Largest gradient norm of one network, or None.
        accumulate: Number of parts that each process's batch is split into, to save memory: without BatchNorm the
            result is that of the whole batch.
        ema_decay: Decay of the averaged weights, 0 for none.
        ema_start: Updates before the average starts.
        ema_every: Updates between two moves of the average.
        compile: Compile the networks with `torch.compile`, transformers block by block; worth its minute on long runs
            and GPUs. Recurrent networks refuse it.
        channels_last: Store convolution weights and images with channels last, the faster layout on CPUs and GPUs.
    """

    schedule: str = "constant"
    warmup: float = 0.0
    final: float = 0.0
    clip_norm: float | None = None
    accumulate: int = 1
    ema_decay: float = 0.999
    ema_start: int = 0
    ema_every: int = 1
    compile: bool = False
    channels_last: bool = True

    def __post_init__(self) -> None:
        schedule(self.schedule, 0.5)
        wrong = [
            f"recipe.{name}={getattr(self, name)}: expected {expected}"
            for name, expected, fine in (
                ("warmup", "a share in [0, 1)", 0 <= self.warmup < 1),
                ("clip_norm", "a positive number or null", self.clip_norm is None or self.clip_norm > 0),
                ("accumulate", "at least 1", self.accumulate >= 1),
                ("ema_decay", "a number in [0, 1)", 0 <= self.ema_decay < 1),
                ("ema_every", "at least 1", self.ema_every >= 1),
            )
            if not fine
        ]
        if wrong:
            raise InputError("\n".join(wrong))


class GenerativeModule(L.LightningModule):
    """A generative model and its training objective, under manual optimization.

    A subclass implements `train_batch`, `sample_block` and `configure_optimizers`. Manual optimization takes clipping,
    accumulation and schedules away from the Trainer; `update` gives them back.

    Args:
        spec: The facts of the data.
        conditional: Whether samples are asked for by class label.
        recipe: How to optimize.

    Attributes:
        of_text: Whether it is a model of text, which reads tokens; None: of either.
        trains_all_at_once: Whether each backward pass reaches all parameters, so that DDP needs to look for none.
        seed: Seed of all randomness of training; set before the fit.
        tokenizer: Of a model of text, what its ids mean; set before the fit and by `load_bundle`, else None.
        config: The resolved config that it was built from, which goes into checkpoints; set before the fit.
        batches: Training batches done.
        samples_seen: Samples seen, over all processes; the x-axis of every log.
        generator_updates: Updates of the network that generates.
        skipped_updates: Updates that half precision skipped because a gradient overflowed; the scale is halved then.
        progress: Share of the budget that is used, in [0, 1].
        train_seconds: Seconds from the first to the last batch, validation in between included.
        validations: Validations done.
        log_every: Batches between two log entries; each is the mean over the batches since the last.
        recent: The latest such means.
        results: The latest value of everything logged for monitors: what ``summary.json`` tells.
        optimizer_names: What the log calls each of `configure_optimizers`; see `learning_rates`.
    """

    of_text: ClassVar[bool | None] = None
    trains_all_at_once: ClassVar[bool] = False
    optimizer_names: tuple[str, ...] = ("",)

    @property
    def validation_keys(self) -> tuple[str, ...]:
        """What validation logs for monitors, of one that computes a held-out loss; known once `trainer` is there."""
        return ()

    def __init__(self, spec: DataSpec, conditional: bool = False, recipe: Recipe | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.spec = spec
        self.conditional = conditional
        self.recipe = recipe or Recipe()
        self.seed = 0
        self.tokenizer: Tokenizer | None = None
        self.config: dict[str, Any] = {}
        self.log_every = 50
        self.batches = 0
        self.samples_seen = 0
        self.generator_updates = 0
        self.skipped_updates = 0
        self.progress = 0.0
        self.train_seconds = 0.0
        self.validations = 0
        self.recent: dict[str, float] = {}
        self.results: dict[str, float] = {}
        self.ema: EMA | None = None
        self._window: dict[str, tuple[Tensor, int]] = {}
        self._last_was_skipped = False

    def average(self, network: nn.Module) -> None:
        """Keep averaged weights of a network, as the recipe says; for a subclass's constructor."""
        if self.recipe.ema_decay:
            self.ema = EMA(network, self.recipe.ema_decay, self.recipe.ema_start, self.recipe.ema_every)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move its other tensors with the module: Lightning moves a module after it has restored them."""
        super()._apply(fn, recurse)
        if self.ema:
            self.ema.convert(fn)
        self._window = {name: (fn(total), count) for name, (total, count) in self._window.items()}
        return self

    def compile_parts(self, *parts: nn.Module) -> None:
        """Compile networks or parts of them in place, if the recipe says so; for a subclass's constructor."""
        if self.recipe.compile:
            for part in parts:
                part.compile()

    # -- what a subclass implements

    def train_batch(self, batch: Any) -> Mapping[str, Tensor]:
        """Train on one batch with `update`, and return scalars to log, by name."""
        raise NotImplementedError

    def sample_block(self, n: int, condition: Condition, noise: Noise, **options: Any) -> Tensor:
        """Draw n samples; each may depend on its own noise and condition only."""
        raise InputError(f"{type(self).__name__} does not generate: there is nothing to sample.")

    def check_health(self, means: Mapping[str, float]) -> None:
        """Look at the latest means of what `train_batch` returned; raise `TrainingDiverged` where training is lost."""

    # -- training

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One batch: seeded by (seed, process, batch), counted, its scalars added to the log window."""
        self._seed_torch()
        factor = schedule(self.recipe.schedule, self.progress, self.recipe.warmup, self.recipe.final)
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("base_lr", group["lr"]) * factor
        skipped_before = self.skipped_updates
        values = self.train_batch(batch)
        self.batches += 1
        self.samples_seen += _length(batch) * self.trainer.world_size
        # Where a gradient overflowed nothing was learned. All processes leave the whole batch out of the log, so that
        # their windows hold the same names.
        for name, value in values.items() if self.skipped_updates == skipped_before else ():
            total, count = self._window.get(name, (0.0, 0))
            self._window[name] = (total + value.detach().float(), count + 1)
        if self.batches % self.log_every == 0:
            self._flush_window()

    @property
    def samples_per_second(self) -> float:
        """Over all of training so far, validation and checkpoints included; to a tenth."""
        return round(self.samples_seen / max(self.train_seconds, 1e-9), 1)

    @property
    def log_is_due(self) -> bool:
        """Whether this batch is the last of a log window: the time for figures that cost something."""
        return (self.batches + 1) % self.log_every == 0

    def update(
        self,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        batch: Any,
        loss: Callable[[Any], tuple[Tensor, dict[str, Tensor]]],
        name: str = "",
    ) -> dict[str, Tensor]:
        """One step on a batch.

        Args:
            optimizer: One of ``self.optimizers()``, or several of them; all their parameters' gradients are reset.
            batch: The batch, split in ``recipe.accumulate`` parts.
            loss: From a part to its mean loss and scalars to log.
            name: Of the network, for the log.

        Returns:
            The scalars, averaged over the parts; once a log window also ``grad_norm``, before clipping.
        """
        optimizers = list(optimizer) if isinstance(optimizer, Sequence) else [optimizer]
        parts = split_batch(batch, self.recipe.accumulate)
        for optimizer in optimizers:
            optimizer.zero_grad()
        values: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            share = _length(part) / _length(batch)
            with self._gradients_stay_local(index < len(parts) - 1):
                value, scalars = loss(part)
                self.manual_backward(value * share if share < 1 else value)
            for key, scalar in scalars.items():
                values[key] = values.get(key, 0.0) + scalar.detach() * share
        scaler = self.scaler
        if scaler:
            optimizers = [getattr(optimizer, "optimizer", optimizer) for optimizer in optimizers]
            for optimizer in optimizers:
                scaler.unscale_(optimizer)  # what is clipped and logged is the gradient, not a multiple of it
        if self.log_is_due or self.recipe.clip_norm is not None:
            groups = [group for optimizer in optimizers for group in optimizer.param_groups]
            parameters = [p for group in groups for p in group["params"] if p.grad is not None]
            norm = nn.utils.get_total_norm([p.grad for p in parameters])
            if hasattr(norm, "full_tensor"):  # of gradients that are split among processes
                norm = norm.full_tensor()
            if self.recipe.clip_norm is not None:
                nn.utils.clip_grads_with_norm_(parameters, self.recipe.clip_norm, norm)
            if self.log_is_due:
                values[f"{name}_grad_norm" if name else "grad_norm"] = norm
        for optimizer in optimizers:
            if scaler:
                scaler.step(optimizer)
            else:
                optimizer.step()
        if scaler:
            self._update_scale(scaler)
        return values

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """What scales the loss of half precision, or None. Its decisions are equal on all processes."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    @property
    def loss_scale(self) -> Tensor | float:
        """By what half precision multiplies a loss: for gradients that are part of one; 1 elsewhere."""
        return self.scaler.scale(torch.ones((), device=self.device)) if self.scaler else 1.0

    def count_generator_update(self) -> None:
        """Count the update just made as one of the network that generates, and move its average.

        An update that half precision skipped counts for neither.
        """
        if self._last_was_skipped:
            return
        self.generator_updates += 1
        if self.ema:
            self.ema.update()

    def _update_scale(self, scaler: torch.amp.GradScaler) -> None:
        before = scaler.get_scale()
        scaler.update()
        scale = scaler.get_scale()
        self._last_was_skipped = scale < before
        self.skipped_updates += self._last_was_skipped
        if scale < _LEAST_SCALE:
            raise TrainingDiverged(
                f"Training diverged: gradients are not finite at any scale (half precision has skipped "
                f"{self.skipped_updates} updates, the last in batch {self.batches + 1}). {_AGAINST_DIVERGENCE}"
            )

    def on_validation_start(self) -> None:
        """All processes take the first one's buffers: what is measured is what is saved, BatchNorm statistics too."""
        if self.trainer.world_size > 1:
            for tensor in (*self.buffers(), *(self.ema.buffers() if self.ema else ())):
                torch.distributed.broadcast(tensor, 0)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing by default: callbacks sample and measure; a subclass with a held-out loss computes it here."""

    # -- logging

    def log_values(self, values: Mapping[str, float | Tensor], monitor: bool = True) -> None:
        """Write values, equal on all processes, to every logger at `samples_seen`, and (`monitor`) to the monitors."""
        scalars = {name: float(value) for name, value in values.items()}
        for logger in self.trainer.loggers:
            logger.log_metrics(scalars, step=self.samples_seen)
        if monitor:
            self.results |= scalars
            self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in scalars.items()})

    def _seed_torch(self) -> None:
        """Seed the generators that dropout and the like draw from: their state needs no place in a checkpoint."""
        text = f"{self.seed}/{self.global_rank}/{self.batches}"
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        # Not torch.manual_seed: without CUDA it queues a call, with its stack, that nothing ever takes up.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def log_unfinished_window(self) -> None:
        """Log the mean over the batches since the last entry, for the end of training.

        The window stays open: a run that is extended later logs the same whole windows as one that never stopped.
        """
        if self._window:
            self._log_window()

    def _flush_window(self) -> None:
        if not self._window:  # half precision skipped an update in each of its batches
            return
        self._log_window()
        self._window = {}
        self.check_health(self.recent)

    def _log_window(self) -> None:
        names = list(self._window)
        means = torch.stack([torch.as_tensor(total / count) for total, count in self._window.values()])
        means = self.trainer.strategy.reduce(means, reduce_op="mean").tolist()
        self.recent = dict(zip(names, means, strict=True))
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
                f"{_AGAINST_DIVERGENCE}"
            )

    def raise_if_broken(self) -> None:
        """Raise `TrainingDiverged` if a loss since the last log entry, or a weight, is not finite.

        All processes have to call it: they raise together, since one that raises alone leaves the others waiting.
        """
        norms = torch._foreach_norm([p.detach() for p in self.parameters()])
        sums = {name: total for name, (total, _) in self._window.items()}
        norm = torch.stack(norms).sum()
        sums["the norm of the weights"] = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        over_all = self.trainer.strategy.reduce(torch.stack(list(sums.values())), reduce_op="sum").tolist()
        self._raise_if_not_finite(dict(zip(sums, over_all, strict=True)))

    # -- sampling

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the module has its averaged weights, if it keeps any."""
        with self.ema.applied() if self.ema else contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, the module is in evaluation mode and full precision; after, each part is in its own mode again."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            with full_precision(self.device):
                yield
        finally:
            for module, mode in modes:
                module.training = mode

    @torch.no_grad()
    def sample(self, n: int, *, condition: Condition | None = None, noise: Noise, **options: Any) -> Tensor:
        """Draw samples in evaluation mode and full precision.

        Args:
            n: Number of samples.
            condition: One entry a sample. None for a conditional model: item i has label ``i % num_classes``.
            noise: Sample j is item ``noise.start + j`` of this stream, in blocks of 64 on that index: on one machine
                it is the same to the bit whatever n and start are.
            options: Options of the family.

        Returns:
            For images ``(n, C, H, W)`` float32 in the spec's range, on the module's device.

        Raises:
            InputError: If the condition does not fit the model.
        """
        labels = self._labels(n, condition, noise.start)
        pieces = []
        with self.evaluating():
            for first in range(noise.start // SAMPLING_BLOCK * SAMPLING_BLOCK, noise.start + n, SAMPLING_BLOCK):
                inside = slice(max(noise.start - first, 0), min(noise.start + n - first, SAMPLING_BLOCK))
                padded = None
                if labels is not None:
                    padded = labels.new_zeros(SAMPLING_BLOCK)
                    padded[inside] = labels[first + inside.start - noise.start : first + inside.stop - noise.start]
                block = self.sample_block(SAMPLING_BLOCK, Condition(padded), Noise(noise.seed, first), **options)
                pieces.append(block[inside])
        return torch.cat(pieces)

    def labels_of(self, batch: Batch) -> Tensor | None:
        """The labels ``(N,)`` that a model is told of a batch: None for an unconditional one."""
        return batch.labels if self.conditional else None

    def _labels(self, n: int, condition: Condition | None, start: int) -> Tensor | None:
        labels = condition.labels if condition else None
        if not self.conditional:
            if labels is not None:
                raise InputError("This model is unconditional: it can't be asked for a label. Leave the label out.")
            return None
        classes = self.spec.num_classes
        if labels is None:
            return torch.arange(start, start + n, device=self.device) % classes
        if len(labels) != n or int(labels.min()) < 0 or int(labels.max()) >= classes:
            raise InputError(f"Labels must be {n} numbers from 0 to {classes - 1}, got {labels.tolist()}.")
        return labels.to(self.device)

    # -- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Our own counters and averages, next to Lightning's loop state, from which a plain Trainer resumes."""
        checkpoint[CHECKPOINT_KEY] = {
            "model": self.config,
            "spec": self.spec.to_dict(),
            "counters": {name: getattr(self, name) for name in _COUNTERS},
            "window": self._window_of_all(),
            "recent": dict(self.recent),
            "results": dict(self.results),
            "ema": self.ema.state_dict() if self.ema else None,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The inverse of `on_save_checkpoint`."""
        state = checkpoint[CHECKPOINT_KEY]
        for name, value in state["counters"].items():
            setattr(self, name, value)
        for name, (totals, count) in state["window"].items():
            own = totals[self.global_rank] if len(totals) == self.trainer.world_size else sum(totals) / len(totals)
            self._window[name] = (torch.tensor(own, device=self.device), count)
        self.recent, self.results = dict(state["recent"]), dict(state["results"])
        if self.ema and state["ema"]:
            self.ema.load_state_dict(state["ema"])

    def _window_of_all(self) -> dict[str, tuple[list[float], int]]:
        """The log window as plain numbers: of each scalar the total of every process, and the batches in it."""
        if not self._window:
            return {}
        totals = torch.stack([total for total, _ in self._window.values()])
        if self.trainer.world_size > 1:
            totals = self.all_gather(totals)
        columns = totals.view(-1, len(self._window)).T.tolist()
        return {name: (own, count) for own, (name, (_, count)) in zip(columns, self._window.items(), strict=True)}

    def _gradients_stay_local(self, local: bool) -> contextlib.AbstractContextManager[None]:
        if local and isinstance(self.trainer.strategy, ParallelStrategy):
            return self.trainer.strategy.block_backward_sync()
        return contextlib.nullcontext()


_COUNTERS = (
    "batches", "samples_seen", "generator_updates", "skipped_updates", "progress", "train_seconds", "validations",
)  # fmt: skip
_LEAST_SCALE = 1.0  # it starts at 65,536 and is halved at each overflow: below this, gradients overflow unscaled
_AGAINST_DIVERGENCE = (
    "The last good checkpoint is kept. Lower the learning rate, set model.recipe.clip_norm=1, or use "
    "trainer.precision=32-true."
)


def _length(batch: Any) -> int:
    return len(batch[0])


def split_batch(batch: Any, parts: int) -> list[Any]:
    """A batch in parts whose lengths differ by one at most; each knows where it starts in the stream."""
    if parts == 1:
        return [batch]
    edges = [math.ceil(_length(batch) * part / parts) for part in range(parts + 1)]
    return [batch.part(slice(first, last)) for first, last in itertools.pairwise(edges) if first < last]
