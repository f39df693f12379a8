import io

import pytest
import torch
from torch import nn

from lit_aigc.optimization.ema import EMA


def _network():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    return network


def _fill(network, value):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)


def test_closed_form():
    """After moves from 0 to constant 1 the average is 1 - the product of what stayed."""
    network = _network()
    ema = EMA(network, decay=0.9)
    ema.update()  # starts at the live weights, 0
    _fill(network, 1.0)
    stayed = 1.0
    for move in range(1, 31):
        ema.update()
        stayed *= min(0.9, (1 + move) / (10 + move))
    with ema.applied():
        torch.testing.assert_close(network[0].weight, torch.full((2, 2), 1.0 - stayed))
    assert (network[0].weight == 1.0).all()


@pytest.mark.parametrize(("every", "moves"), [(1, 9), (2, 4), (4, 1), (10, 0)])
def test_every_n_updates(every, moves):
    """n = 2, 4 and 10 too: updates are the network's own, not the steps of all optimizers."""
    network = _network()
    ema = EMA(network, decay=0.5, every=every)
    for _ in range(10):
        ema.update()
    assert (ema.updates, ema.moves) == (10, moves)


def test_before_its_start_the_average_is_the_live_network():
    network = _network()
    ema = EMA(network, decay=0.5, start=3)
    _fill(network, 1.0)
    for _ in range(3):
        ema.update()
        _fill(network, 2.0)
        with ema.applied():
            assert (network[0].weight == 2.0).all()
    ema.update()
    _fill(network, 5.0)
    with ema.applied():
        assert (network[0].weight == 2.0).all()


def test_buffers_are_averaged_and_counters_copied():
    network = _network()
    ema = EMA(network, decay=0.0)
    ema.update()
    network[1].running_mean.fill_(3.0)
    network[1].num_batches_tracked.fill_(7)
    ema.update()
    network[1].running_mean.zero_()
    network[1].num_batches_tracked.zero_()
    with ema.applied():
        assert network[1].num_batches_tracked.item() == 7
        assert (network[1].running_mean == 3.0).all()


def test_the_live_weights_come_back_after_an_error():
    network = _network()
    ema = EMA(network, decay=0.5)
    ema.update()
    _fill(network, 1.0)
    with pytest.raises(KeyError), ema.applied():
        raise KeyError
    assert (network[0].weight == 1.0).all()


def test_checkpoint_round_trip():
    network = _network()
    ema = EMA(network, decay=0.9)
    for value in range(4):
        _fill(network, float(value))
        ema.update()
    file = io.BytesIO()
    torch.save(ema.state_dict(), file)
    file.seek(0)
    other = EMA(_network(), decay=0.9)
    other.load_state_dict(torch.load(file, weights_only=True))
    for one in (ema, other):
        _fill(one.network, 10.0)
        one.update()
    with ema.applied(), other.applied():
        assert torch.equal(network[0].weight, other.network[0].weight)
