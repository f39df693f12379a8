"""The variety of texts: pure functions on lists of token lists.

The figures depend on the number and the length of the texts: compare only sets of the same size.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from sacrebleu.metrics.bleu import BLEU

Tokens = Sequence[str]
_WORD = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Return the words of a text, with each punctuation mark on its own, without white space; case is kept."""
    return _WORD.findall(text)


def ngrams(tokens: Tokens, n: int) -> list[tuple[str, ...]]:
    """Return all runs of n tokens, in order."""
    return list(zip(*(tokens[start:] for start in range(n)), strict=False))


def distinct(texts: Sequence[Tokens], n: int) -> float:
    """Return the share of distinct n-grams in a set of texts (Li et al., 2016), in (0, 1].

    0 if no text is as long as n.
    """
    found = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(found)) / len(found) if found else 0.0


def repetition(texts: Sequence[Tokens], n: int = 4) -> float:
    """Return the share of n-grams that repeat within a text, averaged over texts (rep-n of Su et al., 2022), in [0, 1).

    Texts shorter than n are left out; 0 if all are.
    """
    found = [ngrams(text, n) for text in texts]
    shares = [1 - len(set(grams)) / len(grams) for grams in found if grams]
    return sum(shares) / len(shares) if shares else 0.0


def self_bleu(texts: Sequence[Tokens], order: int = 4) -> float:
    """Return the mean BLEU of each text with all others as its references (Zhu et al., 2018), in [0, 100].

    Sentence BLEU of sacrebleu: smoothing ``exp``, effective order. 100 if all texts are equal; 0 for fewer than two.
    """
    texts = [text for text in texts if text]
    if len(texts) < 2:
        return 0.0
    counts = [[Counter(ngrams(text, n)) for n in range(1, order + 1)] for text in texts]
    most = [_two_largest([text[n] for text in counts]) for n in range(order)]
    lengths = Counter(map(len, texts))
    total = 0.0
    for text, own in zip(texts, counts, strict=True):
        correct = [
            # the largest count of the others: the second largest if the largest is this text's own
            sum(min(count, others[gram][count == others[gram][0]]) for gram, count in grams.items())
            for grams, others in zip(own, most, strict=True)
        ]
        sizes = [max(len(text) - n, 0) for n in range(order)]
        closest = min((abs(x - len(text)), x) for x in lengths if x != len(text) or lengths[x] > 1)[1]
        options = {"smooth_method": "exp", "effective_order": True, "max_ngram_order": order}
        total += BLEU.compute_bleu(correct, sizes, len(text), closest, **options).score
    return total / len(texts)


def _two_largest(counts: Sequence[Counter]) -> dict[tuple[str, ...], tuple[int, int]]:
    """Return the largest and the second largest count in a text of each n-gram."""
    found: dict[tuple[str, ...], tuple[int, int]] = {}
    for text in counts:
        for gram, count in text.items():
            first, second = found.get(gram, (0, 0))
            found[gram] = (count, first) if count > first else (first, max(second, count))
    return found


def first_words(text: str, number: int) -> str:
    """Return the beginning of a text up to the end of this many of its `words`, or all of it."""
    if number == 0:
        return ""
    last = next(islice(_WORD.finditer(text), number - 1, None), None)
    return text if last is None else text[: last.end()]
