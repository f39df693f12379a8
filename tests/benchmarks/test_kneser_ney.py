from __future__ import annotations

import itertools
import math
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from kneser_ney import KneserNey, _discounts

from lit_aigc.errors import InputError

SIZE = 7


def corpus(sentences: int, seed: int = 0, longest: int = 9) -> list[list[int]]:
    """Sentences of a Markov chain, so that contexts tell something; id 6 is never used."""
    draw = random.Random(seed)
    found = []
    for _ in range(sentences):
        sentence = [draw.randint(1, 5)]
        while len(sentence) < draw.randint(1, longest):
            sentence.append(sentence[-1] % 5 + 1 if draw.random() < 0.6 else draw.randint(1, 5))
        found.append(sentence)
    return found


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("sentences", [1, 3, 60, 400])
def test_probabilities_sum_to_one(order, sentences):
    model = KneserNey(order, SIZE).fit(corpus(sentences))
    contexts = [(), (0,), (6,), (6, 6, 6, 6), (0, 1), (1, 2, 3, 4), (4, 3, 2, 1), (0, 1, 2, 3), (6, 1, 2), (1, 6)]
    for context in contexts:
        found = [model.probability(token, context) for token in range(SIZE)]
        assert sum(found) == pytest.approx(1, abs=1e-12)
        assert min(found) > 0


def by_definition(sentences, order, token, context, discounts):
    """The recursion of Chen and Goodman with counts taken anew from the text each time."""
    rows = [(0, *s, 0) for s in sentences]
    n = len(context) + 1

    def occurrences(size):
        return Counter(row[i : i + size] for row in rows for i in range(len(row) - size + 1))

    def count(gram):
        if n == order or (n > 1 and gram[0] == 0):
            return occurrences(n)[gram] - (len(rows) if gram == (0,) else 0)
        return sum(1 for longer in occurrences(n + 1) if longer[1:] == gram)

    lower = 1 / SIZE if n == 1 else by_definition(sentences, order, token, context[1:], discounts)
    counts = [count((*context, w)) for w in range(SIZE)]
    if not sum(counts):
        return lower
    cut = [discounts[n - 1][min(c, 3) - 1] if c else 0 for c in counts]
    return (counts[token] - cut[token]) / sum(counts) + sum(cut) / sum(counts) * lower


def test_probabilities_equal_the_definition():
    sentences = corpus(40, seed=3)
    model = KneserNey(3, SIZE).fit(sentences)
    for context in itertools.chain([(), (0,)], itertools.product(range(4), range(1, 4))):
        for token in range(SIZE):
            expected = by_definition(sentences, 3, token, context, model.discounts)
            assert model.probability(token, context) == pytest.approx(expected, abs=1e-12), (context, token)


def test_by_hand():
    """One sentence, "1 2": discounts 0.5, for so little text has none of its own."""
    model = KneserNey(2, 3).fit([[1, 2]])
    lower = 0.5 / 3 + 0.5 / 3  # each of 0, 1 and 2 follows one token
    assert model.probability(1, ()) == pytest.approx(lower)
    assert model.probability(1, (0,)) == pytest.approx(0.5 + 0.5 * lower)
    assert model.probability(2, (0,)) == pytest.approx(0.5 * lower)
    nats, tokens = model.nats([[1, 2], []])
    assert tokens == 4
    assert nats == pytest.approx(-3 * math.log(0.5 + 0.5 * lower) - math.log(0.5 * lower))
    assert model.perplexity([[1, 2], []]) == pytest.approx(math.exp(nats / 4))


def test_a_word_that_always_follows_the_same_one_is_rare_elsewhere():
    """The point of continuation counts: "francisco" (2) is frequent, but after "san" (1) alone."""
    sentences = [[3, 1, 2]] * 20 + [[3, 4], [5, 4], [1, 4], [4, 5]] * 2
    model = KneserNey(2, SIZE).fit(sentences)
    assert model.probability(2, (1,)) > 0.8
    assert model.probability(2, (6,)) < 0.6 * model.probability(4, (6,))  # which occurs a third as often


def test_more_context_tells_more_of_a_chain():
    train, test = corpus(2000, seed=1), corpus(300, seed=2)
    found = [KneserNey(order, SIZE).fit(train).perplexity(test) for order in (1, 2)]
    assert found[1] < 0.75 * found[0] < 0.75 * SIZE


def test_discounts_by_hand():
    counts = [1] * 8 + [2] * 4 + [3] * 2 + [4] + [9]
    y = 8 / (8 + 2 * 4)
    expected = (1 - 2 * y * 4 / 8, 2 - 3 * y * 2 / 4, 3 - 4 * y * 1 / 2)
    assert _discounts(counts) == pytest.approx(expected)
    assert _discounts([1, 1, 2]) == (0.5, 1.0, 1.5)
    assert _discounts([1, *[2] * 100, 3, 4])[0] >= 0


@pytest.mark.parametrize("sentences", [[], [[1, 7]], [[-1]], [[1, 0, 2]]])
def test_what_cannot_be_counted_is_refused(sentences):
    with pytest.raises(InputError):
        KneserNey(3, SIZE).fit(sentences)


def test_arguments_out_of_range_are_refused():
    with pytest.raises(InputError):
        KneserNey(0, 5)
    with pytest.raises(InputError):
        KneserNey(3, 1)
