"""A metric is one class and a line in the table: whatever lists metrics sees it then."""

from __future__ import annotations

import pytest
import torch

from lit_aigc.compare.report import Report
from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.evaluate.checks import check_options
from lit_aigc.evaluate.page.page import page
from lit_aigc.metrics.base import Figure, SampleMetric
from lit_aigc.metrics.floor import Halves
from lit_aigc.metrics.generative import choose_metrics, evaluate_samples
from lit_aigc.metrics.measurement import metric_keys, panels
from lit_aigc.metrics.resampling import weights
from lit_aigc.metrics.table import METRICS, OTHERS, figures
from lit_aigc.spec import Batch
from tests.compare.conftest import made_up, plan  # noqa: F401
from tests.metrics.toy import MeanColour, ToyData


class Brightness(SampleMetric):
    """Mean of all features."""

    name = "brightness"
    figures = (Figure("brightness", "brightness", "mean of the features", "higher", share=True),)
    drawn_from = "features"
    has_floor = True

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @classmethod
    def create(cls, *_):
        return cls()

    collector = create

    @classmethod
    def between(cls, first, second):
        return (first.compute() + second.compute()) / 2

    def update(self, features):
        self.total += features.double().sum()
        self.count += features.numel()

    def compute(self):
        return float(self.total / self.count)

    def draws(self, kept, resamples, *, seed):
        w = torch.stack(list(weights(len(kept), resamples, seed)))
        return (w @ kept.double().mean(dim=1)) / len(kept)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(METRICS, Brightness.name, Brightness)


def test_it_is_measured_with_its_interval_and_its_floor():
    metrics = choose_metrics(None, MeanColour(), 0)
    assert metrics == ("fid", "kid", "is", "brightness")
    halves = Halves(MeanColour(), 101, 50, metrics, limit=1000)
    batches = list(ToyData().real_batches("train"))
    for batch in batches:
        halves.update(*MeanColour()(batch.images), torch.arange(batch.start, batch.start + len(batch.images)))
    assert halves.figures()["brightness"] == pytest.approx(0.5, abs=0.02)
    samples = [Batch(torch.full((20, 1, 8, 8), 51, dtype=torch.uint8), None, 0)]
    values, _ = evaluate_samples(samples, MeanColour(), None, ["brightness"], bootstrap=20)
    key = "brightness_mean_colour"
    assert values == pytest.approx(
        {key: 0.2, f"{key}_low": 0.2, f"{key}_high": 0.2, f"{key}_standard_error": 0}, abs=1e-6
    )
    assert metric_keys(["brightness"], "mean_colour", 0) == (key,)


def test_it_is_offered():
    with pytest.raises(InputError, match="did you mean 'brightness'"):
        choose_metrics(["brightnes"], MeanColour(), 0)
    config = load("evaluate", ["bundle=x", "metrics=[]"])
    with pytest.raises(InputError, match="class_fid, brightness, or null for fid, kid, is, accuracy, brightness"):
        check_options(config)
    with pytest.raises(InputError, match="ask for some of fid, kid, is, brightness"):
        check_options(config | {"baseline": "y", "bootstrap": 20})


def test_it_stands_on_the_page_with_its_label_and_what_real_images_reach():
    results = {"brightness_toy": 0.25, "brightness_real_toy": 0.5, "protocol": {"toy": {}}}
    curves = {"brightness_toy": ([1, 2], [0.1, 0.25]), "brightness_real_toy": ([1, 2], [0.5, 0.5])}
    text = page(results, None, curves, title="x")
    assert '<span class="name">Brightness</span>' in text
    assert "Mean of the features; higher is better" in text
    assert "real images <b>0.5000</b>" in text
    assert "<figcaption><b>Brightness</b>" in text
    assert list(panels(curves)) == ["brightness"]


def test_it_can_be_compared(made_up, plan):  # noqa: F811
    numbers = {"brightness_real_toy": 0.5, "fid_toy": 1.0}
    records = [made_up(name, metrics={"brightness_toy": value} | numbers) for name, value in (("a", 0.1), ("b", 0.2))]
    report = Report(records, plan("a", "b"), "brightness_toy", None)
    assert [(row.experiment, row.excess) for row in report.rows] == [("b", 0.3), ("a", 0.4)]
    assert report.table()[0][1:4] == ["brightness ↑", "real images", "below real"]


def test_names_of_figures_differ():
    metrics = [figure.name for metric in METRICS.values() for figure in metric.figures]
    assert len(figures()) == len(metrics) + len(OTHERS)
    assert all(name == metric.name for name, metric in METRICS.items())
