"""Speed of text generation with a transformer of 6 layers x 256 and random weights.

* cache: at position 512, the time of one more token with the cache of keys and values, and of reading all 512 positions
  again for it.
* batch: tokens per second of 16 texts and of one, by `lit_aigc.sampling.decoding.generate`, including sampling.
* first: from the call to the first piece of text of `lit_aigc.sampling.decoding.stream`, prompt of 32 characters.

Each figure is the median of several rounds, in which the sides alternate.

    python benchmarks/generation_speed.py [rounds]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch

from lit_aigc.machine.precision import machine_class
from lit_aigc.networks.transformer import Transformer
from lit_aigc.noise import Noise
from lit_aigc.sampling.decoding import generate, stream
from lit_aigc.sampling.reading import Reader
from lit_aigc.sampling.tokens import Decoding

VOCABULARY, CONTEXT, POSITION = 96, 1024, 512
LETTERS = "".join(map(chr, range(32, 32 + VOCABULARY)))
BATCH, TOKENS, PROMPT = 16, 128, 32


def seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def decode(ids):
    return "".join(LETTERS[i] for i in ids if i)


class Endless(Transformer):
    """Never draws the boundary, so that all texts have their full length."""

    def forward(self, ids, cache=None, lengths=None):
        logits = super().forward(ids, cache, lengths)
        logits[..., 0] = -torch.inf
        return logits


def make_network() -> Transformer:
    torch.manual_seed(0)
    network = Endless(VOCABULARY, (CONTEXT,), width=256, layers=6, heads=8).eval()
    for block in network.blocks:  # these start from nothing, which a processor may skip
        torch.nn.init.normal_(block.attention.project.weight, std=0.02)
        torch.nn.init.normal_(block.hidden.shrink.weight, std=0.02)
    return network


def cached_and_not(network: Transformer, rounds: int) -> tuple[float, float]:
    """Seconds of a token at about position 512 with the cache, and of reading everything again."""
    ids = torch.randint(1, VOCABULARY, (1, POSITION))
    reader = Reader(network, ids[:, 1:].tolist())
    token = torch.ones(1, dtype=torch.int64)
    with torch.no_grad():
        turns = [(seconds(lambda: reader.append(token)), seconds(lambda: network(ids))) for _ in range(rounds * 8)]
    return tuple(map(statistics.median, zip(*turns, strict=True)))


def one_and_many(network: Transformer, rounds: int) -> tuple[float, float]:
    """Return the tokens per second of one text, and of a batch."""
    options = Decoding(max_tokens=TOKENS, temperature=0.9, top_p=0.95)
    prompts = [torch.arange(1, 1 + PROMPT)] * BATCH

    def speed(n: int) -> float:
        start = time.perf_counter()
        written = int(generate(network, prompts[:n], options, Noise(0)).lengths.sum())
        return written / (time.perf_counter() - start)

    turns = [(speed(1), speed(BATCH)) for _ in range(rounds)]
    return tuple(map(statistics.median, zip(*turns, strict=True)))


def first_token(network: Transformer, rounds: int) -> float:
    prompt, options = torch.arange(1, 1 + PROMPT), Decoding(temperature=0.9, top_p=0.95)
    calls = range(rounds * 4)
    return statistics.median(
        seconds(lambda i=i: next(stream(network, prompt, options, Noise(i), decode))) for i in calls
    )


def main(rounds: int = 5) -> None:
    print(machine_class())
    network = make_network()
    first_token(network, 1), one_and_many(network, 1)  # warm
    with_cache, without = cached_and_not(network, rounds)
    print(f"{sum(p.numel() for p in network.parameters()):,} weights, {torch.get_num_threads()} threads")
    print(f"a token at position {POSITION}: {1e3 * with_cache:.2f} ms with the cache, {1e3 * without:.2f} ms without:")
    print(f"  1/{without / with_cache:.1f} (target 1/8)")
    one, many = one_and_many(network, rounds)
    print(f"tokens per second: {one:,.0f} of one text, {many:,.0f} of {BATCH}: {many / one:.1f}x (target 6x)")
    print(f"first token after {1e3 * first_token(network, rounds):.1f} ms (target 50 ms)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
