"""``python -m lit_aigc.evaluate``: the quality of a bundle's samples in numbers, with their protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lit_aigc.config import DONE, command
from lit_aigc.errors import InputError


def main(config: dict[str, Any]) -> int:
    """Measure what the config asks for, show a table, write JSON, and return the exit code."""
    from lit_aigc.files import write_atomically
    from lit_aigc.report import print_results

    results = evaluate(config)
    out = Path(config["out"] or Path(config["bundle"]).parent / "evaluation.json")
    write_atomically(out, json.dumps(results, indent=2) + "\n")
    print_results(results, {"results": out})
    return DONE


def evaluate(config: dict[str, Any]) -> dict[str, Any]:
    """Metrics of a bundle's samples by key, and ``protocol``.

    Raises:
        InputError: If the bundle can't be read, or the metrics can't be computed.
    """
    from lit_aigc.build import instantiate
    from lit_aigc.bundle import load_bundle
    from lit_aigc.metrics.extractors import extractor as find_extractor
    from lit_aigc.metrics.generative import choose_metrics, evaluate_samples, module_samples
    from lit_aigc.metrics.reference import compute_reference, has_shipped_reference, shipped_reference

    if config["num_samples"] < 2:
        raise InputError(f"num_samples={config['num_samples']}: expected at least 2, better some thousands.")
    if isinstance(config["metrics"], str):
        raise InputError(f"metrics={config['metrics']}: expected a list, such as [{config['metrics']}].")
    bundle = load_bundle(config["bundle"], config["trust"], config["device"])
    module, spec = bundle.module, bundle.spec
    name = config["extractor"] or next(iter(bundle.manifest["protocol"]), "inception")
    network = find_extractor(name, config["weights_path"]).eval().requires_grad_(False).to(config["device"])
    chosen = choose_metrics(config["metrics"], network, spec.num_classes if module.conditional else 0)
    source = config["reference"] or ("shipped" if has_shipped_reference(network, spec) else "train")
    if not {"fid", "kid"} & set(chosen):
        reference = None
    elif source == "shipped":
        reference = shipped_reference(network, spec)
    elif config.get("data"):
        datamodule = instantiate(config["data"])
        if datamodule.spec.shape != spec.shape:
            raise InputError(
                f"data={datamodule.spec.name} has images of shape {datamodule.spec.shape}, the bundle makes "
                f"{spec.shape}: give the data that it was trained on, or set data.image_size and data.channels."
            )
        reference = compute_reference(
            datamodule.real_batches(source),
            network,
            split=f"{datamodule.spec.name}/{source}",
            fingerprint=datamodule.spec.fingerprint,
            device=config["device"],
        )
    else:
        raise InputError(f"FID and KID need real images to compare with: add data=NAME, such as data={spec.name}.")
    samples = module_samples(module, config["num_samples"], config["seed"])
    values, protocol = evaluate_samples(samples, network, reference, chosen, device=config["device"])
    return {
        "bundle": str(config["bundle"]),
        "model": bundle.manifest["data"]["name"],
        **values,
        "protocol": {network.name: protocol | {"sample_seed": config["seed"]}},
    }


if __name__ == "__main__":
    command("evaluate", main)
