"""Decoding with the networks of the package: caches, the end of the context, the company of other texts."""

from __future__ import annotations

import pytest
import torch

from lit_aigc.noise import Noise
from lit_aigc.sampling.beams import beam_search
from lit_aigc.sampling.decoding import generate
from lit_aigc.sampling.reading import Reader
from lit_aigc.sampling.tokens import Decoding

CONTEXT = 24
PROMPTS = [torch.tensor(ids, dtype=torch.int64) for ids in ([1, 2, 3], [], [4] * 15, [5] * 40)]


def transformer(**options):
    from lit_aigc.networks.transformer import Transformer

    return Transformer(9, (CONTEXT,), width=16, layers=2, heads=2, **options)


def recurrent(**options):
    from lit_aigc.networks.lstm import Recurrent

    return Recurrent(9, width=16, layers=2, **options)


MAKERS = {
    "rotary": transformer,
    "learned": lambda: transformer(positions="learned", norm="layer", activation="gelu"),
    "ngrams": lambda: transformer(ngrams=[2, 3], ngram_buckets=64),
    "lstm": recurrent,
    "gru": lambda: recurrent(cell="gru", ngrams=[2, 3], ngram_buckets=64),
}


@pytest.fixture(params=MAKERS)
def made(request):
    torch.manual_seed(0)
    network = MAKERS[request.param]().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return network


def test_logits_are_those_of_reading_the_whole_context(made):
    reader = Reader(made, PROMPTS)
    generator = torch.Generator().manual_seed(0)
    for step in range(40):
        lengths = reader.cache.lengths.tolist()
        for row, text in enumerate(reader.texts):
            whole = torch.tensor([0, *text])[-lengths[row] :]
            with torch.no_grad():
                expected = made(whole[None], *(() if made.context else (made.new_cache(1),)))[0, -1]
            assert reader.logits[row] == pytest.approx(expected, abs=1e-4), (step, row)
        if step in (7, 20):
            reader.keep(torch.tensor([2, 0, 3, 1, 0])[: len(reader.texts) + 1])
        reader.append(torch.randint(1, 9, (len(reader.texts),), generator=generator))


def test_a_text_is_the_same_in_any_company(made):
    options = Decoding(max_tokens=40, temperature=0.9, top_p=0.95, repetition_penalty=1.1)
    together = generate(made, PROMPTS, options, Noise(0))
    for i, prompt in enumerate(PROMPTS):
        alone = generate(made, [prompt], options, Noise(0, start=i))
        assert alone.ids[0].tolist() == together.ids[i, : int(together.lengths[i])].tolist()


def test_beam_search(made):
    options = Decoding(max_tokens=30, beams=3)
    assert beam_search(made, PROMPTS, options) == [beam_search(made, [prompt], options)[0] for prompt in PROMPTS]
