"""Reading texts: prompts of many lengths in one pass, the end of the context, independence of the batch."""

from __future__ import annotations

import itertools

import pytest
import torch

from lit_aigc.sampling.reading import Reader, longest_start


def expected(network, *contexts):
    with torch.no_grad():
        return torch.stack([network.after(list(context)) for context in contexts])


def test_prompts_of_several_lengths_are_read_in_one_pass(network):
    model = network()
    reader = Reader(model, [[1, 2, 3], [], [4]])
    assert model.read == [4 + 1 + 2]
    assert torch.equal(reader.logits, expected(model, [0, 1, 2, 3], [0], [0, 4]))
    assert reader.seen.nonzero().tolist() == [[0, 1], [0, 2], [0, 3], [2, 4]]
    reader.append(torch.tensor([5, 1, 2]))
    assert model.read == [7, 3]
    assert torch.equal(reader.logits, expected(model, [0, 1, 2, 3, 5], [0, 1], [0, 4, 2]))
    assert reader.texts == [[1, 2, 3, 5], [1], [4, 2]]
    assert reader.seen.nonzero()[:, 1].tolist() == [1, 2, 3, 5, 1, 2, 4]


def test_equal_prompts_are_read_once(network):
    model = network()
    reader = Reader(model, [[1, 2], [3], [1, 2]])
    assert model.read == [3 + 2]
    assert torch.equal(reader.logits, expected(model, [0, 1, 2], [0, 3], [0, 1, 2]))
    reader.append(torch.tensor([4, 4, 5]))
    assert torch.equal(reader.logits, expected(model, [0, 1, 2, 4], [0, 3, 4], [0, 1, 2, 5]))


def test_rows_are_kept_repeated_and_reordered(network):
    model = network()
    reader = Reader(model, [[1], [2, 3]])
    reader.keep(torch.tensor([1, 0, 1]))
    assert torch.equal(reader.logits, expected(model, [0, 2, 3], [0, 1], [0, 2, 3]))
    reader.append(torch.tensor([4, 5, 1]))
    assert reader.texts == [[2, 3, 4], [1, 5], [2, 3, 1]]
    assert torch.equal(reader.logits, expected(model, [0, 2, 3, 4], [0, 1, 5], [0, 2, 3, 1]))
    assert reader.seen[2].nonzero()[:, 0].tolist() == [1, 2, 3]


def contexts_of(model, prompt, tokens, others=()):
    """How many of its last tokens the first row was read from, after each token."""
    reader = Reader(model, [prompt, *others])
    lengths = []
    for token in [None, *tokens]:
        if token is not None:
            reader.append(torch.tensor([token] * (1 + len(others))))
        length = int(reader.cache.lengths[0])
        whole = [0, *reader.texts[0]]
        assert torch.equal(reader.logits[:1], expected(model, whole[-length:]))
        lengths.append(length)
    return lengths


@pytest.mark.parametrize("context", [1, 2, 3, 5, 8, 16, 19, 24, 40])
@pytest.mark.parametrize("prompt", [0, 1, 4, 7, 12, 15, 30, 60])
def test_a_text_outgrows_the_context(network, context, prompt):
    model = network(context=context)
    tokens = [1 + place % 5 for place in range(prompt + 3 * context + 20)]
    lengths = contexts_of(model, tokens[:prompt], tokens[prompt:])
    assert lengths[0] == min(prompt + 1, longest_start(context))
    for before, length in itertools.pairwise(lengths):
        begun_anew = length != before + 1
        assert not begun_anew or before > context - max(1, context // 8), "there was room left"
        assert length <= context
        assert length >= before + 1 or length >= min(context, context // 2 + 1), "more than half is kept"
    others = [tokens[:1], tokens[:9], tokens[:50]]
    assert contexts_of(network(context=context), tokens[:prompt], tokens[prompt:], others) == lengths


def test_texts_of_all_lengths_soon_begin_anew_together(network):
    """From the second half of the context on, once every half: else a batch would be read anew at every token."""
    context = 64
    model = network(context=context)
    reader = Reader(model, [[1] * length for length in range(0, 64, 3)])
    anew = []
    for step in range(1, 161):
        calls = len(model.read)
        reader.append(torch.full((len(reader.texts),), 1 + step % 5))
        if model.read[calls] > len(reader.texts):
            anew.append(step)
    assert [step for step in anew if step > 64] == [96, 128, 160]
    assert len([step for step in anew if step <= 64]) <= 8


def test_without_a_limit_nothing_is_read_twice(network):
    model = network(context=0)
    reader = Reader(model, [[1, 2]])
    for _ in range(50):
        reader.append(torch.tensor([3]))
    assert model.read == [3] + [1] * 50
    assert torch.equal(reader.logits, expected(model, [0, 1, 2] + [3] * 50))
