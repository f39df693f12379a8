"""Beam search compared with the enumeration of all texts."""

from __future__ import annotations

import itertools

import pytest
import torch

from lit_aigc.noise import Noise
from lit_aigc.sampling.beams import beam_search
from lit_aigc.sampling.decoding import generate, stream
from lit_aigc.sampling.text import to_strings
from lit_aigc.sampling.tokens import Decoding

PROMPTS = [torch.tensor(ids, dtype=torch.int64) for ids in ([1, 2], [], [3])]


def score(model, prompt, text, power):
    """The log-likelihood of a text, with the boundary where it has one, over its length to a power."""
    held, total = [0, *prompt], 0.0
    with torch.no_grad():
        for token in text:
            total += float(model.after(held).double().log_softmax(0)[token])
            held.append(token)
    return total / len(text) ** power


def all_texts(vocab_size, length):
    for size in range(length):
        for ids in itertools.product(range(1, vocab_size), repeat=size):
            yield [*ids, 0]
    yield from map(list, itertools.product(range(1, vocab_size), repeat=length))


@pytest.mark.parametrize("power", [0.0, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(5))
def test_with_enough_beams_the_best_of_all_texts(network, power, seed):
    model = network(vocab_size=4, seed=seed)
    found = beam_search(model, PROMPTS, Decoding(max_tokens=4, beams=27, length_penalty=power))
    for prompt, text in zip(PROMPTS, found, strict=True):
        best = max(all_texts(4, 4), key=lambda ids: score(model, prompt.tolist(), ids, power))
        assert text == [token for token in best if token]


def test_length_penalty_0_likes_short_texts(network):
    model = network(vocab_size=4, seed=3)
    model.table.data[:, 0] += 1.0
    short, long = (
        sum(map(len, beam_search(model, PROMPTS, Decoding(max_tokens=6, beams=30, length_penalty=power))))
        for power in (0.0, 3.0)
    )
    assert short < long


def test_few_beams_find_what_is_likelier_than_the_greedy_text(network):
    likelier = 0
    for seed in range(10):
        model = network(seed=seed)
        model.table.data[:, 0] = -1e9  # all texts have their full length
        greedy = generate(model, [torch.tensor([1])], Decoding(max_tokens=6, temperature=0), Noise(0)).ids[0].tolist()
        (found,) = beam_search(model, [torch.tensor([1])], Decoding(max_tokens=6, beams=4))
        assert len(found) == 6
        assert score(model, [1], found, 1.0) >= score(model, [1], greedy, 1.0) - 1e-9
        likelier += score(model, [1], found, 1.0) > score(model, [1], greedy, 1.0) + 1e-6
    assert likelier >= 3


def test_a_prompt_is_searched_alike_in_any_company(network):
    options = Decoding(max_tokens=12, beams=3)
    prompts = [*PROMPTS, torch.tensor([4] * 9)]
    together = generate(network(context=8), prompts, options, Noise(0))
    for i, prompt in enumerate(prompts):
        alone = generate(network(context=8), [prompt], options, Noise(1))
        assert alone.ids[0, : int(alone.lengths)].tolist() == together.ids[i, : int(together.lengths[i])].tolist()


def test_the_search_ends_as_soon_as_nothing_can_win(network):
    model = network(vocab_size=4)
    model.table.data[:] = torch.tensor([50.0, 0.0, 0.0, 0.0])
    assert beam_search(model, [torch.tensor([1])], Decoding(max_tokens=100, beams=4)) == [[]]
    assert len(model.read) == 1


def test_a_stop_string_ends_a_candidate(network, letters):
    model = network()
    model.table.data[:] = torch.eye(6)[[1, 2, 3, 4, 5, 1]] * 10  # a b c d e in turns
    model.first.zero_()
    options = Decoding(max_tokens=10, beams=3, stop=("de",))
    texts = generate(model, [torch.tensor([1])], options, Noise(0), letters)
    assert letters(texts.ids[0].tolist()) == "bcde"
    assert to_strings(texts, letters, options.stop) == ["bc"]
    assert list(stream(model, torch.tensor([1]), options, Noise(0), letters)) == ["bc"]
