"""An n-gram language model: interpolated Kneser-Ney with modified discounts (Chen and Goodman, 1999)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from lit_aigc.errors import InputError

BOUNDARY = 0
Gram = tuple[int, ...]


class KneserNey:
    """Probabilities of the next token given the tokens before it in the same sentence.

    The longest n-grams, and those that begin a sentence, count how often they occur; other shorter ones count how many
    different tokens they follow. A context that training never saw falls back to the next shorter one, and the empty
    one is interpolated with the uniform distribution. The probabilities of all `vocab_size` ids sum to one.

    Args:
        order: Length of the longest n-grams.
        vocab_size: Number of ids; 0 is the end of a sentence, and in a context the beginning.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(self, order: int = 5, vocab_size: int = 2) -> None:
        if order < 1 or vocab_size < 2:
            raise InputError(f"order={order}, vocab_size={vocab_size}: expected an order of 1 and 2 ids, or more.")
        self.order, self.vocab_size = order, vocab_size
        self.counts: list[Counter[Gram]] = []
        self.discounts: list[tuple[float, float, float]] = []
        self._contexts: list[dict[Gram, tuple[int, float]]] = []  # by order: total count, share of shorter contexts

    def fit(self, sentences: Iterable[Sequence[int]]) -> KneserNey:
        """Count n-grams of sentences: ids without any boundary, each from 1 to ``vocab_size - 1``.

        Raises:
            InputError: If there is no sentence, or an id is outside the vocabulary.
        """
        occurrences: list[Counter[Gram]] = [Counter() for _ in range(self.order)]
        number = 0
        for sentence in sentences:
            number += 1
            ids = (BOUNDARY, *map(int, sentence), BOUNDARY)
            for n, counter in enumerate(occurrences, start=1):
                counter.update(ids[start : start + n] for start in range(len(ids) - n + 1))
        if not number:
            raise InputError("A Kneser-Ney model needs sentences to count, and there are none.")
        (low,), (high,) = min(occurrences[0]), max(occurrences[0])
        if low < 0 or high >= self.vocab_size or occurrences[0][(BOUNDARY,)] != 2 * number:
            raise InputError(
                f"The sentences have ids from {low} to {high}: expected 1 to {self.vocab_size - 1}, and no 0."
            )
        occurrences[0][(BOUNDARY,)] = number  # the ends; beginnings are never predicted
        self.counts = [_adjusted(*pair) for pair in pairwise(occurrences)] + occurrences[-1:]
        self.discounts = [_discounts(counts.values()) for counts in self.counts]
        self._contexts = [self._statistics(*level) for level in zip(self.counts, self.discounts, strict=True)]
        return self

    def probability(self, token: int, context: Sequence[int]) -> float:
        """Return the probability of a token, given a context that begins with 0 if the sentence begins there."""
        found = 1 / self.vocab_size
        for n in range(1, min(self.order, len(context) + 1) + 1):
            before = tuple(context[len(context) - n + 1 :])
            statistics = self._contexts[n - 1].get(before)
            if statistics is None:
                break  # longer contexts are unseen too
            total, rest = statistics
            count = self.counts[n - 1].get((*before, token), 0)
            discount = self.discounts[n - 1][min(count, 3) - 1] if count else 0.0
            found = (count - discount) / total + rest * found
        return found

    def nats(self, sentences: Iterable[Sequence[int]]) -> tuple[float, int]:
        """Return minus the log-probability of sentences and their ends, and the number of tokens, including ends."""
        total, tokens = 0.0, 0
        for sentence in sentences:
            ids = (BOUNDARY, *map(int, sentence), BOUNDARY)
            for at in range(1, len(ids)):
                total -= math.log(self.probability(ids[at], ids[max(at - self.order + 1, 0) : at]))
            tokens += len(ids) - 1
        return total, tokens

    def perplexity(self, sentences: Iterable[Sequence[int]]) -> float:
        """Return the perplexity per token of sentences, including their ends."""
        total, tokens = self.nats(sentences)
        return math.exp(total / tokens)

    @staticmethod
    def _statistics(counts: Counter[Gram], discounts: Sequence[float]) -> dict[Gram, tuple[int, float]]:
        totals: Counter[Gram] = Counter()
        taken: dict[Gram, float] = {}
        for gram, count in counts.items():
            if count:
                before = gram[:-1]
                totals[before] += count
                taken[before] = taken.get(before, 0.0) + discounts[min(count, 3) - 1]
        return {before: (total, taken[before] / total) for before, total in totals.items()}


def _adjusted(grams: Counter[Gram], longer: Counter[Gram]) -> Counter[Gram]:
    """Count how many different tokens each n-gram follows, or how often it occurs if it begins a sentence."""
    found: Counter[Gram] = Counter(gram[1:] for gram in longer)
    for gram, count in grams.items():
        if len(gram) > 1 and gram[0] == BOUNDARY:
            found[gram] = count
    return found


def _discounts(counts: Iterable[int]) -> tuple[float, float, float]:
    """Return the discounts of a count of 1, of 2, and of 3 or more (Chen and Goodman, 1999, equation 26).

    If there are too few n-grams for this formula, they are 0.5, 1 and 1.5.
    """
    n = Counter(counts)
    if all(n[k] for k in (1, 2, 3, 4)):
        y = n[1] / (n[1] + 2 * n[2])
        found = tuple(k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3))
        if all(0 <= discount <= k for k, discount in enumerate(found, start=1)):
            return found
    return 0.5, 1.0, 1.5
