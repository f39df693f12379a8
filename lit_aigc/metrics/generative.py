"""All metrics of a set of generated images, from one pass of the feature extractor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lit_aigc.build import did_you_mean
from lit_aigc.errors import InputError
from lit_aigc.media import to_uint8
from lit_aigc.metrics.accuracy import ConditionalAccuracy
from lit_aigc.metrics.frechet import FrechetDistance
from lit_aigc.metrics.inception_score import InceptionScore
from lit_aigc.metrics.kernel import KernelDistance
from lit_aigc.metrics.reference import Reference, describe, extract
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, Condition

METRICS = ("fid", "kid", "is", "accuracy")
BLOCK = 64
KID_LIMIT = 10_000


def choose_metrics(asked: Sequence[str] | None, extractor: nn.Module, num_classes: int) -> tuple[str, ...]:
    """Which metrics to compute.

    Args:
        asked: Names of `METRICS`, or None for all that go with this extractor and these samples.
        extractor: The extractor.
        num_classes: Number of classes that samples are asked for by, 0 for unconditional samples.

    Raises:
        InputError: If a name is unknown, or a metric is asked for that can't be computed.
    """
    can_accuracy = 0 < num_classes == extractor.num_classes
    if asked is None:
        possible = {"fid": True, "kid": True, "is": extractor.num_classes > 0, "accuracy": can_accuracy}
        return tuple(name for name in METRICS if possible[name])
    for name in asked:
        if name not in METRICS:
            raise InputError(f"unknown metric {name!r}{did_you_mean(name, METRICS)}")
    if not asked:
        raise InputError(f"metrics is empty: expected some of {', '.join(METRICS)}, or null for all that apply.")
    if "is" in asked and not extractor.num_classes:
        raise InputError(f"The inception score needs logits, and {extractor.name} has none: leave out 'is'.")
    if "accuracy" in asked and not can_accuracy:
        raise InputError(
            f"The accuracy needs samples asked for by the {extractor.num_classes} classes of the extractor "
            f"{extractor.name}; these have {num_classes or 'no'} classes: leave out 'accuracy'."
        )
    return tuple(name for name in METRICS if name in asked)


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
    device: torch.device | str = "cpu",
) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics of generated images against a reference.

    To be called on all processes, each with its share of the samples; all get the same values.

    Args:
        samples: uint8 images, with the classes asked for as labels (for ``accuracy``) and `start` their global index.
        extractor: The extractor, on `device`.
        reference: Statistics of the real images; may be None when neither ``fid`` nor ``kid`` is computed.
        metrics: As `choose_metrics` returns them.
        device: Where to compute.

    Returns:
        The values by key, ``fid_<extractor>`` and the like, with the floor (``fid_floor_…``, ``kid_floor_…``) and the
        figures of real images (``is_real_…``, ``accuracy_real_…``) at the same number of samples where they are on
        record; and the protocol: what the numbers depend on.

    Raises:
        InputError: If there are too few samples, or the reference is of another extractor.
    """
    if reference is not None and reference.extractor_hash != extractor.hash:
        raise InputError(
            f"The reference was made with an extractor of hash {reference.extractor_hash[:16]}…, the samples are "
            f"measured with {extractor.name} of hash {extractor.hash[:16]}…: make the reference anew."
        )
    computed = _make(extractor, reference, metrics)
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
            }[name]
            metric.update(*(x.to(metric.device) if isinstance(x, Tensor) else x for x in arguments))
    n = _sum_over_processes(n, device)
    values = {f"{name}_{extractor.name}": metric.compute() for name, metric in computed.items()}
    protocol = _protocol(extractor, reference, n)
    if "kid" in metrics:
        protocol["n_fake_kid"] = min(n, KID_LIMIT)
    values |= _real_figures(extractor, reference, metrics, n, protocol)
    return values, protocol


def _make(extractor: nn.Module, reference: Reference | None, metrics: Sequence[str]) -> dict[str, Metric]:
    if reference is None and ("fid" in metrics or "kid" in metrics):
        raise InputError("FID and KID need a reference: give one, or leave them out.")
    made: dict[str, Callable[[], Metric]] = {
        "fid": lambda: FrechetDistance(reference.moments),
        "kid": lambda: KernelDistance(reference.features, KID_LIMIT),
        "is": lambda: InceptionScore(extractor.num_classes),
        "accuracy": ConditionalAccuracy,
    }
    return {name: made[name]() for name in metrics}


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
    figures = reference.real.get(str(n)) if reference else None
    if figures is None:
        known = ", ".join(reference.real) if reference else ""
        protocol["floor"] = f"unavailable (on record for n = {known})" if known else "unavailable"
        return {}
    protocol["floor"] = f"{reference.real_split}, n = {n}"
    keys = {"fid": "fid_floor", "kid": "kid_floor", "is": "is_real", "accuracy": "accuracy_real"}
    return {f"{keys[name]}_{extractor.name}": figures[name] for name in metrics if name in figures}


def _sum_over_processes(n: int, device: torch.device | str) -> int:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return n
    total = torch.tensor(n, device=device)
    torch.distributed.all_reduce(total)
    return int(total)
