"""Text from a language model: sampled, by beam search, or streamed; many prompts at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_aigc.noise import Noise
from lit_aigc.sampling.beams import beam_search
from lit_aigc.sampling.reading import Reader
from lit_aigc.sampling.text import Decode, end_test, padded, pieces, to_strings
from lit_aigc.sampling.tokens import BOUNDARY, Decoding
from lit_aigc.spec import Texts

ROWS = 64  # sampled at the same time, which limits the memory of their caches


def generate(
    network: Any, prompts: Sequence[Tensor], options: Decoding, noise: Noise, decode: Decode | None = None
) -> Texts:
    """Continue prompts.

    Args:
        network: A language model in evaluation mode, as `lit_aigc.sampling.reading.Reader` describes it.
        prompts: n 1-D tensors of token ids without the boundary; an empty one starts a text from its beginning.
        options: How to decode.
        noise: Text i uses item i of this stream, and depends on (seed, that item, prompt i) alone.
        decode: From ids to text; needed for stop strings.

    Returns:
        The new tokens, on the CPU, without the boundary that ends a text. A text that met a stop string
        ends with the token that completed it; `to_strings` cuts it off.
    """
    texts: list[list[int]] = []
    rows = max(1, ROWS // options.beams)
    for first in range(0, len(prompts), rows):
        block = prompts[first : first + rows]
        if options.beams > 1:
            texts += beam_search(network, block, options, decode)
        else:
            sampled: list[list[int]] = [[] for _ in block]
            for alive, tokens in steps(network, block, options, noise.skip(first), decode):
                for row, token in zip(alive, tokens, strict=True):
                    sampled[row].append(token)
            texts += sampled
    return padded(texts)


def stream(network: Any, prompt: Tensor, options: Decoding, noise: Noise, decode: Decode) -> Iterator[str]:
    """Yield the text that `generate` and `to_strings` give for one prompt, in pieces, as soon as they are known.

    Beam search knows its text only at the end, and yields it in one piece.
    """
    if options.beams > 1:
        yield from to_strings(generate(network, [prompt], options, noise, decode), decode, options.stop)
        return
    tokens = itertools.chain.from_iterable(tokens for _, tokens in steps(network, [prompt], options, noise, decode))
    yield from pieces(tokens, decode, options.stop)


def steps(
    network: Any, prompts: Sequence[Tensor], options: Decoding, noise: Noise, decode: Decode | None = None
) -> Iterator[tuple[list[int], list[int]]]:
    """Sample one position after the other; yield the numbers of the texts that got a token, and the tokens."""
    ended = end_test(options.stop, decode)
    reader = Reader(network, prompts)
    starts = [len(text) for text in reader.texts]
    rows = torch.arange(len(prompts))
    for position in range(options.max_tokens):
        tokens = options.choose(reader.logits, reader.seen, noise, rows, position).cpu()
        inside = tokens != BOUNDARY
        yield rows[inside].tolist(), tokens[inside].tolist()
        if position + 1 == options.max_tokens:
            return

        # Finished texts leave the batch.
        read = zip(rows.tolist(), reader.texts, tokens.tolist(), strict=True)
        alive = torch.tensor([not ended(text[starts[row] :], token) for row, text, token in read])
        if not alive.any():
            return
        if not alive.all():
            rows, tokens = rows[alive], tokens[alive]
            reader.keep(alive.nonzero()[:, 0])
        reader.append(tokens)
