"""Texts from the bundle of a language model: printed, and each written to a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from lit_aigc.errors import InputError
from lit_aigc.files import write_atomically
from lit_aigc.media.text import decode
from lit_aigc.modules.language_model import encode_prompt, shortened, start_of
from lit_aigc.noise import Noise
from lit_aigc.runs.bundle import Bundle
from lit_aigc.sampling.reading import longest_start
from lit_aigc.sampling.tokens import Decoding
from lit_aigc.spec import Condition

# Control characters are printed as their symbols: a model may write any character, and a terminal would obey some.
_SYMBOLS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {127: "\u2421"}
_SYMBOLS |= dict.fromkeys(range(128, 160), "\ufffd")


def write(bundle: Bundle, config: Mapping[str, Any], directory: Path) -> str:
    """Print texts that continue prompts, or translate them, and write each to a file of its own.

    Texts are numbered from ``start`` on, beginning with all of the first prompt; text i is drawn with item i of the
    noise.

    Returns:
        What was written, in words.

    Raises:
        InputError: If an option is out of range, or a prompt can't be read or has characters or words that the model
            never saw.
    """
    asked = config["text"]
    given = {name: value for name, value in asked["decoding"].items() if value is not None}
    if "stop" in given:
        given["stop"] = _stop_strings(given["stop"])
    options = Decoding(**given)
    prompts, n = read_prompts(asked["prompt"], asked["prompts"]), config["n"] or 1
    if n > 1 and options.deterministic:
        raise InputError(f"n={n}: temperature=0 and beams give the same text each time. Leave n out.")
    if asked["stream"] and (n > 1 or len(prompts) > 1):
        raise InputError("stream=true prints one text: give one prompt, and leave n out.")
    module = bundle.module
    if module.translates and not all(prompts):
        raise InputError("This model translates: give what to translate as prompt, or a file of prompts.")
    encoded = [encode_prompt(prompt, module) for prompt in prompts]
    for prompt, ids in zip(prompts, encoded, strict=True):
        _warn_if_too_long(prompt, len(ids), module.network.context)
    noise = Noise(config["seed"], config["start"])
    if asked["stream"]:
        texts = [_print_stream(prompts[0], module, module.stream(encoded[0], noise=noise, **given))]
    else:
        condition = Condition(prompts=tuple(ids for ids in encoded for _ in range(n)))
        drawn = module.sample(n * len(prompts), condition=condition, noise=noise, **given)
        texts = decode(drawn, module, options.stop)
    console = Console(highlight=False)
    repeated = [prompt for prompt in prompts for _ in range(n)]
    for i, (prompt, text) in enumerate(zip(repeated, texts, strict=True), config["start"]):
        name = f"{i:06d}.txt"
        start = start_of(prompt, module)
        if not asked["stream"]:
            headline = f"{name}, from {visible(shortened(prompt))}" if prompt else name
            console.print(Text(f"── {headline} ──", "dim"), soft_wrap=True)
            console.print(Text.assemble((visible(start), "bold"), visible(text)), soft_wrap=True)
        write_atomically(directory / name, start + text)
    return f"{len(texts)} {'text is' if len(texts) == 1 else 'texts are'}"


def sample(bundle: Bundle, n: int, noise: Noise, prompt: str = "", **decoding: Any) -> list[str]:
    """Draw texts; see `lit_aigc.generate.run.sample`."""
    module = bundle.module
    condition = Condition(prompts=(encode_prompt(prompt, module),) * n)
    texts = decode(module.sample(n, condition=condition, noise=noise, **decoding), module, decoding.get("stop", ()))
    return [start_of(prompt, module) + text for text in texts]


def read_prompts(prompt: str | None, file: str | None) -> list[str]:
    """Return the prompt, or the prompts of a file, one per line; empty lines are skipped.

    Raises:
        InputError: If both are given, or the file can't be read or has no prompts.
    """
    if file is None:
        return [prompt or ""]
    if prompt is not None:
        raise InputError("prompt and prompts: give one of them.")
    try:
        prompts = [line for line in Path(file).read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"prompts={file} can't be read: {error}. Expected a text file in UTF-8.") from error
    if not prompts:
        raise InputError(f"prompts={file} is empty: expected one prompt per line.")
    return prompts


def visible(text: str) -> str:
    """Replace the control characters that a terminal would obey; line breaks and tabs stay."""
    return text.translate(_SYMBOLS)


def _warn_if_too_long(prompt: str, tokens: int, context: int) -> None:
    if context and tokens + 1 > longest_start(context):
        print(
            f"The prompt {shortened(prompt)} has {tokens:,} tokens: the model, whose context is {context:,}, continues "
            f"from the last {longest_start(context):,}.",
            file=sys.stderr,
        )


def _print_stream(prompt: str, module: Any, pieces: Iterable[str]) -> str:
    Console(highlight=False).print(Text(visible(start_of(prompt, module)), "bold"), end="", soft_wrap=True)
    so_far = []
    for piece in pieces:
        print(visible(piece), end="", flush=True)
        so_far.append(piece)
    print()
    return "".join(so_far)


def _stop_strings(given: Any) -> list[Any]:
    r"""Return stop strings from the command line, where a line break may be written as ``\n``."""
    strings = given if isinstance(given, list) else [given]
    return [text.replace("\\n", "\n") if isinstance(text, str) else text for text in strings]
