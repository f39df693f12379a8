"""Language models: the next token, by a transformer or a recurrent network; and prompts to continue."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from lit_aigc.errors import InputError
from lit_aigc.losses.language import likelihood_figures, likelihood_sums, token_nats
from lit_aigc.modules.base import GenerativeModule, Recipe
from lit_aigc.modules.updates import split_batch
from lit_aigc.networks.lstm import State
from lit_aigc.networks.transformer import Block
from lit_aigc.noise import Noise
from lit_aigc.optimization.optimizers import hidden_matrices
from lit_aigc.optimization.optimizers import optimizer as make_optimizer
from lit_aigc.sampling.decoding import generate, stream
from lit_aigc.sampling.tokens import Decoding
from lit_aigc.spec import Condition, DataSpec, TextBatch, Texts
from lit_aigc.tokenization.tokenizers import Tokenizer

_SHOWN = 60  # characters of a prompt in a message


class LanguageModel(GenerativeModule):
    """Cross-entropy of the next token; logs ``nats_per_token`` and the like of held-out text at each validation.

    Args:
        network: ``network(ids, cache=None, lengths=None) -> logits (N, T, V)``, such as
            `lit_aigc.networks.transformer.Transformer` or `lit_aigc.networks.lstm.Recurrent`.
        spec: The facts of the data.
        optimizer: Name and options of an optimizer of `torch.optim`; weight decay spares biases and normalization.
        matrix_optimizer: Of another one for the weights of the hidden linear layers, such as Muon; None: the same.
        batch_ramp: In how many updates each batch is taken from which share of the budget on, such as
            ``[[0.0, 4], [0.2, 2], [0.5, 1]]`` for batches that grow; empty: one update per batch.
        start_from_frequencies: Whether a new network's output bias starts as the log of each token's share of the
            training text instead of 0, so that embeddings of rare words need not encode how rare they are.
        recipe: Schedule, clipping, accumulation, averaged weights.

    Raises:
        InputError: If the data is not text, or an option is out of range.
    """

    of_tokens = True
    translates = False  # whether the text replaces its prompt instead of following it
    label_smoothing = 0.0
    trains_all_at_once = True
    optimizer_names = ("", "matrix")

    def __init__(
        self,
        network: nn.Module,
        spec: DataSpec,
        optimizer: Mapping[str, Any] | None = None,
        matrix_optimizer: Mapping[str, Any] | None = None,
        batch_ramp: Sequence[Sequence[float]] = (),
        start_from_frequencies: bool = False,
        recipe: Recipe | None = None,
    ) -> None:
        super().__init__(spec, recipe=recipe)
        if not spec.vocab_size:
            raise InputError(
                f"A language model needs tokens, and the data set {spec.name or 'given'} has no vocabulary."
            )
        self.network = network
        self._starts_from_frequencies = start_from_frequencies
        if start_from_frequencies and network.head.bias is None:
            raise InputError("model.start_from_frequencies needs an output with a bias: model.network.head_bias=true.")
        self._optimizer_configs = optimizer, matrix_optimizer
        self._ramp = _checked_ramp(batch_ramp)
        self._state: Any = None  # of a recurrent network, at the end of the rows of the last training batch
        self._validation_state: Any = None
        self._sizes: tuple[Tokenizer | None, Tensor] | None = None
        blocks = [part for part in network.modules() if isinstance(part, Block)]
        if self.recipe.compile and not blocks:
            raise InputError(
                f"model.recipe.compile=true compiles the blocks of a transformer (model=gpt, model=seq2seq), and "
                f"{type(network).__name__} has none: set model.recipe.compile=false."
            )
        self.prepare(self.network, compiled=blocks)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return one optimizer, or two: of the rest, and of the hidden matrices."""
        config, matrix_config = self._optimizer_configs
        matrices = hidden_matrices(self.network, self.spec.vocab_size) if matrix_config else []
        apart = {id(weight) for weight in matrices}
        rest = [p for p in self.network.parameters() if id(p) not in apart]
        made = make_optimizer(config, rest, decays_vectors=False)
        return [made, make_optimizer(matrix_config, matrices)] if matrices else [made]

    # -- training

    def setup(self, stage: str) -> None:
        """Start from the frequencies of the tokens where that is asked for, while a strategy has the weights whole.

        A bias that has learned something stays. That of a checkpoint is loaded later.

        Raises:
            InputError: If the data's spec doesn't count tokens.
        """
        resumes = self.trainer.ckpt_path is not None
        if stage != "fit" or not self._starts_from_frequencies or resumes or self.network.head.bias.any():
            return
        if self.spec.token_counts is None:
            raise InputError("model.start_from_frequencies needs data whose spec has token_counts.")
        counts = torch.from_numpy(self.spec.token_counts())
        self.network.head.bias.data.copy_(torch.log((counts + 0.5) / (int(counts.sum()) + 0.5 * len(counts))))

    def train_batch(self, batch: TextBatch) -> Mapping[str, Tensor]:
        """Make one or (see `batch_ramp`) several steps on the mean nats of the targets that count."""
        updates = next((number for share, number in reversed(self._ramp) if self.progress >= share), 1)
        if batch.carried and self.network.context:
            raise InputError("data.batching=carried needs a recurrent network, whose state carries over.")
        if len(batch.ids) < (most := max((number for _, number in self._ramp), default=1)):
            raise InputError(
                f"model.batch_ramp takes a batch in {most} updates, and each process has {len(batch.ids)} rows of it: "
                "take fewer updates, or a larger data.batch_size."
            )
        # Each part takes its rows of the state from the batch before, and adds those for the next.
        before, self._state = self._state if batch.carried else None, None
        parts = split_batch(batch, updates)
        per_row = [self._targets_per_row(part) for part in parts]
        targets = sum(number * len(part.ids) for part, number in zip(parts, per_row, strict=True))
        # What is logged is the mean over all targets, however unequal the parts.
        values: dict[str, Tensor] = {}
        for part, number in zip(parts, per_row, strict=True):
            loss = functools.partial(self._loss, before=before, first=batch.start, share=number)
            share = number * len(part.ids) / targets
            for name, value in self.update(self.optimizers(), part, loss).items():
                values[name] = values.get(name, 0.0) + value * share
        return values

    def _targets_per_row(self, batch: TextBatch) -> Tensor | float:
        """Return the mean over the rows of all processes, by which the loss is divided: all targets weigh the same."""
        if batch.mask is None:
            return batch.ids.shape[1] - 1
        count = batch.mask.sum().float()
        return self.trainer.strategy.reduce(count, reduce_op="mean") / len(batch.ids)

    def _loss(
        self, batch: TextBatch, before: State | None, first: int, share: Tensor | float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if before is not None:
            before = before.select(torch.arange(len(batch.ids), device=self.device) + batch.start - first)
        nats, state = self.score(batch, before, self.label_smoothing)  # (N, T)
        if state is not None:
            self._state = state.detach() if self._state is None else self._state.join(state.detach())
        if batch.mask is not None:
            nats = nats * batch.mask
        loss = nats.sum() / (share * len(batch.ids))
        return loss, {"loss": loss}

    # -- validation

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """See `GenerativeModule.evaluating`; nothing is compiled inside, since a text being written keeps growing."""
        eager = torch.compiler.set_stance("force_eager") if self.recipe.compile else contextlib.nullcontext()
        with super().evaluating(), eager:
            yield

    def on_validation_epoch_start(self) -> None:
        """Start the sums, and the text."""
        super().on_validation_epoch_start()
        self._validation_state = None

    def validate_batch(self, batch: TextBatch) -> Mapping[str, Tensor]:
        """Return one row ``(1, 4)`` of sums per batch: what is logged are ratios of them."""
        nats, self._validation_state = self.score(batch, self._validation_state)
        return {"sums": likelihood_sums(nats, batch.ids[:, 1:], self._token_sizes(), batch.mask)[None]}

    def validation_figures(self, means: Mapping[str, Tensor]) -> Mapping[str, float]:
        """Return the nats and bits per unit of text, and the perplexity."""
        return self._figures(*means["sums"].tolist())

    @property
    def validation_keys(self) -> tuple[str, ...]:
        """Those of the units of text that the tokenizer knows the sizes of."""
        characters, size = self._token_sizes().sum(dim=0).tolist()
        return tuple(self._figures(1.0, 1.0, characters, size))

    def _figures(self, nats: float, tokens: float, characters: float, size: float) -> dict[str, float]:
        """Return the figures by key; a protocol that gives tokens more context than windows do is part of the key."""
        words = tokens if self.tokenizer is not None and self.tokenizer.name == "word" else 0
        suffix = f"_{self.spec.evaluation}" if self.spec.evaluation in ("strided", "carried") else ""
        return likelihood_figures(nats, tokens, characters, size, words, suffix)

    def score(self, batch: TextBatch, state: Any = None, label_smoothing: float = 0.0) -> tuple[Tensor, Any]:
        """Return the nats ``(N, T)`` of the targets of a batch, and the state at its end.

        Args:
            batch: Rows of text.
            state: Of the batch before, from which a recurrent network continues rows that are carried.
            label_smoothing: See `token_nats`; for training.
        """
        inputs, targets = batch.ids[:, :-1], batch.ids[:, 1:]
        if self.network.context:
            return token_nats(self.network(inputs), targets, label_smoothing), None
        if not batch.carried or state is None:
            state = self.network.new_cache(len(inputs))
        return token_nats(self.network(inputs, state), targets, label_smoothing), state

    def _token_sizes(self) -> Tensor:
        """See `likelihood_sums`; kept, since those of a large vocabulary take longer than a batch."""
        if self._sizes is None or self._sizes[0] is not self.tokenizer:
            known = self.tokenizer is not None and self.tokenizer.lossless
            sizes = self.tokenizer.sizes() if known else np.zeros((self.spec.vocab_size, 2), np.int64)
            self._sizes = self.tokenizer, torch.from_numpy(sizes).to(self.device)
        return self._sizes[1]

    # -- what a trained model can be asked

    def sample(self, n: int, *, condition: Condition | None = None, noise: Noise, **options: Any) -> Texts:
        """Write texts, in evaluation mode and full precision.

        Args:
            n: Number of texts.
            condition: Their prompts, which a translator takes as originals; None: texts from the start.
            noise: Text i depends on item i of it, and on its prompt, alone.
            options: Those of `lit_aigc.sampling.tokens.Decoding`.

        Returns:
            The tokens that follow each prompt, or translate it.

        Raises:
            InputError: If there are not n prompts, or an option is out of range.
        """
        prompts = condition.prompts if condition else None
        if prompts is None:
            prompts = () if self.translates else beginnings(n)
        if len(prompts) != n:
            raise InputError(f"There are {len(prompts)} prompts for {n} texts: give one per text.")
        with self.evaluating():
            return self._write(prompts, Decoding(**options), noise)

    def _write(self, prompts: Sequence[Tensor], decoding: Decoding, noise: Noise) -> Texts:
        return generate(*self._start(prompts), decoding, noise, self._decode())

    def _start(self, prompts: Sequence[Tensor]) -> tuple[Any, Sequence[Tensor]]:
        """Return the network that continues texts, and their beginnings."""
        return self.network, prompts

    def stream(self, prompt: Tensor, *, noise: Noise, **options: Any) -> Iterator[str]:
        """Yield the pieces of one text as it is written; see `sample`."""
        with self.evaluating():
            network, (start,) = self._start([prompt])
            yield from stream(network, start, Decoding(**options), noise, self._decode())

    def _decode(self) -> Any:
        return self.tokenizer.decode if self.tokenizer else None

    # -- checkpoints

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the state of carried rows too; the sizes of tokens are computed anew."""
        super()._apply(fn, recurse)
        self._sizes = None
        if self._state is not None:
            self._state = self._state.converted(fn)
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the state of carried rows too, those of all processes in order."""
        super().on_save_checkpoint(checkpoint)
        state = self._state
        checkpoint["carried"] = state and {
            "lengths": self._of_all(state.lengths, 0),
            "tail": self._of_all(state.tail, 0),
            "layers": [[self._of_all(tensor, 1) for tensor in layer] for layer in state.layers],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` saved: each process takes its rows."""
        super().on_load_checkpoint(checkpoint)
        self._state = None
        if saved := checkpoint["carried"]:
            layers = [tuple(self._own(tensor, 1) for tensor in layer) for layer in saved["layers"]]
            self._state = State(self._own(saved["lengths"], 0), self._own(saved["tail"], 0), layers)

    def _of_all(self, own: Tensor, rows: int) -> Tensor:
        return torch.cat(list(self.all_gather(own)), dim=rows) if self.world_size > 1 else own

    def _own(self, saved: Tensor, rows: int) -> Tensor:
        return saved.chunk(self.world_size, dim=rows)[self.global_rank].to(self.device)


def _checked_ramp(ramp: Sequence[Sequence[float]]) -> list[tuple[float, int]]:
    """Return the steps of a ramp, each a share of the budget and a number of updates."""
    steps = [tuple(step) for step in ramp]
    fine = all(len(step) == 2 and 0 <= step[0] < 1 and isinstance(step[1], int) and step[1] >= 1 for step in steps)
    if not fine or steps != sorted(steps):
        raise InputError(
            f"batch_ramp={list(ramp)}: expected steps such as [[0.0, 4], [0.2, 1]], each a share of the budget in "
            "[0, 1), rising, and a number of updates from 1 on."
        )
    return steps


def beginnings(n: int) -> tuple[Tensor, ...]:
    """Return n empty prompts: texts from the start."""
    return (torch.zeros(0, dtype=torch.int64),) * n


def encode_prompt(prompt: str, module: Any) -> Tensor:
    """Return the ids ``(T,)`` int64 of a prompt.

    Raises:
        InputError: If it has characters or words that were not in the training text.
    """
    if unknown := module.tokenizer.unknown(prompt):
        raise InputError(
            f"The prompt {shortened(prompt)} has what the model never saw in training: "
            f"{', '.join(map(repr, unknown))}. Leave it out, or write it differently."
        )
    return torch.tensor(module.tokenizer.encode(prompt).tolist(), dtype=torch.int64)


def start_of(prompt: str, module: Any) -> str:
    """Return the start of a text that a prompt leads to: the prompt, or nothing where the text translates it."""
    return prompt + module.tokenizer.separator if prompt and not module.translates else ""


def shortened(prompt: str) -> str:
    """Quote a prompt, cut to what fits in a message."""
    return repr(prompt if len(prompt) <= _SHOWN else f"{prompt[: _SHOWN - 1]}…")
