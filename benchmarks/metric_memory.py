"""Peak memory of FID and inception score over numbers of images: it stays where it is.

python benchmarks/metric_memory.py
"""

from __future__ import annotations

import resource
from collections.abc import Iterator

import torch

from lit_aigc.metrics.extractors import extractor
from lit_aigc.metrics.generative import evaluate_samples
from lit_aigc.metrics.reference import shipped_reference
from lit_aigc.spec import Batch


def images(n: int) -> Iterator[Batch]:
    for start in range(0, n, 64):
        yield Batch(torch.randint(0, 256, (min(64, n - start), 1, 28, 28), dtype=torch.uint8), None, start)


def main() -> None:
    network = extractor("mnist_classifier").eval()
    reference = shipped_reference(network)
    evaluate_samples(images(640), network, reference, ("fid", "is"))
    for n in (1_000, 5_000, 50_000):
        evaluate_samples(images(n), network, reference, ("fid", "is"))
        print(f"{n:>7,} images: peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
