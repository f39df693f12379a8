"""Filters in closed form, draws against their probabilities, options that are refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from lit_aigc.errors import InputError
from lit_aigc.noise import Noise
from lit_aigc.sampling import tokens
from lit_aigc.sampling.tokens import (
    Decoding,
    draw,
    gumbel,
    min_p,
    penalize_repetition,
    top_k,
    top_p,
    with_temperature,
)

PROBABILITIES = torch.tensor([[0.1, 0.4, 0.05, 0.25, 0.2], [0.2, 0.2, 0.2, 0.2, 0.2]])
LOGITS = PROBABILITIES.log() + 3
rows = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=12).map(lambda row: torch.tensor([row]))


def kept(logits):
    return [row.isfinite().nonzero()[:, 0].tolist() for row in logits]


def test_temperature_divides_differences():
    assert with_temperature(LOGITS, 0.5).softmax(1) == pytest.approx(
        PROBABILITIES**2 / (PROBABILITIES**2).sum(1, keepdim=True)
    )
    assert with_temperature(LOGITS, 1e-45)[0].tolist() == [-math.inf, 0.0, -math.inf, -math.inf, -math.inf]


@pytest.mark.parametrize(
    ("k", "expected"), [(1, [1]), (2, [1, 3]), (4, [0, 1, 3, 4]), (5, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4])]
)
def test_top_k(k, expected):
    assert kept(top_k(LOGITS, k)) == [expected, [0, 1, 2, 3, 4]], "equals of the k-th stay"


@pytest.mark.parametrize(
    ("p", "expected"),
    [(1e-9, [1]), (0.39, [1]), (0.41, [1, 3]), (0.64, [1, 3]), (0.66, [1, 3, 4]), (0.9, [0, 1, 3, 4]), (1.0, 5)],
)
def test_top_p(p, expected):
    assert kept(top_p(LOGITS, p))[0] == (expected if isinstance(expected, list) else list(range(expected)))
    assert kept(top_p(LOGITS, p))[1] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("p", "expected"), [(0.0, [0, 1, 2, 3, 4]), (0.2, [0, 1, 3, 4]), (0.51, [1, 3]), (0.99, [1])])
def test_min_p(p, expected):
    assert kept(min_p(LOGITS, p)) == [expected, [0, 1, 2, 3, 4]]


def test_what_is_kept_keeps_its_logit():
    for filtered in (top_k(LOGITS, 2), top_p(LOGITS, 0.5), min_p(LOGITS, 0.5)):
        assert torch.equal(filtered[filtered.isfinite()], LOGITS[filtered.isfinite()])


@given(rows, st.integers(1, 15))
def test_top_k_keeps_the_k_best_and_ties(logits, k):
    filtered = top_k(logits, k)
    stays = filtered.isfinite()[0]
    assert stays.sum() >= min(k, logits.shape[1])
    assert not stays.logical_not().any() or logits[0][stays].min() > logits[0][~stays].max()
    assert (logits[0][stays] > logits[0][stays].min()).sum() < k


@given(rows, st.floats(0.01, 1.0))
def test_top_p_keeps_the_smallest_set_that_is_likely_enough(logits, p):
    probabilities = logits.double().softmax(1)[0]
    stays = top_p(logits, p).isfinite()[0]
    assert stays[logits[0].argmax()]
    assert probabilities[stays].sum() >= p - 1e-9
    without_the_least = stays & (logits[0] > logits[0][stays].min())
    assert probabilities[without_the_least].sum() < p + 1e-9
    assert not stays.logical_not().any() or logits[0][stays].min() > logits[0][~stays].max()


@given(rows, st.floats(0.0, 0.999))
def test_min_p_keeps_what_is_nearly_as_likely_as_the_best(logits, p):
    probabilities = logits.double().softmax(1)[0]
    ratio = probabilities / probabilities.max()
    stays = min_p(logits, p).isfinite()[0]
    assert stays[ratio > p * (1 + 1e-5)].all() and not stays[ratio < p * (1 - 1e-5)].any()
    assert stays[logits[0].argmax()]


def test_repetition_penalty():
    logits = torch.tensor([[2.0, -2.0, 2.0, -2.0, 0.0]])
    seen = torch.tensor([[True, True, False, False, True]])
    assert penalize_repetition(logits, seen, 4.0).tolist() == [[0.5, -8.0, 2.0, -2.0, 0.0]]
    assert penalize_repetition(logits, seen, 0.5).tolist() == [[4.0, -1.0, 2.0, -2.0, 0.0]]
    assert torch.equal(penalize_repetition(logits, seen, 1.0), logits)


def test_filters_come_in_their_order():
    """Temperature 2 makes the probabilities 0.15 0.30 0.11 0.23 0.21: top-p 0.7 then needs three, top-k leaves two."""
    assert kept(Decoding(temperature=2.0, top_p=0.7).filtered(LOGITS[:1])) == [[1, 3, 4]]
    assert kept(Decoding(temperature=2.0, top_k=2, top_p=0.7).filtered(LOGITS[:1])) == [[1, 3]]
    assert kept(Decoding(temperature=2.0, top_k=2, top_p=0.7, min_p=0.8).filtered(LOGITS[:1])) == [[1]]
    assert kept(Decoding(temperature=0.5, top_p=0.7).filtered(LOGITS[:1])) == [[1, 3]]


def test_draws_have_their_probabilities():
    n = 20_000
    logits, rows = LOGITS[:1].expand(n, -1), torch.arange(n)
    tokens = draw(logits, Noise(0), rows, 7)
    assert chisquare(tokens.bincount(minlength=5), n * PROBABILITIES[0].numpy()).pvalue > 0.01
    assert chisquare(tokens.bincount(minlength=5), n * PROBABILITIES[0].roll(1).numpy()).pvalue < 1e-6
    filtered = top_k(logits, 3)
    counts = draw(filtered, Noise(1), rows, 7, filtered=True).bincount(minlength=5)
    assert counts[[0, 2]].tolist() == [0, 0]
    assert chisquare(counts[[1, 3, 4]], n * filtered.softmax(1)[0, [1, 3, 4]].numpy()).pvalue > 0.01


def test_draws_of_rows_and_positions_are_independent():
    one, other = (draw(torch.zeros(4000, 5), Noise(0), torch.arange(4000), position) for position in (0, 1))
    pairs = (one * 5 + other).bincount(minlength=25)
    assert chisquare(pairs).pvalue > 0.01
    neighbours = (one[:-1:2] * 5 + one[1::2]).bincount(minlength=25)
    assert chisquare(neighbours).pvalue > 0.01


def test_noise_is_that_of_the_row_its_place_in_the_stream_and_the_token():
    seven = torch.arange(7)
    whole = gumbel(Noise(3), torch.arange(10)[:, None], 4, seven)
    assert torch.equal(gumbel(Noise(3), torch.tensor([2, 5, 9])[:, None], 4, seven), whole[[2, 5, 9]])
    assert torch.equal(gumbel(Noise(3, start=4), torch.tensor([1]), 4, seven), whole[5])
    assert torch.equal(gumbel(Noise(3), torch.tensor([2, 9]), 4, torch.tensor([6, 0])), whole[[2, 9], [6, 0]])
    assert not torch.equal(gumbel(Noise(3), torch.arange(10)[:, None], 5, seven), whole)
    assert whole.isfinite().all()
    old = [[0.0015909080228708693, 1.8414803791775298], [-0.23907860905155454, -0.20567156620209004]]
    pinned = gumbel(Noise(3, 2), torch.tensor([[1], [4]]), 6, torch.arange(2))
    assert pinned.tolist() == [pytest.approx(row, rel=1e-14) for row in old], "old seeds write the same texts"


@pytest.mark.parametrize("options", [{"top_k": 5}, {"top_p": 0.4}, {"min_p": 0.3}, {"top_k": 9, "top_p": 0.8}])
def test_noise_of_what_may_be_drawn_gives_the_tokens_of_noise_for_all(options, monkeypatch):
    logits = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)) * 2
    logits[0] = logits[1, 0] = 3.0  # a row of equals, all kept
    drawn, rows, decoding = [], torch.tensor([0, 1, 4, 7, 8, 9]), Decoding(**options)
    monkeypatch.setattr(tokens, "gumbel", lambda *args: (drawn.append(gumbel(*args)), drawn[-1].clone())[1])
    for position in range(20):
        filtered = decoding.filtered(logits)
        expected = (filtered.double() + gumbel(Noise(2), rows[:, None], position, torch.arange(40))).argmax(1)
        assert torch.equal(decoding.choose(logits, None, Noise(2), rows, position), expected)
        assert drawn.pop().numel() == filtered.isfinite().sum()


def test_of_equal_scores_the_first_token_is_taken(monkeypatch):
    monkeypatch.setattr(tokens, "gumbel", lambda noise, rows, *_: torch.zeros(rows.shape, dtype=torch.float64))
    logits = torch.tensor([[-math.inf, 1.0, 2.0, 2.0], [0.0, 0.0, -math.inf, 0.0]])
    assert draw(logits, Noise(0), torch.arange(2), 0, filtered=True).tolist() == [2, 0]


def test_temperature_0_is_the_best_token_and_takes_no_noise():
    seen = torch.zeros(2, 5, dtype=torch.bool)
    tokens = Decoding(temperature=0).choose(LOGITS, seen, None, torch.arange(2), 0)
    assert tokens.tolist() == [1, LOGITS[1].argmax()]
    seen[0, 1] = True
    assert Decoding(temperature=0, repetition_penalty=2.0).choose(LOGITS, seen, None, None, 0)[0] == 3


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_tokens": 0}, "max_tokens=0: expected a whole number, 1 or more"),
        ({"max_tokens": 1.5}, "max_tokens=1.5"),
        ({"temperature": -0.1}, "temperature=-0.1: expected 0 (the best token) or more"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"temperature": "hot"}, "temperature=hot"),
        ({"top_k": 0}, "top_k=0: expected a whole number, 1 or more, or null"),
        ({"top_k": True}, "top_k=True"),
        ({"top_p": 0}, "top_p=0: expected a number above 0, and at most 1"),
        ({"top_p": 1.1}, "top_p=1.1"),
        ({"min_p": 1}, "min_p=1: expected a number from 0 to below 1"),
        ({"min_p": -0.1}, "min_p=-0.1"),
        ({"repetition_penalty": 0}, "repetition_penalty=0: expected a number above 0"),
        ({"stop": ["a", ""]}, "stop=('a', ''): expected strings that are not empty"),
        ({"stop": [3]}, "stop=(3,)"),
        ({"beams": 0}, "beams=0: expected a whole number, 1 (no search) or more"),
        ({"length_penalty": -1}, "length_penalty=-1: expected 0 or more"),
        (
            {"beams": 2, "temperature": 0.5, "top_k": 3},
            "leave out temperature, top_k",
        ),
        ({"top_p": 0, "top_k": 0}, "\n"),
    ],
)
def test_options_that_are_refused(options, expected):
    with pytest.raises(InputError) as error:
        Decoding(**options)
    assert expected in str(error.value)


def test_one_stop_string_is_a_list_of_one():
    assert Decoding(stop="END") == Decoding(stop=["END"]) == Decoding(stop=("END",))
