from __future__ import annotations

import pytest
import torch

from lit_aigc.errors import InputError
from lit_aigc.metrics.accuracy import ConditionalAccuracy
from lit_aigc.metrics.inception_score import InceptionScore


def test_equals_torch_fidelity():
    fidelity = pytest.importorskip("torch_fidelity.metric_isc")
    logits = 3 * torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
    metric = InceptionScore(10)
    for part in logits.split(7):
        metric.update(part)
    expected = fidelity.isc_features_to_metric(logits, splits=1)["inception_score_mean"]
    assert metric.compute() == pytest.approx(expected, rel=1e-9)


def test_sure_and_even_classes_give_their_number():
    metric = InceptionScore(4)
    metric.update(1000 * torch.eye(4).repeat(5, 1))
    assert metric.compute() == pytest.approx(4.0, rel=1e-12)


def test_equal_samples_give_one():
    metric = InceptionScore(4)
    metric.update(torch.tensor([[2.0, 0.0, 0.0, 1.0]]).repeat(20, 1))
    assert metric.compute() == pytest.approx(1.0, rel=1e-12)


def test_no_sample_is_refused():
    with pytest.warns(UserWarning, match="before the ``update``"), pytest.raises(InputError, match="at least 1 sample"):
        InceptionScore(4).compute()


def test_accuracy_counts():
    metric = ConditionalAccuracy()
    metric.update(torch.eye(3), torch.tensor([0, 1, 1]))
    metric.update(torch.eye(3)[:2], torch.tensor([2, 1]))
    assert metric.compute() == 3 / 5
