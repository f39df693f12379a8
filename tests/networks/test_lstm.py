from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lit_aigc.errors import InputError
from lit_aigc.networks.lstm import Recurrent

OPTIONS = {
    "lstm": {},
    "gru": {"cell": "gru", "tied": False},
    "ngrams": {"ngrams": [2, 3], "ngram_buckets": 64},
    "plain": {"residual": False},
}


def network(name: str, **others: object) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(11, width=8, layers=2, **(OPTIONS[name] | others)).eval()


def tokens(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 11, shape, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_library_s_lstm() -> None:
    made = network("lstm", residual=False)
    reference = nn.LSTM(8, 8, batch_first=True), nn.LSTM(8, 8, batch_first=True)
    for ours, theirs in zip(made.layers, reference, strict=True):
        theirs.load_state_dict(ours.state_dict())
    ids = tokens(3, 9)
    x = made.embedding(ids)
    for layer in reference:
        x, _ = layer(x)
    assert torch.allclose(made(ids), x @ made.embedding.weight.T, atol=1e-6)


@pytest.mark.parametrize("name", OPTIONS)
@torch.no_grad()
def test_a_state_goes_on_where_it_was(name: str) -> None:
    made, ids = network(name), tokens(3, 12)
    state = made.new_cache(3)
    pieces = [made(ids[:, :5], state), made(ids[:, 5:6], state), made(ids[:, 6:], state)]
    assert torch.allclose(torch.cat(pieces, dim=1), made(ids), atol=1e-6)
    assert state.lengths.tolist() == [12] * 3


@pytest.mark.parametrize("name", OPTIONS)
@torch.no_grad()
def test_rows_may_have_any_length(name: str) -> None:
    made, ids = network(name), tokens(3, 9)
    lengths = torch.tensor([2, 9, 4])
    state = made.new_cache(3)
    first = made(ids, state, lengths)
    for row, length in enumerate(lengths.tolist()):
        assert torch.allclose(first[row, :length], made(ids[row : row + 1, :length])[0], atol=1e-6)
    state = state.select(torch.tensor([2, 0, 0]))
    follows = tokens(3, 2, seed=5)
    second = made(follows, state)
    for place, row in enumerate((2, 0, 0)):
        whole = torch.cat([ids[row, : lengths[row]], follows[place]])[None]
        assert torch.allclose(second[place], made(whole)[0, -2:], atol=1e-6)


def test_dropout_is_the_same_over_a_row() -> None:
    made = network("lstm", dropout=0.5).train()
    dropped = made._drop(torch.ones(4, 6, 100))
    assert torch.equal(dropped[:, 0], dropped[:, 5])
    assert not torch.equal(dropped[0], dropped[1])
    assert set(dropped.unique().tolist()) == {0.0, 2.0}


def test_word_dropout_leaves_out_a_word_everywhere_but_as_an_output() -> None:
    made = network("lstm", word_dropout=0.5).train()
    ids = torch.arange(11).repeat(3, 2)
    dropped = made._embed(ids)
    assert torch.equal(dropped[:, :11], dropped[:, 11:]) and torch.equal(dropped[0], dropped[2])
    kept = dropped[0, :11].any(dim=1)
    assert 0 < kept.sum() < 11
    torch.testing.assert_close(dropped[0, :11], 2 * made.embedding.weight * kept[:, None])
    assert torch.equal(made.eval()._embed(ids)[0, :11], made.embedding.weight)


def test_at_first_a_tied_network_does_not_predict_what_it_has_just_read() -> None:
    torch.manual_seed(0)
    made = Recurrent(100, width=64, layers=1).eval()
    ids = torch.arange(100)[:, None]
    read = made(ids)[:, 0].softmax(dim=1).gather(1, ids)
    assert read.max() < 0.05


def test_weight_drop_spares_evaluation_and_reaches_training() -> None:
    made, plain = network("lstm", weight_drop=0.5), network("lstm")
    ids = tokens(2, 6)
    assert torch.equal(made(ids), plain(ids))
    assert not torch.allclose(made.train()(ids), plain(ids), atol=1e-3)
    made(ids).sum().backward()
    assert (made.layers[0].weight_hh_l0.grad != 0).any()


@pytest.mark.filterwarnings("ignore:User provided device_type of:UserWarning")
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor:UserWarning")
def test_on_cuda_the_layers_are_in_float32_under_autocast() -> None:
    """On pretended tensors. Autocast's own rule for cuDNN is float16; states may come from a run that followed it."""
    seen = []

    def cell(x: torch.Tensor, states: tuple[torch.Tensor, ...], weights: list[torch.Tensor], *_: object) -> tuple:
        seen.append(({t.dtype for t in (x, *states, *weights)}, torch.is_autocast_enabled("cuda")))
        return (x, *states)

    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    with FakeTensorMode(), torch.device("cuda"):
        made = Recurrent(11, width=8, layers=2, residual=False)
        made._function, ids = cell, torch.zeros(2, 3, dtype=torch.int64)
        state = made.new_cache(2)
        state.layers = [tuple(tensor.half() for tensor in layer) for layer in state.layers]
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        try:
            logits = made(ids, state)
            assert torch.is_autocast_enabled("cuda")
        finally:
            torch.set_autocast_enabled("cuda", before[0])
            torch.set_autocast_dtype("cuda", before[1])
    assert seen == [({torch.float32}, False)] * 2
    assert logits.dtype == torch.bfloat16 and logits.device.type == "cuda"
    assert {tensor.dtype for layer in state.layers for tensor in layer} == {torch.float32}


def test_a_detached_state_ends_the_gradient() -> None:
    made = network("lstm")
    state = made.new_cache(2)
    made(tokens(2, 4), state)
    assert state.layers[0][0].requires_grad
    assert not state.detach().layers[0][0].requires_grad


@pytest.mark.parametrize("options", [{"width": 0}, {"dropout": 1.0}, {"weight_drop": -0.1}, {"word_dropout": 1.0}])
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        Recurrent(11, **options)
