"""An interpolated Kneser-Ney 5-gram on Multi30k's English: the baseline perplexity for our language models.

    LIT_AIGC_DATA=DATA python benchmarks/word_baseline.py [--json OUT] [--order 5]

It counts n-grams of the training captions and is evaluated on the validation captions, with words of our
`WordTokenizer`: those that occur at least twice in training, <unk> for all others, and the end of each caption.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from pathlib import Path

from kneser_ney import KneserNey

from lit_aigc.tokenization.tokenizers import WordTokenizer


def captions(root: Path, split: str) -> list[str]:
    with gzip.open(root / "multi30k" / f"{split}.en.gz", "rt", encoding="utf-8") as file:
        return [line for line in map(str.strip, file) if line]


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments.add_argument("--order", type=int, default=5)
    options = arguments.parse_args()

    root = Path(os.environ["LIT_AIGC_DATA"])
    train, val = captions(root, "train"), captions(root, "val")
    tokenizer = WordTokenizer(minimum_frequency=2, lower=True)
    tokenizer.train(train)
    started = time.perf_counter()
    model = KneserNey(options.order, tokenizer.vocab_size).fit(map(tokenizer.encode, train))
    perplexity = model.perplexity(map(tokenizer.encode, val))
    numbers = {
        "perplexity": perplexity,
        "order": options.order,
        "vocab_size": tokenizer.vocab_size,
        "train_sentences": len(train),
        "val_sentences": len(val),
        "val_words": sum(len(tokenizer.encode(caption)) + 1 for caption in val),
        "seconds": time.perf_counter() - started,
    }
    for name, value in numbers.items():
        print(f"{name:<16}{value:>12.3f}" if isinstance(value, float) else f"{name:<16}{value:>12,}")
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
