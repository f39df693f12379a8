"""Choosing the next token: filters ``logits (N, V) -> logits (N, V)``, sampling, and the options of decoding.

A filter sets the logits of excluded tokens to ``-inf``, and always keeps the best token. Tokens with equal logits are
kept or excluded together, so no filter depends on how a sort breaks ties.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from lit_aigc.errors import check, is_whole
from lit_aigc.noise import Noise

BOUNDARY = 0  # the id that stands before a text, and ends it


def with_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Subtract the maximum of logits and divide by a temperature > 0; below 1, likely tokens become likelier."""
    return (logits - logits.amax(1, keepdim=True)) / temperature


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k best tokens, and any that are as good as the k-th (Fan et al., 2018)."""
    least = logits.topk(min(k, logits.shape[1]), dim=1).values[:, -1:]
    return logits.masked_fill(logits < least, -math.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest best tokens whose probabilities sum to at least p, in (0, 1] (Holtzman et al., 2020)."""
    ordered = logits.sort(dim=1, descending=True).values
    reached = ordered.double().softmax(1).cumsum(1)
    needed = (reached < p).sum(1, keepdim=True).clamp(max=logits.shape[1] - 1)  # tokens before the one that reaches p
    return logits.masked_fill(logits < ordered.gather(1, needed), -math.inf)


def min_p(logits: Tensor, p: float) -> Tensor:
    """Keep tokens at least p times as likely as the best one; p in [0, 1) (Nguyen et al., 2024)."""
    least = logits.amax(1, keepdim=True) + (math.log(p) if p else -math.inf)
    return logits.masked_fill(logits < least, -math.inf)


def penalize_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens that already occur in a text less likely (Keskar et al., 2019, section 4.1).

    Args:
        logits: ``(N, V)``.
        seen: ``(N, V)`` bool, the tokens that occur.
        penalty: Divides positive logits and multiplies negative ones, which division would raise; 1: no penalty.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def gumbel(noise: Noise, rows: Tensor, position: int, tokens: Tensor) -> Tensor:
    """Return standard Gumbel noise of single tokens, float64 and on the device of `rows`.

    Args:
        noise: Row r uses item r of this stream.
        rows: int64 numbers of the rows.
        position: Index of the token in the text; each has independent noise.
        tokens: int64 ids, of a shape that broadcasts with that of `rows`.
    """
    bits = noise.stream(f"token {position}").bits_at(rows, tokens)
    uniform = (bits >> 12).bitwise_and_((1 << 52) - 1).double().add_(0.5).mul_(2.0**-52)  # neither 0 nor 1
    return uniform.log_().neg_().log_().neg_()


def draw(logits: Tensor, noise: Noise, rows: Tensor, position: int, filtered: bool = False) -> Tensor:
    """Sample tokens, ``(N,)`` int64, with their softmax probabilities, by the Gumbel-max trick.

    Close logits give the same token for the same noise. So a text hardly ever depends on rounding, nor on the
    size of its batch.

    Args:
        logits: ``(N, V)``.
        noise: Row r uses item r.
        rows: ``(N,)`` int64 numbers of the rows.
        position: See `gumbel`.
        filtered: Whether most logits are ``-inf``. Noise is then computed for the others only, which gives the same
            tokens faster.
    """
    device = logits.device
    if device.type == "mps":  # it has no float64
        logits = logits.cpu()
    n, width = logits.shape
    rows = rows.to(logits.device)
    if not filtered:
        all_tokens = torch.arange(width, device=logits.device)
        return gumbel(noise, rows[:, None], position, all_tokens).add_(logits).argmax(1).to(device)

    # The same over the M entries that are left: the largest score of each row, and of equal scores the first token.
    row, token = (logits != -math.inf).nonzero(as_tuple=True)  # (M,) each
    score = gumbel(noise, rows[row], position, token).add_(logits[row, token])
    best = score.new_full((n,), -math.inf).scatter_reduce_(0, row, score, "amax")
    token.masked_fill_(score != best[row], width)
    return token.new_full((n,), width).scatter_reduce_(0, row, token, "amin").to(device)


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Options of decoding.

    Attributes:
        max_tokens: Most tokens of a text, at least 1.
        temperature: Divides the logits; 0: always the best token.
        top_k: Sample from the k best tokens; None: from all.
        top_p: Sample from the fewest best tokens with this total probability, in (0, 1]; 1: from all.
        min_p: Sample from tokens at least this many times as likely as the best, in [0, 1); 0: from all.
        repetition_penalty: Above 1, tokens that occur in the prompt or the text are less likely.
        stop: A text ends before the first of these strings.
        beams: Number of candidates of a beam search for the likeliest text; 1: sample instead.
        length_penalty: Beam search ranks candidates by log-likelihood over length to this power; 0 favors short texts.

    Raises:
        InputError: If options are out of range; one line per option.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    beams: int = 1
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)
        # Infinity and NaN are no numbers here, and neither is text.
        number = {name: value if _is_number(value) else math.nan for name, value in vars(self).items()}
        right = {
            "max_tokens": (is_whole(self.max_tokens, 1), "a whole number, 1 or more"),
            "temperature": (number["temperature"] >= 0, "0 (the best token) or more"),
            "top_k": (self.top_k is None or is_whole(self.top_k, 1), "a whole number, 1 or more, or null"),
            "top_p": (0 < number["top_p"] <= 1, "a number above 0, and at most 1"),
            "min_p": (0 <= number["min_p"] < 1, "a number from 0 to below 1"),
            "repetition_penalty": (number["repetition_penalty"] > 0, "a number above 0; 1 is none"),
            "stop": (all(isinstance(text, str) and text for text in stop), "strings that are not empty"),
            "beams": (is_whole(self.beams, 1), "a whole number, 1 (no search) or more"),
            "length_penalty": (number["length_penalty"] >= 0, "0 or more"),
        }
        check(*((name, getattr(self, name), *condition) for name, condition in right.items()))
        drawing = [name for name in ("temperature", "top_k", "top_p", "min_p") if getattr(self, name) != _DEFAULT[name]]
        expected = f"1, since a search doesn't sample; or leave out {', '.join(drawing)}"
        check(("beams", self.beams, self.beams == 1 or not drawing, expected))

    @property
    def deterministic(self) -> bool:
        """Whether a prompt always gives the same text, whatever the noise."""
        return self.temperature == 0 or self.beams > 1

    @property
    def filters(self) -> bool:
        """Whether some tokens are excluded."""
        return self.top_k is not None or self.top_p < 1 or self.min_p > 0

    def penalized(self, logits: Tensor, seen: Tensor) -> Tensor:
        """Apply the repetition penalty to logits ``(N, V)``; `seen` ``(N, V)``: the tokens that occur in each text."""
        if self.repetition_penalty == 1:
            return logits
        return penalize_repetition(logits, seen, self.repetition_penalty)

    def filtered(self, logits: Tensor) -> Tensor:
        """Apply temperature (> 0), top-k, top-p and min-p, in this order, to logits ``(N, V)``."""
        logits = with_temperature(logits, self.temperature)
        if self.top_k is not None:
            logits = top_k(logits, self.top_k)
        if self.top_p < 1:
            logits = top_p(logits, self.top_p)
        return min_p(logits, self.min_p) if self.min_p else logits

    def choose(self, logits: Tensor, seen: Tensor, noise: Noise, rows: Tensor, position: int) -> Tensor:
        """Choose the next token of each row, ``(N,)`` int64.

        Args:
            logits: ``(N, V)``, the output of a network.
            seen: ``(N, V)`` bool, the tokens that occur in each text.
            noise: Row r uses item r.
            rows: ``(N,)`` int64 numbers of the rows.
            position: Number of tokens sampled before.
        """
        logits = self.penalized(logits, seen)
        if self.temperature == 0:
            return logits.argmax(1)
        return draw(self.filtered(logits), noise, rows, position, filtered=self.filters)


_DEFAULT = {field.name: field.default for field in dataclasses.fields(Decoding)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
