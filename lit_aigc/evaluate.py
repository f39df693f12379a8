"""``python -m lit_aigc.evaluate``: a bundle, or images from elsewhere, in numbers with their protocol."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lit_aigc.config import DONE, command
from lit_aigc.errors import InputError


def main(config: dict[str, Any]) -> int:
    """Measure what the config asks for, show a table, write JSON, and return the exit code."""
    from lit_aigc.files import write_atomically
    from lit_aigc.report import print_results

    results = evaluate(config)
    out = _out(config)
    write_atomically(out, json.dumps(results, indent=2) + "\n")
    picture = {"picture": _picture(config)} if config["neighbours"] else {}
    print_results(results, {"results": out, **picture})
    return DONE


def evaluate(config: dict[str, Any]) -> dict[str, Any]:
    """Metrics of a bundle or a set of images by key, and ``protocol``; with ``neighbours`` it writes the picture too.

    Raises:
        InputError: If the bundle or a set can't be read, or the metrics can't be computed.
    """
    from lit_aigc.bundle import load_bundle, to_device
    from lit_aigc.metrics.extractors import extractor as find_extractor
    from lit_aigc.metrics.generative import extractor_of_training
    from lit_aigc.metrics.image_sets import open_image_set

    _check(config)
    bundle = load_bundle(config["bundle"], config["trust"], config["device"]) if config["bundle"] else None
    real, fake = (open_image_set(config[key], key) if config[key] else None for key in ("real", "fake"))
    datamodule = _data(config, bundle, fake)
    values: dict[str, Any] = {}
    protocol: dict[str, Any] = {}
    network = None
    if config["metrics"] != []:
        of_training = extractor_of_training(bundle.manifest["protocol"]) if bundle else None
        network = find_extractor(config["extractor"] or of_training or "inception", config["weights_path"])
        network = to_device(network.eval().requires_grad_(False), config["device"])
        values, protocol[network.name] = _measure(config, bundle or fake, real, datamodule, network)
    if config["classification_accuracy"]:
        found, protocol["classification_accuracy"] = _classification_accuracy(config, bundle, datamodule)
        values |= found
    if config["nll_samples"]:
        found, protocol["likelihood"] = _likelihood(config, bundle, datamodule)
        values |= found
    if config["neighbours"]:
        from lit_aigc.callbacks.neighbours import NearestNeighbours
        from lit_aigc.media import save_png

        nearest = NearestNeighbours(seed=config["seed"])
        save_png(nearest.compare(bundle.module, datamodule, network), _picture(config))
        summary = nearest.summary()
        protocol |= summary.pop("protocol")
        values |= summary
    if bundle:
        measured = {"bundle": str(config["bundle"]), "model": bundle.manifest["data"]["name"]}
    else:
        measured = {"fake": fake.path}
    return measured | ({"real": real.path} if real else {}) | values | {"protocol": protocol}


def _out(config: dict[str, Any]) -> Path:
    if config["out"]:
        return Path(config["out"])
    if config["bundle"]:
        return Path(config["bundle"]).parent / "evaluation.json"
    fake = Path(config["fake"]).absolute()
    return fake.with_name(f"{fake.name}.evaluation.json")


def _picture(config: dict[str, Any]) -> Path:
    return _out(config).with_name("neighbours.png")


def _check(config: dict[str, Any]) -> None:
    """Refuse numbers that are out of range, and what doesn't go together."""
    from lit_aigc.metrics.bootstrap import LEAST

    _check_sources(config)
    number = config["classification_accuracy"]
    if config["num_samples"] < 2:
        raise InputError(f"num_samples={config['num_samples']}: expected at least 2, better some thousands.")
    if isinstance(config["metrics"], str):
        raise InputError(f"metrics={config['metrics']}: expected a list, such as [{config['metrics']}].")
    if number is not None and (type(number) is not int or number < 2):
        raise InputError(
            f"classification_accuracy={number}: expected the number of samples that a classifier is trained on, such "
            "as 60_000, or null."
        )
    for key, least, of_what in (("nll_samples", 1, "latents drawn for an image"), ("nll_images", 2, "test images")):
        if (value := config[key]) is not None and (type(value) is not int or value < least):
            raise InputError(f"{key}={value}: expected the number of {of_what}, {least} or more, or null.")
    if type(bootstrap := config["bootstrap"]) is not int or (bootstrap and bootstrap < LEAST):
        raise InputError(f"bootstrap={bootstrap}: expected 0, or the number of draws, {LEAST} or more, such as 200.")
    if config["nll_images"] and not config["nll_samples"]:
        raise InputError("nll_images goes with nll_samples: give the number of latents too, such as nll_samples=500.")
    if config["metrics"] == [] and not (number or config["neighbours"] or config["nll_samples"]):
        raise InputError(
            "metrics is empty, and nothing else is asked for: expected some of fid, kid, is, accuracy, "
            "precision_recall, class_fid, or null for the first four where they apply."
        )


def _check_sources(config: dict[str, Any]) -> None:
    """Refuse too little or too much to measure, and to compare with."""
    if not (config["bundle"] or config["fake"]):
        raise InputError(
            "bundle= is missing, and so is fake=: give a trained model, bundle=<run folder>/bundle, or generated "
            "images, fake=PATH with real=PATH to compare with, each a folder, a .zip or an .npz; see --help"
        )
    if config["bundle"] and config["fake"]:
        raise InputError("bundle= and fake= are both given: leave out one of them, for one is measured at a time.")
    for key in ("data", "reference"):
        if config["real"] and config.get(key):
            raise InputError(f"real= and {key}= both say what to compare with: leave out one of them.")
    for key in ("classification_accuracy", "nll_samples", "neighbours"):
        if config["fake"] and config[key]:
            raise InputError(f"{key} needs a model, not only its images: give bundle= instead of fake=.")
    if type(config["batch_size"]) is not int or config["batch_size"] < 1:
        raise InputError(f"batch_size={config['batch_size']}: expected 1 or more, such as 64.")


def _data(config: dict[str, Any], bundle: Any, fake: Any) -> Any:
    """The data that the config names, or None; an error if it is needed and isn't there, or doesn't fit."""
    from lit_aigc.build import instantiate

    datamodule = None
    if bundle:
        _check_needs(config, bundle)
    if config.get("data"):
        datamodule = instantiate(config["data"])
        _check_fit(config, datamodule.spec, bundle, fake)
    return datamodule


def _check_needs(config: dict[str, Any], bundle: Any) -> None:
    from lit_aigc.metrics.likelihood import has_likelihood

    if config["classification_accuracy"] and not bundle.module.conditional:
        raise InputError(
            "The classification accuracy score needs a conditional model: this one can't be asked for a class, so its "
            "samples have no labels to train a classifier on. Leave classification_accuracy out."
        )
    if config["nll_samples"] and not has_likelihood(bundle.module):
        raise InputError(
            "nll_samples needs a model that gives images a likelihood, such as a VAE, and this one, a "
            f"{type(bundle.module).__name__}, only samples. Leave nll_samples out."
        )
    name = bundle.spec.name
    for key in ("classification_accuracy", "nll_samples", "neighbours"):
        if config[key] and not config.get("data"):
            raise InputError(f"{key} needs real images to compare with: add data=NAME, such as data={name}.")


def _check_fit(config: dict[str, Any], data: Any, bundle: Any, fake: Any) -> None:
    if fake:
        if data.shape[1:] != fake.shape[1:]:
            raise InputError(
                f"data={data.name} has images of {_size(data)} (height x width), {fake.called} of {_size(fake)}: set "
                "data.image_size, or give real=PATH with images of the same size."
            )
        return
    spec = bundle.spec
    if data.shape != spec.shape:
        raise InputError(
            f"data={data.name} has images of shape {data.shape}, the bundle makes "
            f"{spec.shape}: give the data that it was trained on, or set data.image_size and data.channels."
        )
    labelled = config["classification_accuracy"] or (config["nll_samples"] and bundle.module.conditional)
    if labelled and data.class_names != spec.class_names:
        raise InputError(
            f"data={data.name} has other classes than the bundle, whose data were {spec.name}: give the "
            "data that it was trained on."
        )


def _size(images: Any) -> str:
    return "x".join(map(str, images.shape[1:]))


def _measure(
    config: dict[str, Any], measured: Any, real: Any, datamodule: Any, network: Any
) -> tuple[dict[str, float], dict[str, Any]]:
    """The metrics of a bundle or a set of images on an extractor, and their protocol."""
    from lit_aigc.metrics.generative import choose_metrics, evaluate_samples, module_samples, needs_reference
    from lit_aigc.metrics.image_sets import ImageSet, check_pair, refuse_colours
    from lit_aigc.metrics.reference import compute_reference, has_shipped_reference, shipped_reference
    from lit_aigc.spec import DataSpec

    fake = measured if isinstance(measured, ImageSet) else None
    spec = datamodule.spec if fake and datamodule else DataSpec("image", fake.shape) if fake else measured.spec
    conditional = not fake and measured.module.conditional
    chosen = choose_metrics(config["metrics"], network, spec.num_classes if conditional else 0)
    by_class = "class_fid" in chosen  # nothing is shipped for each class
    source = config["reference"] or ("shipped" if has_shipped_reference(network, spec) and not by_class else "train")
    for image_set in filter(None, (real, fake)):
        refuse_colours(image_set, network)
    if not needs_reference(chosen):
        reference = None
    elif real is not None:
        check_pair(real, fake.shape if fake else spec.shape, network)
        reference = _reference_of(config, real, network)
    elif source == "shipped":
        reference = shipped_reference(network, spec)
    elif datamodule is not None:
        reference = compute_reference(
            datamodule.real_batches(source),
            network,
            split=f"{datamodule.spec.name}/{source}",
            fingerprint=datamodule.spec.fingerprint,
            num_classes=spec.num_classes if by_class else 0,
            device=config["device"],
        )
    else:
        data = f", such as data={spec.name}" if spec.name else ""
        raise InputError(
            f"Of {', '.join(chosen)} some need real images to compare with: add data=NAME{data}, or real=PATH, a "
            "folder, a .zip or an .npz of images."
        )
    if fake:
        samples = _shown(fake.batches(config["batch_size"]), "fake", fake.count, config["batch_size"])
        facts = {"quantisation": "none: the files have 8 bits", "fake": fake.facts()}
    else:
        samples = module_samples(measured.module, config["num_samples"], config["seed"])
        facts = {"sample_seed": config["seed"]}
    values, protocol = evaluate_samples(
        samples, network, reference, chosen, bootstrap=config["bootstrap"], device=config["device"]
    )
    if real and reference:
        facts |= {"real": real.facts(), "biased": protocol["biased"] or real.count < network.num_features}
    return values, protocol | facts


def _reference_of(config: dict[str, Any], real: Any, network: Any) -> Any:
    """Statistics of a set of real images, from the user's cache where they are known."""
    from lit_aigc.data import cache
    from lit_aigc.metrics.frechet import Moments
    from lit_aigc.metrics.generative import KID_LIMIT
    from lit_aigc.metrics.reference import Reference, compute_reference

    facts = [1, real.fingerprint, network.name, network.hash, network.protocol, KID_LIMIT]
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
    key = f"reference_{network.name}_{digest}"
    known = cache.load_tensors(key) if config["cache"] else None
    if known is not None:
        moments = Moments(int(known["count"]), known["mean"], known["covariance"])
        return Reference(moments, known["features"], network.hash, real.called, real.fingerprint)
    batches = _shown(real.batches(config["batch_size"]), "real", real.count, config["batch_size"])
    reference = compute_reference(
        batches,
        network,
        split=real.called,
        fingerprint=real.fingerprint,
        limit=KID_LIMIT,
        device=config["device"],
    )
    if config["cache"]:
        import torch

        tensors = {"count": torch.tensor(reference.moments.count), "features": reference.features}
        tensors |= {"mean": reference.moments.mean, "covariance": reference.moments.covariance}
        cache.store_tensors(key, {name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
    return reference


def _shown(batches: Iterable[Any], what: str, count: int, size: int) -> Iterable[Any]:
    """The batches; on a terminal a bar shows how far it is."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not console.is_terminal
    return track(batches, what, total=math.ceil(count / size), console=console, transient=True, disable=hidden)


def _classification_accuracy(
    config: dict[str, Any], bundle: Any, datamodule: Any
) -> tuple[dict[str, float], dict[str, Any]]:
    """The classification accuracy score, and that of as many real images, drawn from ``train`` at random."""
    from lit_aigc.metrics.classification import ClassifierRecipe, classification_accuracy
    from lit_aigc.metrics.generative import module_samples
    from lit_aigc.noise import Noise

    seed, number, train = config["seed"], config["classification_accuracy"], datamodule.split("train")
    keys = Noise(seed).stream("real training images").bits(len(train), 1)[:, 0]
    real = train.batch(0, keys.argsort(stable=True)[:number])
    values, protocol = classification_accuracy(
        module_samples(bundle.module, number, seed),
        real,
        datamodule.real_batches("test"),
        bundle.spec.num_classes,
        seed=seed,
        recipe=ClassifierRecipe(bf16=config["bf16"]),
        device=config["device"],
    )
    facts = {"data": datamodule.spec.name, "fingerprint": datamodule.spec.fingerprint, "sample_seed": seed}
    return values, protocol | facts


def _likelihood(config: dict[str, Any], bundle: Any, datamodule: Any) -> tuple[dict[str, float], dict[str, Any]]:
    """The test likelihood."""
    from lit_aigc.metrics.likelihood import evaluate_likelihood

    images = min(len(datamodule.split("test")), config["nll_images"] or math.inf)
    batches = datamodule.real_batches("test", limit=images)
    batches = _shown(batches, "test likelihood", images, datamodule.eval_batch_size)
    values, protocol = evaluate_likelihood(bundle.module, batches, config["nll_samples"], seed=config["seed"])
    return values, {"split": f"{datamodule.spec.name}/test", "fingerprint": datamodule.spec.fingerprint} | protocol


if __name__ == "__main__":
    command("evaluate", main)
