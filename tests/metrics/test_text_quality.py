from __future__ import annotations

import random

import pytest
from sacrebleu.metrics import BLEU

from lit_aigc.metrics.text_quality import distinct, first_words, ngrams, repetition, self_bleu, words


def test_words_and_marks():
    assert words("To be, or not-to be:\n 'tis Ünïcode_2!") == [
        *("To", "be", ",", "or", "not", "-", "to", "be", ":", "'", "tis", "Ünïcode_2", "!")
    ]
    assert words(" \n") == []


@pytest.mark.parametrize(("number", "expected"), [(0, ""), (1, "To"), (3, "To be,"), (5, "To be, or not"), (9, None)])
def test_first_words_keep_the_text_as_it_is(number, expected):
    text = "To be, or not "
    assert first_words(text, number) == (text if expected is None else expected)


def test_distinct_by_hand():
    texts = [list("abab"), list("abc"), []]
    assert ngrams(texts[0], 2) == [("a", "b"), ("b", "a"), ("a", "b")]
    assert distinct(texts, 1) == 3 / 7
    assert distinct(texts, 2) == 3 / 5  # ab ba bc of 5
    assert distinct(texts, 4) == 1
    assert distinct(texts, 5) == 0


def test_repetition_by_hand():
    assert repetition([list("abab"), list("abcd"), ["a"]], n=2) == pytest.approx((1 / 3 + 0) / 2)
    assert repetition([list("aaaaaaa")], n=4) == 3 / 4
    assert repetition([["a"], []], n=2) == 0


def by_definition(texts: list[list[str]]) -> float:
    metric = BLEU(tokenize="none", effective_order=True)
    lines = [" ".join(text) for text in texts]
    scores = [metric.sentence_score(line, lines[:i] + lines[i + 1 :]).score for i, line in enumerate(lines)]
    return sum(scores) / len(scores)


@pytest.mark.parametrize("seed", range(5))
def test_self_bleu_equals_sacrebleu(seed):
    draw = random.Random(seed)
    texts = [draw.choices("abcdefgh"[: 3 + seed], k=draw.randint(1, 14)) for _ in range(12)]
    found = self_bleu(texts)
    assert found == pytest.approx(by_definition(texts), abs=1e-9)
    assert 0 < found < 100


def test_the_ends_of_self_bleu():
    assert self_bleu([list("abcde")] * 3) == pytest.approx(100)
    assert self_bleu([list("abcde"), list("fghij")]) == 0
    assert self_bleu([list("abc"), []]) == 0
