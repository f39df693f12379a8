from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lit_aigc.errors import InputError
from lit_aigc.losses.language import token_nats
from lit_aigc.networks.layers.attention import causal_attention
from lit_aigc.networks.layers.ngrams import NgramEmbedding
from lit_aigc.networks.layers.pointwise import rms_norm, rotate, squared_relu
from lit_aigc.networks.transformer import Transformer, rotary_angles

OPTIONS = {
    "default": {"ngrams": [2, 4], "ngram_buckets": 64},
    "gpt2": {
        "positions": "learned", "norm": "layer", "activation": "gelu", "qk_norm": False, "soft_cap": 0.0, "tied": True,
        "bias": True,
    },
    "swiglu": {"activation": "swiglu"},
}  # fmt: skip


def network(name: str, **others: object) -> Transformer:
    torch.manual_seed(0)
    made = Transformer(11, (16,), width=16, layers=2, heads=2, **(OPTIONS[name] | others)).eval()
    for parameter in made.parameters():  # what a block adds starts from nothing, which would prove nothing
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    return made


def tokens(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 11, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", OPTIONS)
def test_no_position_sees_what_comes_later(name: str) -> None:
    made, ids = network(name), tokens(2, 12)
    changed = ids.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 11
    before, after = made(ids), made(changed)
    assert torch.allclose(before[:, :7], after[:, :7], atol=1e-5)
    assert (before[:, 7:] - after[:, 7:]).abs().max() > 1e-2


@pytest.mark.parametrize("name", OPTIONS)
def test_a_new_network_knows_nothing_but_its_last_tokens(name: str) -> None:
    made = Transformer(11, (16,), width=16, layers=2, heads=2, **OPTIONS[name])
    loss = F.cross_entropy(made(tokens(4, 16)).flatten(0, 1), tokens(4, 16, seed=2).flatten())
    assert loss.item() == pytest.approx(torch.tensor(11.0).log().item(), abs=0.1)


def test_at_first_a_tied_network_does_not_predict_what_it_has_just_read() -> None:
    torch.manual_seed(0)
    made = Transformer(100, (4,), width=256, layers=1, heads=2, tied=True)
    ids = torch.arange(100)[:, None]
    read = made(ids)[:, 0].softmax(dim=1).gather(1, ids)
    assert read.max() < 0.05


@pytest.mark.parametrize("name", OPTIONS)
@torch.no_grad()
def test_a_cache_changes_nothing(name: str) -> None:
    made, ids = network(name), tokens(3, 16)
    cache = made.new_cache(3)
    pieces = [made(ids[:, :5], cache), *(made(ids[:, i : i + 1], cache) for i in range(5, 9)), made(ids[:, 9:], cache)]
    assert torch.allclose(torch.cat(pieces, dim=1), made(ids), atol=1e-4)
    assert cache.lengths.tolist() == [16] * 3


@pytest.mark.parametrize("name", OPTIONS)
@torch.no_grad()
def test_rows_of_a_cache_may_have_any_length(name: str) -> None:
    made, ids = network(name), tokens(3, 14)
    lengths = torch.tensor([2, 7, 4])
    cache = made.new_cache(3)
    first = made(ids[:, :7], cache, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = made(ids[row : row + 1, :length])
        assert torch.allclose(first[row, :length], alone[0], atol=1e-4)
    cache = cache.select(torch.tensor([2, 0, 0]))
    follows = tokens(3, 2, seed=5)
    second = made(follows, cache)
    for place, row in enumerate((2, 0, 0)):
        whole = torch.cat([ids[row, : lengths[row]], follows[place]])[None]
        assert torch.allclose(second[place], made(whole)[0, -2:], atol=1e-4)
    assert cache.lengths.tolist() == [6, 4, 4]


@torch.no_grad()
def test_a_cache_grows_as_need_be() -> None:
    made = network("default")
    ids = tokens(1, 100)
    cache = made.new_cache(1)
    pieces = [made(ids[:, i : i + 10], cache) for i in range(0, 100, 10)]
    assert torch.allclose(torch.cat(pieces, dim=1), made(ids), atol=1e-4)


def test_attention_spelled_out_is_the_fused_one() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 7, 4, requires_grad=True)
    ours, fused = causal_attention(q, k, v), F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert torch.allclose(ours, fused, atol=1e-6)
    for a, b in zip(*(torch.autograd.grad(out.square().sum(), (q, k, v)) for out in (ours, fused)), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_gradients_written_by_hand() -> None:
    """Also the gradients of gradients, as a penalty on a network's own gradient takes them."""
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    angle = torch.randn(3, 2, dtype=torch.float64)
    for function in (rms_norm, squared_relu, lambda x: rotate(x, angle.cos(), angle.sin())):
        assert torch.autograd.gradcheck(function, x)
        assert torch.autograd.gradgradcheck(function, x)
    assert torch.allclose(rms_norm(x), F.rms_norm(x, (4,), eps=1e-6))
    assert torch.allclose(squared_relu(x), F.relu(x).square())
    pairs = torch.complex(x[..., :2], x[..., 2:]) * torch.polar(torch.ones_like(angle), angle)
    assert torch.allclose(rotate(x, angle.cos(), angle.sin()), torch.cat([pairs.real, pairs.imag], dim=-1))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_function_transforms_give_the_gradients_of_autograd() -> None:
    """Of all rows together, and of each row by itself."""
    made, ids = network("default"), tokens(3, 13)
    weights = {name: weight.detach() for name, weight in made.named_parameters()}

    def loss(weights: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
        logits = torch.func.functional_call(made, weights, (ids[:, :-1],))
        return token_nats(logits, ids[:, 1:]).mean()

    token_nats(made(ids[:, :-1]), ids[:, 1:]).mean().backward()
    together = torch.func.grad(loss)(weights, ids)
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, ids[:, None])
    for name, weight in made.named_parameters():
        torch.testing.assert_close(together[name], weight.grad, msg=name)
        torch.testing.assert_close(each[name].mean(dim=0), weight.grad, msg=name)


def test_rotary_attention_depends_on_distances_alone() -> None:
    made = network("swiglu")
    x = torch.randn(1, 3, 16)
    with torch.no_grad():
        near = made.blocks[0].attention(x, rotary_angles(torch.arange(3)[None], 8))
        far = made.blocks[0].attention(x, rotary_angles(torch.arange(50, 53)[None], 8))
    assert torch.allclose(near, far, atol=1e-5)


def test_ngrams_are_those_that_end_at_a_position() -> None:
    embed = NgramEmbedding(4, [2, 3], 4096)
    ids = torch.tensor([[5, 6, 7, 5, 6, 7], [1, 5, 6, 7, 9, 9]])
    x = embed(ids)
    assert torch.equal(x[0, 2], x[0, 5]) and torch.equal(x[0, 2], x[1, 3])  # 5 6 7 everywhere
    assert not torch.equal(x[0, 1], x[0, 4])  # 0 5 6 and 7 5 6
    assert torch.equal(embed(ids, torch.tensor([[3], [2]]))[:, 0], x[[0, 1], [3, 2]])


def test_the_soft_cap_bounds_logits() -> None:
    made = network("default", soft_cap=2.0)
    with torch.no_grad():
        made.head.weight.mul_(100)
    assert made(tokens(2, 8)).abs().max() <= 2.0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"width": 15}, "width=15"),
        ({"layers": 0}, "layers=0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"ngrams": [1]}, "ngrams"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        Transformer(11, (16,), **({"width": 16, "layers": 1, "heads": 2} | options))
