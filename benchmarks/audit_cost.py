"""Time and peak memory of a memorization audit: 1,000 samples and the test images against all training images.

The samples are validation images, so it doesn't include the time to generate them.

    python benchmarks/audit_cost.py DATA_ROOT [samples [test images [extractor or none]]]

with Fashion-MNIST in torchvision's layout in DATA_ROOT. It reports wall-clock time, processor time, which other
programs on the machine disturb less, and how much the peak of resident memory grew after the data was read.
"""

from __future__ import annotations

import resource
import sys
import time

from lit_aigc.data.images import ImageData
from lit_aigc.data.sources import TorchvisionImages
from lit_aigc.evaluate import audit as module
from lit_aigc.metrics.features.extractors import extractor


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    root, *rest = sys.argv[1:]
    samples, images, name = [*rest, *("1000", "10000", "fashion_mnist_classifier")[len(rest) :]]
    module.LIMIT = int(images)
    data = ImageData(TorchvisionImages("FashionMNIST"), root=root)
    data.spec  # noqa: B018  reads the data
    for network in [None] + ([] if name == "none" else [extractor(name)]):
        before, clock, processor = peak(), time.perf_counter(), time.process_time()
        found = module.audit(data.real_batches("val", limit=int(samples)), data, network)
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
        facts = {key: found.protocol[key] for key in ("n_fake", "n_real", "n_train")}
        spaces = "pixels" + (f" and {network.name}" if network else "")
        print(f"{spaces}: {clock:.1f} s, {processor:.1f} s of processors, +{peak() - before:.0f} MiB, {facts}")


if __name__ == "__main__":
    main()
