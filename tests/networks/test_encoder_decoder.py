from __future__ import annotations

import pytest
import torch

from lit_aigc.errors import InputError
from lit_aigc.networks.encoder_decoder import ConditionalLanguageModel, EncoderDecoder

SOURCE = torch.tensor([[3, 4, 5, 0], [6, 7, 0, 0]])
SEEN = torch.tensor([[True, True, True, True], [True, True, True, False]])
IDS = torch.tensor([[0, 2, 8, 9, 1], [0, 5, 5, 3, 10]])


@pytest.fixture
def network() -> EncoderDecoder:
    torch.manual_seed(0)
    made = EncoderDecoder(11, width=16, encoder_layers=2, decoder_layers=2, heads=2).eval()
    for parameter in made.parameters():  # what a block adds starts from nothing, which would prove nothing
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    return made


def test_padding_of_the_source_leaves_no_trace(network: EncoderDecoder) -> None:
    whole = network(IDS, SOURCE, SEEN)
    alone = network(IDS[1:], SOURCE[1:, :3], SEEN[1:, :3])
    assert torch.allclose(whole[1:], alone, atol=1e-5)
    other = SOURCE.clone()
    other[1, 3] = 9
    assert torch.allclose(network(IDS, other, SEEN), whole, atol=1e-5)
    other[1, 0] = 9
    assert not torch.allclose(network(IDS, other, SEEN)[1], whole[1], atol=1e-2)


def test_no_position_sees_what_comes_later(network: EncoderDecoder) -> None:
    changed = IDS.clone()
    changed[:, 3:] = 7
    assert torch.allclose(network(changed, SOURCE, SEEN)[:, :3], network(IDS, SOURCE, SEEN)[:, :3], atol=1e-5)


def test_the_gradient_is_the_same_with_fused_attention(network: EncoderDecoder, monkeypatch) -> None:
    gradients = []
    for longest in (512, 0):
        monkeypatch.setattr("lit_aigc.networks.layers.attention._LONGEST_SPELLED_OUT", longest)
        network.zero_grad()
        network(IDS, SOURCE, SEEN).square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    for written_out, fused in zip(*gradients, strict=True):
        assert torch.allclose(written_out, fused, atol=1e-5)


@torch.no_grad()
def test_writing_token_by_token_changes_nothing(network: EncoderDecoder) -> None:
    writer = ConditionalLanguageModel(network, SOURCE, SEEN)
    cache = writer.new_cache(2)
    pieces = [writer(IDS[:, :2], cache), *(writer(IDS[:, i : i + 1], cache) for i in range(2, 5))]
    assert torch.allclose(torch.cat(pieces, dim=1), network(IDS, SOURCE, SEEN), atol=1e-5)
    swapped = cache.select(torch.tensor([0, 1, 0])).select(torch.tensor([1, 0, 1]))
    follows = torch.tensor([[4], [4], [4]])
    rows = torch.tensor([1, 0, 1])
    expected = network(torch.cat([IDS[rows], follows], dim=1), SOURCE[rows], SEEN[rows])[:, -1:]
    assert torch.allclose(writer(follows, swapped), expected, atol=1e-5)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="width=10"):
        EncoderDecoder(11, width=10, heads=3)
