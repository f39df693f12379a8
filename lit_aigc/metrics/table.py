"""All metrics of generated images, and the other figures that a run or an evaluation may have."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from lit_aigc.metrics.accuracy import ConditionalAccuracy
from lit_aigc.metrics.base import Figure, SampleMetric
from lit_aigc.metrics.class_frechet import ClassFrechetDistance
from lit_aigc.metrics.frechet import FrechetDistance
from lit_aigc.metrics.inception_score import InceptionScore
from lit_aigc.metrics.kernel import KernelDistance
from lit_aigc.metrics.precision_recall import PrecisionRecall

# A metric is a line here and a file of its own. The order is that of the results.
METRICS: dict[str, type[SampleMetric]] = {
    metric.name: metric
    for metric in (
        FrechetDistance,
        KernelDistance,
        InceptionScore,
        ConditionalAccuracy,
        PrecisionRecall,
        ClassFrechetDistance,
    )
}

_of_audit = functools.partial(Figure, protocol="memorisation")
_of_likelihood = functools.partial(Figure, protocol="likelihood")
_CAS = "classification_accuracy_score"
# Figures that need a model or its data, not only samples.
OTHERS = (
    Figure(_CAS, "classification accuracy score", "of a classifier trained on samples alone", "higher", share=True),
    _of_likelihood("nll", "NLL", "nats per image, at most", "lower"),
    _of_likelihood("elbo", "ELBO", "nats per image", "higher"),
    _of_likelihood("nll_bits_per_dim", "bits per dimension", "of the NLL", "lower"),
    _of_audit("memorised", "memorized", "verdict of the audit"),
    _of_audit("memorised_share", "memorized share", "samples suspiciously near training images", "lower", share=True),
    _of_audit("authenticity", "authenticity", "samples that are not copies", "higher", share=True),
    _of_audit("duplicates", "duplicates", "samples that are practically identical", "lower"),
    _of_audit("copying_z", "copying", "standard score; far below 0: copies"),
    _of_audit("nearest_distance", "distance to training images", "median, in gray levels"),
    Figure("perplexity", "perplexity", "per token", "lower"),
    Figure("nats_per_char", "nats per character", "of the test text", "lower"),
    Figure("bits_per_byte", "bits per byte", "of the test text", "lower"),
    Figure("bleu", "BLEU", "of the translations", "higher"),
)


def sample_figures() -> dict[str, Figure]:
    """Return the figures of all metrics by name."""
    return {figure.name: figure for metric in METRICS.values() for figure in metric.figures}


def figures() -> dict[str, Figure]:
    """Return all figures by name, in the order in which they are shown."""
    return sample_figures() | {figure.name: figure for figure in OTHERS}


def with_interval() -> list[str]:
    """Return the names of the metrics that have an interval."""
    return [name for name, metric in METRICS.items() if metric.drawn_from]


def by_default() -> list[str]:
    """Return the names of the metrics that are measured wherever possible."""
    return [name for name, metric in METRICS.items() if metric.by_default]


def needs_reference(metrics: Sequence[str]) -> bool:
    """Return whether some of these metrics compare with real images."""
    return any(METRICS[name].against for name in metrics)


def needs_classes(metrics: Sequence[str]) -> list[str]:
    """Return those of these metrics that compare with the real images of each class."""
    return [name for name in metrics if METRICS[name].against == "class reference"]
