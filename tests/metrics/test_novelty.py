from __future__ import annotations

import random

import numpy as np
import pytest

from lit_aigc.metrics import novelty
from lit_aigc.metrics.novelty import characters, copied_share, found_in, hashes, longest_copy, word_codes
from lit_aigc.metrics.text_quality import ngrams, words


def text_of(draw: random.Random, length: int, alphabet: str = "abc ") -> str:
    return "".join(draw.choices(alphabet, k=length))


def share_by_definition(texts, training, n, split):
    known = {gram for text in training for gram in ngrams(split(text), n)}
    made = [gram for text in texts for gram in ngrams(split(text), n)]
    return sum(gram in known for gram in made) / len(made)


@pytest.fixture(params=[24, 1 << 20])
def block(request, monkeypatch):
    monkeypatch.setattr(novelty, "BLOCK", request.param)  # longer than any word, shorter than texts


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 11])
def test_shares_equal_brute_force(block, n):
    draw = random.Random(n)
    training = [text_of(draw, draw.randint(0, 40)) for _ in range(30)]
    training.append(text_of(draw, 500, "abc  \n"))
    assert max(map(len, training[-1].split())) < 24
    texts = [text_of(draw, 60) for _ in range(4)] + ["", training[-1][100:140]]
    for codes, split in ((characters, list), (word_codes, words)):
        others = [training[-1]]
        found = copied_share([texts, others], lambda: iter(training), n, codes)
        assert found[0] == pytest.approx(share_by_definition(texts, training, n, split))
        assert found[1] == 1
    assert 0 < copied_share([texts], lambda: training, n, characters)[0] <= 1


def test_no_gram_reaches_over_the_end_of_a_training_text():
    assert copied_share([["ab"]], lambda: ["xa", "by"], 2, characters) == [0.0]
    assert copied_share([["ab"]], lambda: ["xab"], 2, characters) == [1.0]


def test_sets_without_grams_have_a_share_of_zero():
    assert copied_share([[], ["one two"]], lambda: ["one two three"], 3) == [0.0, 0.0]
    assert copied_share([["one two"]], lambda: [], 1) == [0.0]


def test_marks_say_which_grams_are_copies():
    (marks,) = found_in(["xxabcxx"], ["abcd"], 2, characters)
    assert marks.tolist() == [False, False, True, True, False, False]


def test_hashes_are_of_what_the_run_holds():
    codes = characters("abcabcabdabc")
    for n in range(1, 13):
        found = hashes(codes, n)
        grams = ngrams("abcabcabdabc", n)
        assert len(found) == len(grams)
        assert [[x == y for y in found] for x in found] == [[a == b for b in grams] for a in grams]
    assert len(hashes(codes, 13)) == 0


def test_no_two_of_many_grams_collide():
    rows = np.random.default_rng(0).integers(0, 2, 50_000)
    codes = characters("".join("ab"[bit] for bit in rows))
    powers = 1 << np.arange(40)
    grams = np.convolve(rows, powers, mode="valid")  # each 40 bits as a number
    assert len(np.unique(hashes(codes, 40))) == len(np.unique(grams)) > 49_900


def longest_by_definition(texts, training):
    parts = {(len(t[i:j]), t[i:j]) for t in texts for i in range(len(t)) for j in range(i + 1, len(t) + 1)}
    return max((size for size, part in parts if any(part in text for text in training)), default=0)


@pytest.mark.parametrize("seed", range(6))
def test_the_longest_copy_equals_brute_force(block, seed):
    draw = random.Random(seed)
    training = [text_of(draw, 80, "abcdé") for _ in range(20)]
    texts = [text_of(draw, 50, "abcdé") for _ in range(3)] + ["", training[3][10 : 12 + 10 * seed]]
    assert longest_copy(texts, lambda: iter(training)) == longest_by_definition(texts, training)


def test_the_ends_of_the_longest_copy():
    assert longest_copy([], lambda: ["abc"]) == 0
    assert longest_copy(["xyz"], lambda: ["abc"]) == 0
    assert longest_copy(["abc" * 100], lambda: ["abc" * 200]) == 300


def test_memory_does_not_grow_with_the_training_text(monkeypatch):
    monkeypatch.setattr(novelty, "BLOCK", 1000)
    sizes = []

    def seen(codes, n):
        sizes.append(len(codes))
        return hashes(codes, n)

    monkeypatch.setattr(novelty, "hashes", seen)
    training = ["0123456789" * 5000, "one two three " * 5000, *["short"] * 2000]
    assert copied_share([["34567"]], lambda: iter(training), 5, characters) == [1.0]
    assert copied_share([["two three one two"]], lambda: iter(training), 4) == [1.0]
    assert max(sizes) < 2100 and len(sizes) > 150
