"""The means that are logged, over batches, samples and processes."""

from __future__ import annotations

import pytest
import torch

from lit_aigc.modules.means import LogWindow, SampleMeans


def alone(tensor, reduce_op):
    return tensor


def window(*values, name="loss"):
    made = LogWindow()
    for value in values:
        made.add({name: torch.tensor(value)})
    return made


def test_a_window_holds_the_mean_of_each_scalar_over_the_batches_that_have_it():
    made = window(1.0, 2.0, 6.0)
    made.add({"penalty": torch.tensor(5.0, dtype=torch.float64, requires_grad=True)})
    assert made.means(alone) == {"loss": 3.0, "penalty": 5.0}
    assert not any(total.requires_grad for total in made.totals.values())
    made.clear()
    assert not made


@pytest.mark.parametrize(("rank", "world_size", "mean"), [(0, 2, 3.0), (1, 2, 5.0), (0, 1, 4.0)])
def test_a_window_resumes_with_its_own_sum_or_with_the_mean_of_another_number_of_processes(rank, world_size, mean):
    state = window(2.0, 4.0).state_dict(lambda own: torch.stack([own, own + 4.0]))  # the other process's sum is 10
    assert state == {"loss": ([6.0, 10.0], 2)}
    resumed = LogWindow()
    resumed.load_state_dict(state, rank, world_size, "cpu")
    assert resumed.means(alone) == {"loss": mean}


def test_an_empty_window_asks_no_other_process():
    assert LogWindow().state_dict(None) == {}


def test_samples_weigh_the_same_in_batches_of_any_size_and_on_any_process():
    values = torch.tensor([0.1, 0.2, 0.3, 1e8, -1e8])
    parts = values.split([1, 3, 1])
    whole, first, second = SampleMeans(), SampleMeans(), SampleMeans()
    whole.add({"error": values, "vector": values[:, None] * torch.tensor([1.0, 2.0])})
    for made, own in ((first, parts[:2]), (second, parts[2:])):
        for part in own:
            made.add({"error": part, "vector": part[:, None] * torch.tensor([1.0, 2.0])})
    sent = []
    second.means(lambda tensor, reduce_op: sent.append(tensor) or tensor)
    joined = first.means(lambda tensor, reduce_op: tensor + sent[0])
    for means in (whole.means(alone), joined):
        assert float(means["error"]) == pytest.approx(0.12, abs=1e-7)  # in float32 the small ones would be lost
        assert means["vector"].tolist() == pytest.approx([0.12, 0.24], abs=1e-6)
