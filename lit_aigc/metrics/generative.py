"""All metrics of a set of generated images, from one pass of the feature extractor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torchmetrics import SumMetric

from lit_aigc.build import did_you_mean
from lit_aigc.errors import InputError
from lit_aigc.media.images import to_uint8
from lit_aigc.metrics.base import FeatureBatch
from lit_aigc.metrics.bootstrap import LEVEL, estimate
from lit_aigc.metrics.kernel import FeatureSample
from lit_aigc.metrics.measurement import Measurement, by_key
from lit_aigc.metrics.reference import KID_LIMIT, Reference, describe, extract
from lit_aigc.metrics.resampling import check_draws
from lit_aigc.metrics.table import METRICS, by_default, needs_classes, needs_reference
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, Condition

BLOCK = 64


def choose_metrics(asked: Sequence[str] | None, extractor: nn.Module, num_classes: int) -> tuple[str, ...]:
    """Return the names of the metrics to compute, in the order of `lit_aigc.metrics.table.METRICS`.

    Args:
        asked: Names of metrics, or None for all that are measured by default and can be computed from this extractor
            and these samples.
        extractor: The extractor.
        num_classes: Number of classes that samples are asked for by, 0 for unconditional samples.

    Raises:
        InputError: If a name is unknown, or a metric is asked for that can't be computed.
    """
    refusals = {name: metric.refusal(extractor, num_classes) for name, metric in METRICS.items()}
    if asked is None:
        return tuple(name for name in by_default() if not refusals[name])
    for name in asked:
        if name not in METRICS:
            raise InputError(f"unknown metric {name!r}{did_you_mean(name, list(METRICS))}")
        if refusals[name]:
            raise InputError(refusals[name])
    if not asked:
        raise InputError(f"metrics is empty: expected some of {', '.join(METRICS)}, or null for all that apply.")
    return tuple(name for name in METRICS if name in asked)


def extractor_of_training(protocol: Mapping[str, Any]) -> str | None:
    """Return the name of the extractor that training measured with, from the protocol in a summary or manifest."""
    return next((name for name, facts in protocol.items() if facts.get("extractor", name) == name), None)


def module_samples(
    module: Any, n: int, seed: int, *, options: Mapping[str, Any] | None = None, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """Yield this process's share of a model's samples 0 … n - 1, rounded to 8 bits, in blocks of 64 dealt in turn.

    Of a conditional model sample i is asked for by class ``i % num_classes``.

    Args:
        module: A `lit_aigc.modules.base.GenerativeModule`, with the weights to sample from.
        n: Number of samples over all processes.
        seed: Seed of the noise.
        options: Options of ``module.sample``.
        rank: This process.
        world_size: Number of processes.

    Raises:
        InputError: If a sample is not finite.
    """
    classes = module.spec.num_classes if module.conditional else 0
    for start in range(rank * BLOCK, n, world_size * BLOCK):
        stop = min(start + BLOCK, n)
        labels = torch.arange(start, stop, device=module.device) % classes if classes else None
        condition = Condition(labels) if classes else None
        images = module.sample(stop - start, condition=condition, noise=Noise(seed, start), **(options or {}))
        if not torch.isfinite(images).all():
            raise InputError(f"Samples among {start} to {stop - 1} are not finite (NaN or infinite).")
        yield Batch(to_uint8(images, module.spec.value_range), labels, start)


@torch.no_grad()
def evaluate_samples(
    samples: Iterable[Batch],
    extractor: nn.Module,
    reference: Reference | None,
    metrics: Sequence[str],
    *,
    bootstrap: int = 0,
    bootstrap_seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure generated images against a reference.

    To be called on all processes, each with its share of the samples; all get the same values.

    Args:
        samples: uint8 images, with the classes asked for as labels (for metrics that take labels) and `start` their
            global index.
        extractor: The extractor, on `device`.
        reference: Statistics of the real images; may be None when no metric needs them; with those of each class for
            ``class_fid``.
        metrics: As `choose_metrics` returns them.
        bootstrap: Number of sets to draw for the intervals; 0 for none.
        bootstrap_seed: Seed of these draws.
        device: Where to compute.

    Returns:
        The values by key, see `lit_aigc.metrics.measurement`, with intervals, and what real images reach at the same
        number of samples where that is on record; and the protocol: what the numbers depend on.

    Raises:
        InputError: If there are too few samples, or the reference is of another extractor or lacks the classes.
    """
    _check_reference(extractor, reference, metrics)
    if bootstrap:
        check_draws(bootstrap)
    # Each metric keeps its own state; what the bootstrap draws from is kept once for all of them.
    computed = {name: METRICS[name].create(extractor, reference, KID_LIMIT) for name in metrics}
    drawn_from = {metric.drawn_from for metric in computed.values()} if bootstrap else set()
    widths = {"features": extractor.num_features, "logits": extractor.num_classes}
    kept = {name: FeatureSample(width, KID_LIMIT) for name, width in widths.items() if name in drawn_from}
    counted = SumMetric().set_dtype(torch.float64)
    for metric in (*computed.values(), *kept.values(), counted):
        metric.to("cpu" if torch.device(device).type == "mps" else device)  # mps has no float64

    # One pass of the extractor serves all metrics.
    for batch in samples:
        features, logits = extract(extractor, batch.images, device)
        counted.update(len(features))
        seen = FeatureBatch(features, logits, batch.labels, batch.start)
        for metric in computed.values():
            metric.update(*_moved(metric.arguments(seen), metric.device))
        for name, sample in kept.items():
            sample.update(*_moved((getattr(seen, name), batch.start), sample.device))

    # From here on all processes hold the same numbers.
    n = int(counted.compute())
    protocol = _protocol(extractor, reference, n)
    real, floor = _real_figures(reference, n)
    drawn = {name: sample.compute() for name, sample in kept.items()}
    measurements = []
    for metric in computed.values():
        result = metric.compute()
        protocol |= metric.protocol(result, n)
        interval = {}
        if metric.drawn_from in drawn:
            draws = metric.draws(drawn[metric.drawn_from], bootstrap, seed=bootstrap_seed)
            scale = 1.0 if metric.limited else (min(n, KID_LIMIT) / n) ** 0.5  # the draws are of those that were kept
            interval = estimate(result, draws, scale=scale, least=metric.least)._asdict()
        for figure, value in metric.values(result).items():
            measurements += _measurements(figure, extractor.name, value, interval, real.get(figure))
    if bootstrap:
        facts = {"draws": bootstrap, "seed": bootstrap_seed, "level": LEVEL, "over": "generated samples"}
        protocol["bootstrap"] = facts | {"n": min(n, KID_LIMIT)}
    return by_key(measurements), protocol | {"floor": floor}


def _check_reference(extractor: nn.Module, reference: Reference | None, metrics: Sequence[str]) -> None:
    """Refuse a reference that the metrics can't be computed with."""
    by_class = needs_classes(metrics)
    if reference is None:
        if needs_reference(metrics):
            names = " and ".join(name for name in metrics if METRICS[name].against)
            raise InputError(f"{names} need a reference: give one, or leave them out.")
    elif reference.extractor_hash != extractor.hash:
        raise InputError(
            f"The reference was made with an extractor of hash {reference.extractor_hash[:16]}…, the samples are "
            f"measured with {extractor.name} of hash {extractor.hash[:16]}…: make the reference anew."
        )
    elif reference.preparation and reference.preparation != extractor.protocol:
        raise InputError(
            f"The reference was made with {reference.preparation}, the samples are measured with {extractor.protocol}: "
            "make the reference anew."
        )
    elif by_class and not reference.classes:
        raise InputError(
            f"{by_class[0]} needs the statistics of each class, and the reference ({reference.split}) has none: take "
            f"reference=train (or val, test) of data with labels, or leave out {by_class[0]!r}."
        )


def _moved(values: Iterable[Any], device: torch.device) -> list[Any]:
    return [value.to(device) if isinstance(value, torch.Tensor) else value for value in values]


def _measurements(
    figure: str, extractor: str, value: Any, interval: Mapping[str, float], real: float | None
) -> list[Measurement]:
    """Return the measurement of a figure; of one by class, that of their mean, then one for each class."""
    if not isinstance(value, Sequence):
        return [Measurement(figure, extractor, **({"value": value} | interval), real=real)]
    classes = [Measurement(figure, extractor, each, part=str(label)) for label, each in enumerate(value)]
    return [Measurement(figure, extractor, sum(value) / len(value), real=real), *classes]


def _protocol(extractor: nn.Module, reference: Reference | None, n: int) -> dict[str, Any]:
    """Return what all numbers depend on."""
    protocol: dict[str, Any] = {
        "n_real": reference.moments.count if reference else 0,
        "n_fake": n,
        "extractor": extractor.name,
        "extractor_hash": extractor.hash,
        "reference": describe(reference) if reference else None,
        "quantisation": "8 bits",
        "precision": "float32 features, float64 statistics",
        "biased": n < extractor.num_features,
    }
    return protocol | dict(extractor.protocol)


def _real_figures(reference: Reference | None, n: int) -> tuple[Mapping[str, float], str]:
    """Return what real images reach at the same number of samples, and where that is from."""
    figures = (reference.real.get(str(n)) or reference.real.get("other")) if reference else None
    if figures is None:
        known = ", ".join(reference.real) if reference else ""
        return {}, f"unavailable (on record for n = {known})" if known else "unavailable"
    count = int(figures.get("n", n))
    fewer = f", fewer than the {n} samples: FID is higher for that alone" if count < n else ""
    return figures, f"{reference.real_split}, n = {count}{fewer}"
