"""Sampled texts: the right distribution, independence of the batch, ends, streams."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.stats import chisquare

from lit_aigc.noise import Noise
from lit_aigc.sampling import decoding
from lit_aigc.sampling.decoding import generate, stream
from lit_aigc.sampling.text import to_strings
from lit_aigc.sampling.tokens import Decoding, top_k

PROMPTS = [torch.tensor(ids, dtype=torch.int64) for ids in ([1, 2, 3], [], [4], [5] * 11, [1, 2, 3])]
TURNS = torch.eye(6)[[1, 2, 3, 4, 5, 1]] * 1e4  # logits: a b c d e in turns


def as_lists(texts):
    return [row[:length].tolist() for row, length in zip(texts.ids, texts.lengths.tolist(), strict=True)]


def test_texts_have_the_probabilities_of_the_network(network):
    """All texts of two tokens or fewer, counted."""
    model = network(vocab_size=3)
    n = 6000
    texts = as_lists(generate(model, [torch.tensor([2])] * n, Decoding(max_tokens=2), Noise(1)))
    with torch.no_grad():
        first = model.after([0, 2]).double().softmax(0)
        expected = {(): first[0]}
        for token in (1, 2):
            second = first[token] * model.after([0, 2, token]).double().softmax(0)
            expected |= {(token,): second[0], (token, 1): second[1], (token, 2): second[2]}
    counts = [sum(tuple(text) == wanted for text in texts) for wanted in expected]
    assert sum(counts) == n
    assert chisquare(counts, n * torch.stack(list(expected.values())).numpy()).pvalue > 0.01


def test_temperature_and_filters_shape_the_draw(network):
    model = network(vocab_size=6)
    n = 4000
    options = Decoding(max_tokens=1, temperature=0.5, top_k=3)
    texts = as_lists(generate(model, [torch.tensor([1])] * n, options, Noise(1)))
    counts = torch.tensor([text[0] if text else 0 for text in texts]).bincount(minlength=6)
    with torch.no_grad():
        expected = (top_k(model.after([0, 1]).double()[None], 3) / 0.5).softmax(1)[0]
    assert counts[expected == 0].tolist() == [0, 0, 0]
    assert chisquare(counts[expected > 0], n * expected[expected > 0].numpy()).pvalue > 0.01


def test_greedy_takes_the_best_token(network):
    model = network(seed=1)
    (text,) = as_lists(generate(model, [torch.tensor([3])], Decoding(max_tokens=9, temperature=0), Noise(0)))
    held = [0, 3]
    with torch.no_grad():
        for token in text:
            assert token == model.after(held).argmax()
            held.append(token)
        assert len(text) == 9 or model.after(held).argmax() == 0
    other = generate(model, [torch.tensor([3])], Decoding(max_tokens=9, temperature=0), Noise(5))
    assert as_lists(other) == [text]


@pytest.mark.parametrize("context", [0, 8, 16])
def test_a_text_depends_on_seed_index_and_prompt_alone(network, context, monkeypatch):
    options = Decoding(max_tokens=30, temperature=1.5)
    together = as_lists(generate(network(context=context), PROMPTS, options, Noise(3, start=10)))
    for i, prompt in enumerate(PROMPTS):
        alone = generate(network(context=context), [prompt], options, Noise(3, start=10 + i))
        assert as_lists(alone) == [together[i]]
    assert together[0] != together[4], "equal prompts, other noise"
    others = [torch.tensor([2] * i) for i in range(5)]
    mixed = generate(network(context=context), others[:2] + PROMPTS[2:], options, Noise(3, start=10))
    assert as_lists(mixed)[2:] == together[2:]
    monkeypatch.setattr(decoding, "ROWS", 2)
    assert as_lists(generate(network(context=context), PROMPTS, options, Noise(3, start=10))) == together
    assert as_lists(generate(network(context=context), PROMPTS, options, Noise(4, start=10))) != together


@pytest.mark.parametrize("context", [0, 8])
def test_a_shorter_text_is_the_start_of_a_longer_one(network, context):
    longer = as_lists(generate(network(context=context), PROMPTS, Decoding(max_tokens=40), Noise(0)))
    shorter = as_lists(generate(network(context=context), PROMPTS, Decoding(max_tokens=7), Noise(0)))
    assert shorter == [text[:7] for text in longer]


def test_the_boundary_ends_a_text_and_is_no_part_of_it(network):
    model = network(vocab_size=3)
    texts = generate(model, [torch.tensor([1])] * 50, Decoding(max_tokens=20), Noise(0))
    assert len(set(texts.lengths.tolist())) > 1, "texts end at several places"
    assert texts.ids.shape == (50, int(texts.lengths.max()))
    inside = torch.arange(texts.ids.shape[1]) < texts.lengths[:, None]
    assert torch.equal(texts.ids != 0, inside)
    # what has ended is read no further
    assert model.read[1:] == [int((texts.lengths > place).sum()) for place in range(len(model.read) - 1)]


def test_no_more_is_read_than_is_needed(network):
    model = network()
    model.table.data[:, 0] = -1e9  # never ends
    generate(model, [torch.tensor([1, 2])], Decoding(max_tokens=5), Noise(0))
    assert model.read == [3, 1, 1, 1, 1]
    assert generate(model, [], Decoding(), Noise(0)).ids.shape == (0, 0)


def test_stop_strings(network, letters):
    model = network()
    model.first.zero_()
    model.table.data[:, 0] = -1e9
    prompts = [torch.tensor([1])] * 40
    free = to_strings(generate(model, prompts, Decoding(max_tokens=40), Noise(0)), letters)
    options = Decoding(max_tokens=40, stop=("bc", "dd"))
    texts = generate(model, prompts, options, Noise(0), letters)
    stopped = to_strings(texts, letters, options.stop)
    assert all(whole.startswith(part) for whole, part in zip(free, stopped, strict=True))
    assert not any("bc" in text or "dd" in text for text in stopped)
    ended = [(whole, part) for whole, part in zip(free, stopped, strict=True) if part != whole]
    assert len(ended) > 20
    assert all(whole[len(part) :].startswith(("bc", "dd")) for whole, part in ended)
    lengths = [len(part) + 2 * (part != whole) for whole, part in zip(free, stopped, strict=True)]
    assert texts.lengths.tolist() == lengths, "with the stop string"


def test_a_stop_string_begun_by_the_prompt_is_none(network, letters):
    model = network()
    model.table.data[:] = TURNS
    model.first.zero_()
    options = Decoding(max_tokens=4, temperature=0, stop=("bcd",))
    texts = generate(model, [torch.tensor([1, 2])], options, Noise(0), letters)
    assert to_strings(texts, letters, options.stop) == ["cdea"]


def test_repetition_penalty_covers_the_prompt_and_the_text(network):
    model = network()
    model.table.data[:] = torch.tensor([1.0, 9.0, 8.0, 7.0, 6.0, 5.0])
    model.first.zero_()
    options = Decoding(max_tokens=5, temperature=0, repetition_penalty=100.0)
    assert as_lists(generate(model, [torch.tensor([1]), torch.tensor([3])], options, Noise(0))) == [
        [2, 3, 4, 5],
        [1, 2, 4, 5],
    ], "then the boundary, which is never penalized"


@pytest.mark.parametrize("stop", [(), ("bc",)])
@pytest.mark.parametrize("context", [0, 8])
def test_a_stream_gives_the_same_text(network, letters, stop, context):
    for seed, prompt in itertools.product(range(5), PROMPTS):
        options = Decoding(max_tokens=25, stop=stop)
        model = network(context=context)
        (text,) = to_strings(generate(model, [prompt], options, Noise(seed), letters), letters, stop)
        assert "".join(stream(model, prompt, options, Noise(seed), letters)) == text


def test_a_stream_comes_token_by_token(network, letters):
    model = network()
    model.table.data[:, 0] = -1e9
    text = stream(model, torch.tensor([1]), Decoding(max_tokens=10), Noise(0), letters)
    assert model.read == [], "nothing before it is asked for"
    next(text)
    assert model.read == [2]
    next(text)
    assert model.read == [2, 1]
    assert torch.is_grad_enabled()
