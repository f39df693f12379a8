"""All metrics of a set of generated images, from one pass of the feature extractor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lit_aigc.build import did_you_mean
from lit_aigc.errors import InputError
from lit_aigc.media.images import to_uint8
from lit_aigc.metrics import bootstrap as draws
from lit_aigc.metrics.accuracy import ConditionalAccuracy
from lit_aigc.metrics.class_frechet import ClassFrechetDistance
from lit_aigc.metrics.frechet import FrechetDistance
from lit_aigc.metrics.inception_score import InceptionScore
from lit_aigc.metrics.kernel import FeatureSample, KernelDistance
from lit_aigc.metrics.precision_recall import NEIGHBOURS, PrecisionRecall
from lit_aigc.metrics.reference import KID_LIMIT, Reference, describe, extract
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, Condition

METRICS = ("fid", "kid", "is", "accuracy")
ON_REQUEST = ("precision_recall", "class_fid")
BLOCK = 64


def choose_metrics(asked: Sequence[str] | None, extractor: nn.Module, num_classes: int) -> tuple[str, ...]:
    """Which metrics to compute.

    Args:
        asked: Names of `METRICS` and `ON_REQUEST`, or None for all of `METRICS` that go with this extractor and these
            samples.
        extractor: The extractor.
        num_classes: Number of classes that samples are asked for by, 0 for unconditional samples.

    Raises:
        InputError: If a name is unknown, or a metric is asked for that can't be computed.
    """
    known = METRICS + ON_REQUEST
    can_accuracy = 0 < num_classes == extractor.num_classes
    if asked is None:
        possible = {"fid": True, "kid": True, "is": extractor.num_classes > 0, "accuracy": can_accuracy}
        return tuple(name for name in METRICS if possible[name])
    for name in asked:
        if name not in known:
            raise InputError(f"unknown metric {name!r}{did_you_mean(name, known)}")
    if not asked:
        raise InputError(f"metrics is empty: expected some of {', '.join(known)}, or null for all that apply.")
    if "is" in asked and not extractor.num_classes:
        raise InputError(f"The inception score needs logits, and {extractor.name} has none: leave out 'is'.")
    if "accuracy" in asked and not can_accuracy:
        raise InputError(
            f"The accuracy needs samples asked for by the {extractor.num_classes} classes of the extractor "
            f"{extractor.name}; these have {num_classes or 'no'} classes: leave out 'accuracy'."
        )
    if "class_fid" in asked and not num_classes:
        raise InputError("class_fid needs samples asked for by class, and these have none: leave out 'class_fid'.")
    return tuple(name for name in known if name in asked)


def needs_reference(metrics: Sequence[str]) -> bool:
    """Whether some of these metrics compare with real images."""
    return not {"fid", "kid", *ON_REQUEST}.isdisjoint(metrics)


def extractor_of_training(protocol: Mapping[str, Any]) -> str | None:
    """Name of the extractor that training measured with, from the protocol in a summary or manifest, or None."""
    return next((name for name, facts in protocol.items() if facts.get("extractor", name) == name), None)


def module_samples(
    module: Any, n: int, seed: int, *, options: Mapping[str, Any] | None = None, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """This process's share of a model's samples 0 … n - 1, rounded to 8 bits, in blocks of 64 dealt in turn.

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
    """Metrics of generated images against a reference.

    To be called on all processes, each with its share of the samples; all get the same values.

    Args:
        samples: uint8 images, with the classes asked for as labels (for ``accuracy`` and ``class_fid``) and `start`
            their global index.
        extractor: The extractor, on `device`.
        reference: Statistics of the real images; may be None when no metric `needs_reference`; with those of each
            class for ``class_fid``.
        metrics: As `choose_metrics` returns them.
        bootstrap: Number of sets drawn again for the intervals of ``fid``, ``kid`` and ``is``; 0 for none.
        bootstrap_seed: Of these draws.
        device: Where to compute.

    Returns:
        The values by key, ``fid_<extractor>`` and the like, with the floor (``fid_floor_…``, ``kid_floor_…``) and the
        figures of real images (``is_real_…``, ``accuracy_real_…``) at the same number of samples where they are on
        record; ``class_fid_<extractor>``, the mean over classes, and ``class_fid_<extractor>_<class>``; for each number
        with an interval ``…_standard_error``, ``…_low`` and ``…_high``; and the protocol: what the numbers depend on.

    Raises:
        InputError: If there are too few samples, or the reference is of another extractor or lacks the classes.
    """
    if reference is not None and reference.extractor_hash != extractor.hash:
        raise InputError(
            f"The reference was made with an extractor of hash {reference.extractor_hash[:16]}…, the samples are "
            f"measured with {extractor.name} of hash {extractor.hash[:16]}…: make the reference anew."
        )
    if reference is not None and reference.preparation and reference.preparation != extractor.protocol:
        raise InputError(
            f"The reference was made with {reference.preparation}, the samples are measured with {extractor.protocol}: "
            "make the reference anew."
        )
    computed = _make(extractor, reference, metrics)
    if bootstrap:
        computed |= _collectors(extractor, metrics, bootstrap)
    for metric in computed.values():
        metric.to("cpu" if torch.device(device).type == "mps" else device)  # mps has no float64
    n = 0
    for batch in samples:
        features, logits = extract(extractor, batch.images, device)
        n += len(features)
        for name, metric in computed.items():
            arguments = {
                "fid": (features,),
                "kid": (features, batch.start),
                "is": (logits,),
                "accuracy": (logits, batch.labels),
                "precision_recall": (features, batch.start),
                "class_fid": (features, batch.labels),
                "drawn features": (features, batch.start),
                "drawn logits": (logits, batch.start),
            }[name]
            metric.update(*(x.to(metric.device) if isinstance(x, Tensor) else x for x in arguments))
    n = _sum_over_processes(n, device)
    protocol = _protocol(extractor, reference, n)
    results = {name: metric.compute() for name, metric in computed.items()}
    values = {}
    for name in metrics:
        values |= _by_key(name, extractor.name, results[name])
    if "kid" in metrics:
        protocol["n_fake_kid"] = min(n, KID_LIMIT)
    if "precision_recall" in metrics:
        facts = {"neighbours": NEIGHBOURS, "n_real": len(reference.features), "n_fake": min(n, KID_LIMIT)}
        protocol["precision_recall"] = facts
    if "class_fid" in metrics:
        counts = {"n_real": [each.count for each in reference.classes], "n_fake": results["class_fid"]["counts"]}
        protocol["class_fid"] = counts
    if bootstrap:
        values |= _intervals(values, results, extractor.name, reference, n, bootstrap, bootstrap_seed)
        protocol["bootstrap"] = {
            "draws": bootstrap,
            "seed": bootstrap_seed,
            "level": draws.LEVEL,
            "over": "generated samples",
            "n": min(n, KID_LIMIT),
        }
    values |= _real_figures(extractor, reference, metrics, n, protocol)
    return values, protocol


def _make(extractor: nn.Module, reference: Reference | None, metrics: Sequence[str]) -> dict[str, Metric]:
    if reference is None and needs_reference(metrics):
        raise InputError("FID, KID, precision and recall need a reference: give one, or leave them out.")
    if "class_fid" in metrics and not reference.classes:
        raise InputError(
            f"class_fid needs the statistics of each class, and the reference ({reference.split}) has none: take "
            "reference=train (or val, test) of data with labels, or leave out 'class_fid'."
        )
    made: dict[str, Callable[[], Metric]] = {
        "fid": lambda: FrechetDistance(reference.moments),
        "kid": lambda: KernelDistance(reference.features, KID_LIMIT),
        "is": lambda: InceptionScore(extractor.num_classes),
        "accuracy": ConditionalAccuracy,
        "precision_recall": lambda: PrecisionRecall(reference.features, KID_LIMIT),
        "class_fid": lambda: ClassFrechetDistance(reference.classes),
    }
    return {name: made[name]() for name in metrics}


def _collectors(extractor: nn.Module, metrics: Sequence[str], bootstrap: int) -> dict[str, Metric]:
    """What keeps the samples that sets are drawn again from."""
    draws.check_draws(bootstrap)
    made: dict[str, Metric] = {}
    if {"fid", "kid"} & set(metrics):
        made["drawn features"] = FeatureSample(extractor.num_features, KID_LIMIT)
    if "is" in metrics:
        made["drawn logits"] = FeatureSample(extractor.num_classes, KID_LIMIT)
    return made


def _by_key(name: str, extractor: str, value: Any) -> dict[str, float]:
    """What a metric computed, by the keys of a summary."""
    if name == "precision_recall":
        return {f"{part}_{extractor}": number for part, number in value.items()}
    if name == "class_fid":
        distances = value["distances"]
        each = {f"{name}_{extractor}_{label}": distance for label, distance in enumerate(distances)}
        return {f"{name}_{extractor}": sum(distances) / len(distances), **each}
    return {f"{name}_{extractor}": value}


def metric_keys(metrics: Sequence[str], extractor: str, num_classes: int) -> tuple[str, ...]:
    """The keys of the values that `evaluate_samples` returns, without floors and intervals.

    Args:
        metrics: As `choose_metrics` returns them.
        extractor: Name of the extractor.
        num_classes: Number of classes that ``class_fid`` takes apart.
    """
    made_up = {"precision_recall": {"precision": 0.0, "recall": 0.0}, "class_fid": {"distances": [0.0] * num_classes}}
    return tuple(key for name in metrics for key in _by_key(name, extractor, made_up.get(name, 0.0)))


def _intervals(
    values: Mapping[str, float],
    results: Mapping[str, Any],
    extractor: str,
    reference: Reference | None,
    n: int,
    bootstrap: int,
    seed: int,
) -> dict[str, float]:
    """Standard error and 95 % interval of each number that can have them, by key."""
    scale = (min(n, KID_LIMIT) / n) ** 0.5
    found: dict[str, draws.Estimate] = {}
    if "fid" in results:
        drawn = draws.frechet_draws(results["drawn features"], reference.moments, bootstrap, seed=seed)
        found["fid"] = draws.estimate(values[f"fid_{extractor}"], drawn, scale=scale, least=0.0)
    if "kid" in results:
        drawn = draws.kernel_draws(results["drawn features"], reference.features, bootstrap, seed=seed)
        found["kid"] = draws.estimate(values[f"kid_{extractor}"], drawn)
    if "is" in results:
        drawn = draws.inception_score_draws(results["drawn logits"], bootstrap, seed=seed)
        found["is"] = draws.estimate(values[f"is_{extractor}"], drawn, scale=scale, least=1.0)
    parts = ("standard_error", "low", "high")
    return {f"{name}_{extractor}_{part}": getattr(each, part) for name, each in found.items() for part in parts}


def _protocol(extractor: nn.Module, reference: Reference | None, n: int) -> dict[str, Any]:
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


def _real_figures(
    extractor: nn.Module, reference: Reference | None, metrics: Sequence[str], n: int, protocol: dict[str, Any]
) -> dict[str, float]:
    """What real images reach at the same number of samples, and in the protocol where that is from."""
    figures = (reference.real.get(str(n)) or reference.real.get("other")) if reference else None
    if figures is None:
        known = ", ".join(reference.real) if reference else ""
        protocol["floor"] = f"unavailable (on record for n = {known})" if known else "unavailable"
        return {}
    count = int(figures.get("n", n))
    fewer = f", fewer than the {n} samples: FID is higher for that alone" if count < n else ""
    protocol["floor"] = f"{reference.real_split}, n = {count}{fewer}"
    keys = {"fid": "fid_floor", "kid": "kid_floor", "is": "is_real", "accuracy": "accuracy_real"}
    return {f"{keys[name]}_{extractor.name}": figures[name] for name in metrics if name in figures}


def _sum_over_processes(n: int, device: torch.device | str) -> int:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return n
    total = torch.tensor(n, device=device)
    torch.distributed.all_reduce(total)
    return int(total)
