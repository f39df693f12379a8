"""Processor seconds that each tokenizer takes to train on, encode and decode 1 MB of text; medians of several rounds.

    python benchmarks/tokenizer_speed.py FILE [rounds]

The text is the first million characters of the file, repeated if it is shorter.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lit_aigc.tokenization.tokenizers import BytePairTokenizer, ByteTokenizer, CharacterTokenizer, WordTokenizer


def seconds(function: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main(file: str, rounds: str = "5") -> None:
    text = Path(file).read_text(encoding="utf-8")
    text = (text * (1_000_000 // len(text) + 1))[:1_000_000]
    WordTokenizer().encode("")  # imports torch
    print(f"{'tokenizer':10} {'ids':>7} {'tokens':>9} {'train':>8} {'encode':>8} {'decode':>8}  processor seconds")
    for tokenizer in (CharacterTokenizer(), ByteTokenizer(), WordTokenizer(), BytePairTokenizer(4096)):
        trained = seconds(lambda tokenizer=tokenizer: tokenizer.train([text]), 1)
        encoded = seconds(lambda tokenizer=tokenizer: tokenizer.encode(text), int(rounds))
        ids = tokenizer.encode(text)
        decoded = seconds(lambda tokenizer=tokenizer, ids=ids: tokenizer.decode(ids), int(rounds))
        sizes = f"{tokenizer.name:10} {tokenizer.vocab_size:7,} {len(ids):9,}"
        print(f"{sizes} {trained:8.3f} {encoded:8.4f} {decoded:8.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
