"""The cost of text data: CPU time per training batch, and for reading, cleaning and encoding a corpus.

    LIT_AIGC_DATA=PATH python benchmarks/text_data.py

It prints microseconds of this process per batch (32 rows of 128 targets; sentences: 32), and the seconds until the spec
is ready, without and with the cache. The cache is a temporary folder.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time

from lit_aigc.data.corpora import Multi30k, PyDocs, PythonSource, TinyShakespeare
from lit_aigc.data.text import TextData
from lit_aigc.data.text_cleaning import Cleaning
from lit_aigc.tokenization.tokenizers import BytePairTokenizer, CharacterTokenizer, WordTokenizer

CORPORA = {
    "pydocs, characters": (PyDocs, CharacterTokenizer, Cleaning()),
    "tinyshakespeare, characters": (TinyShakespeare, CharacterTokenizer, None),
    "multi30k, words": (Multi30k, WordTokenizer, None),
    "python_source, byte pairs": (PythonSource, BytePairTokenizer, Cleaning()),
}


def microseconds_per_batch(data: TextData, batches: int = 2000) -> float:
    iterator = iter(data.train_dataloader())
    for _ in itertools.islice(iterator, 200):
        pass
    begin = time.process_time()
    for _ in itertools.islice(iterator, batches):
        pass
    return (time.process_time() - begin) / batches * 1e6


def main() -> None:
    root = os.environ["LIT_AIGC_DATA"]
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        for name, (source, tokenizer, cleaning) in CORPORA.items():
            seconds = []
            for _ in range(2):
                begin = time.process_time()
                data = TextData(source(), tokenizer(), root=root, cleaning=cleaning)
                _ = data.spec
                seconds.append(time.process_time() - begin)
            print(f"{name}: {data.report['train_tokens']:,} tokens; {seconds[0]:.2f} s, cached {seconds[1]:.2f} s")
        for batching in ("crops", "reshuffled", "carried"):
            data = TextData(TinyShakespeare(), CharacterTokenizer(), root=root, batching=batching)
            print(f"{batching}: {microseconds_per_batch(data):.0f} us per batch")
        for name, source in (("sentences", Multi30k()), ("sentences with originals", Multi30k("de", "en"))):
            data = TextData(source, WordTokenizer(), root=root, batching="sentences", context=None)
            print(f"{name}: {microseconds_per_batch(data):.0f} us per batch")


if __name__ == "__main__":
    main()
