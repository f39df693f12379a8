"""``python -m lit_aigc.evaluate``: a bundle in numbers, of its samples and of its likelihood, with their protocol."""

from __future__ import annotations

import json
import math
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
    """Metrics of a bundle by key, and ``protocol``; with ``neighbours`` it writes the picture too.

    Raises:
        InputError: If the bundle can't be read, or the metrics can't be computed.
    """
    from lit_aigc.bundle import load_bundle
    from lit_aigc.metrics.extractors import extractor as find_extractor
    from lit_aigc.metrics.generative import extractor_of_training

    _check(config)
    bundle = load_bundle(config["bundle"], config["trust"], config["device"])
    datamodule = _data(config, bundle)
    values: dict[str, Any] = {}
    protocol: dict[str, Any] = {}
    network = None
    if config["metrics"] != []:
        name = config["extractor"] or extractor_of_training(bundle.manifest["protocol"]) or "inception"
        network = find_extractor(name, config["weights_path"]).eval().requires_grad_(False).to(config["device"])
        values, protocol[network.name] = _measure(config, bundle, datamodule, network)
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
    return {
        "bundle": str(config["bundle"]),
        "model": bundle.manifest["data"]["name"],
        **values,
        "protocol": protocol,
    }


def _out(config: dict[str, Any]) -> Path:
    return Path(config["out"] or Path(config["bundle"]).parent / "evaluation.json")


def _picture(config: dict[str, Any]) -> Path:
    return _out(config).with_name("neighbours.png")


def _check(config: dict[str, Any]) -> None:
    """Refuse numbers that are out of range."""
    from lit_aigc.metrics.bootstrap import LEAST

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


def _data(config: dict[str, Any], bundle: Any) -> Any:
    """The data that the config names, or None; an error if it is needed and isn't there, or doesn't fit the bundle."""
    from lit_aigc.build import instantiate
    from lit_aigc.metrics.likelihood import has_likelihood

    spec = bundle.spec
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
    for key in ("classification_accuracy", "nll_samples", "neighbours"):
        if config[key] and not config.get("data"):
            raise InputError(f"{key} needs real images to compare with: add data=NAME, such as data={spec.name}.")
    if not config.get("data"):
        return None
    datamodule = instantiate(config["data"])
    if datamodule.spec.shape != spec.shape:
        raise InputError(
            f"data={datamodule.spec.name} has images of shape {datamodule.spec.shape}, the bundle makes "
            f"{spec.shape}: give the data that it was trained on, or set data.image_size and data.channels."
        )
    labelled = config["classification_accuracy"] or (config["nll_samples"] and bundle.module.conditional)
    if labelled and datamodule.spec.class_names != spec.class_names:
        raise InputError(
            f"data={datamodule.spec.name} has other classes than the bundle, whose data were {spec.name}: give the "
            "data that it was trained on."
        )
    return datamodule


def _measure(
    config: dict[str, Any], bundle: Any, datamodule: Any, network: Any
) -> tuple[dict[str, float], dict[str, Any]]:
    """The metrics on an extractor, and their protocol."""
    from lit_aigc.metrics.generative import choose_metrics, evaluate_samples, module_samples, needs_reference
    from lit_aigc.metrics.reference import compute_reference, has_shipped_reference, shipped_reference

    module, spec = bundle.module, bundle.spec
    chosen = choose_metrics(config["metrics"], network, spec.num_classes if module.conditional else 0)
    by_class = "class_fid" in chosen  # nothing is shipped for each class
    source = config["reference"] or ("shipped" if has_shipped_reference(network, spec) and not by_class else "train")
    if not needs_reference(chosen):
        reference = None
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
        raise InputError(
            f"Of {', '.join(chosen)} some need real images to compare with: add data=NAME, such as data={spec.name}."
        )
    samples = module_samples(module, config["num_samples"], config["seed"])
    values, protocol = evaluate_samples(
        samples, network, reference, chosen, bootstrap=config["bootstrap"], device=config["device"]
    )
    return values, protocol | {"sample_seed": config["seed"]}


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
    """The test likelihood; on a terminal a bar shows how far it is."""
    from rich.console import Console
    from rich.progress import track

    from lit_aigc.metrics.likelihood import evaluate_likelihood

    images = min(len(datamodule.split("test")), config["nll_images"] or math.inf)
    console = Console(stderr=True)
    batches = track(
        datamodule.real_batches("test", limit=images),
        "test likelihood",
        total=math.ceil(images / datamodule.eval_batch_size),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    values, protocol = evaluate_likelihood(bundle.module, batches, config["nll_samples"], seed=config["seed"])
    return values, {"split": f"{datamodule.spec.name}/test", "fingerprint": datamodule.spec.fingerprint} | protocol


if __name__ == "__main__":
    command("evaluate", main)
