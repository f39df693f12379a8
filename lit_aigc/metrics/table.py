"""All metrics of generated images, and the other figures that a run or an evaluation may have."""

from __future__ import annotations

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

AUDIT = "memorisation"  # name of the audit's protocol
# Figures that need a model or its data, not only samples.
OTHERS = (
    Figure(
        "classification_accuracy_score",
        "classification accuracy score",
        "of a classifier trained on samples alone",
        "higher",
        share=True,
    ),
    Figure("nll", "NLL", "nats per image, at most", "lower", protocol="likelihood"),
    Figure("elbo", "ELBO", "nats per image", "higher", protocol="likelihood"),
    Figure("nll_bits_per_dim", "bits per dimension", "of the NLL", "lower", protocol="likelihood"),
    Figure("memorised", "memorized", "verdict of the audit", protocol=AUDIT),
    Figure(
        "memorised_share",
        "memorized share",
        "samples closer to training images than nearly all real ones are",
        "lower",
        share=True,
        protocol=AUDIT,
    ),
    Figure("authenticity", "authenticity", "samples that are not copies", "higher", share=True, protocol=AUDIT),
    Figure("duplicates", "duplicates", "samples that are practically identical", "lower", protocol=AUDIT),
    Figure("copying_z", "copying", "standard score; far below 0: copies", protocol=AUDIT),
    Figure("nearest_distance", "distance to training images", "median, in gray levels", protocol=AUDIT),
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
