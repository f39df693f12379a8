"""Numbers that need the model and its data, not only its images; one function per option."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from lit_aigc.evaluate.output import picture_file, shown
from lit_aigc.evaluate.subject import Subject
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch

Numbers = tuple[dict[str, Any], dict[str, Any]]


def classification_accuracy(config: Mapping[str, Any], subject: Subject, network: nn.Module | None) -> Numbers:
    """Measure the classification accuracy score, and that of as many real images, drawn from ``train`` at random."""
    from lit_aigc.metrics import classification
    from lit_aigc.metrics.generative import module_samples

    bundle, data = subject.bundle, subject.datamodule
    seed, number, train = config["seed"], config["classification_accuracy"], data.split("train")
    keys = Noise(seed).stream("real training images").bits(len(train), 1)[:, 0]
    values, protocol = classification.classification_accuracy(
        module_samples(bundle.module, number, seed),
        train.batch(0, keys.argsort(stable=True)[:number]),
        data.real_batches("test"),
        bundle.spec.num_classes,
        seed=seed,
        recipe=classification.ClassifierRecipe(bf16=config["bf16"]),
        device=config["device"],
    )
    facts = {"data": data.spec.name, "fingerprint": data.spec.fingerprint, "sample_seed": seed}
    return values, {"classification_accuracy": protocol | facts}


def likelihood(config: Mapping[str, Any], subject: Subject, network: nn.Module | None) -> Numbers:
    """Measure the likelihood of the test images, or of ``nll_images`` of them, drawn at random."""
    from lit_aigc.metrics.likelihood import evaluate_likelihood

    data, seed = subject.datamodule, config["seed"]
    of = len(data.split("test"))
    images = min(of, config["nll_images"] or of)
    chosen = data.real_batches("test") if images == of else random_batches(data, images, seed)
    batches = shown(chosen, "test likelihood", images, data.eval_batch_size)
    values, protocol = evaluate_likelihood(subject.bundle.module, batches, config["nll_samples"], seed=seed)
    which = "all" if images == of else f"{images} of {of} at random, seed {seed}"
    facts = {"split": f"{data.spec.name}/test", "chosen": which, "fingerprint": data.spec.fingerprint}
    return values, {"likelihood": facts | protocol}


def random_batches(data: Any, images: int, seed: int) -> Iterator[Batch]:
    """Yield random test images without repetition, by seed; the first of a split may be unlike the rest."""
    test = data.split("test")
    keys = Noise(seed).stream("test images").bits(len(test), 1)[:, 0]
    places = keys.argsort(stable=True)[:images].sort().values
    for start in range(0, images, data.eval_batch_size):
        yield test.batch(start, places[start : start + data.eval_batch_size])


def memorization(config: Mapping[str, Any], subject: Subject, network: nn.Module | None) -> Numbers:
    """Test whether samples repeat training images, and write a picture of the most suspicious."""
    from lit_aigc.evaluate.audit import LIMIT, audit
    from lit_aigc.media.images import save_png
    from lit_aigc.metrics.generative import module_samples

    if subject.bundle:
        samples = module_samples(subject.bundle.module, min(config["num_samples"], LIMIT), config["seed"])
    else:
        samples = subject.fake.batches(config["batch_size"])
    found = audit(samples, subject.datamodule, network, device=config["device"])
    save_png(found.picture, picture_file(config))
    facts = {"sample_seed": config["seed"]} if subject.bundle else {}
    return found.values, {"memorisation": found.protocol | facts}
