"""What ``python -m lit_aigc.generate`` does with the bundle of a language model: prompts, printed texts, files."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from lit_aigc.errors import InputError
from lit_aigc.files import write_atomically
from lit_aigc.modules.prompts import encode_prompt, shortened, start_of
from lit_aigc.modules.translation import Translator
from lit_aigc.noise import Noise
from lit_aigc.runs.bundle import Bundle
from lit_aigc.sampling.reading import longest_start
from lit_aigc.sampling.text import written
from lit_aigc.sampling.tokens import Decoding
from lit_aigc.spec import Condition

DECODING = tuple(field.name for field in dataclasses.fields(Decoding))
OPTIONS = ("prompt", "prompts", "stream", *DECODING)  # keys of the config that are of text alone
_SHOWN = 40  # characters of a prompt in a headline
# What a terminal would obey is printed as its symbol: a model may write any character.
_SYMBOLS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {127: "\u2421"}
_SYMBOLS |= dict.fromkeys(range(128, 160), "\ufffd")


def write_texts(bundle: Bundle, config: Mapping[str, Any], directory: Path) -> None:
    """Print texts that go on from prompts, or are translations of them, and write each to a file of its own.

    Texts are numbered from ``start`` on, all of the first prompt first; text i is drawn with item i of the noise.

    Raises:
        InputError: If an option is out of range, a prompt can't be read or has what the model never saw.
    """
    given = {name: config[name] for name in DECODING if config[name] is not None}
    if "stop" in given:
        given["stop"] = _stop_strings(given["stop"])
    options = Decoding(**given)
    prompts, n = read_prompts(config["prompt"], config["prompts"]), config["n"] or 1
    if n > 1 and options.deterministic:
        raise InputError(f"n={n}: temperature=0 and beams give the same text each time. Leave n out.")
    if config["stream"] and (n > 1 or len(prompts) > 1):
        raise InputError("stream=true prints one text: give one prompt, and leave n out.")
    module = bundle.module
    if isinstance(module, Translator) and not all(prompts):
        raise InputError("This model translates: give what to translate as prompt, or a file of prompts.")
    encoded = [encode_prompt(prompt, module) for prompt in prompts]
    for prompt, ids in zip(prompts, encoded, strict=True):
        _tell_if_too_long(prompt, len(ids), module.network.context)
    noise = Noise(config["seed"], config["start"])
    if config["stream"]:
        texts = [_print_stream(prompts[0], module, module.stream(encoded[0], noise=noise, **given))]
    else:
        condition = Condition(prompts=tuple(ids for ids in encoded for _ in range(n)))
        drawn = module.sample(n * len(prompts), condition=condition, noise=noise, **given)
        texts = written(drawn, module.tokenizer.decode, options.stop)
    console = Console(highlight=False)
    repeated = [prompt for prompt in prompts for _ in range(n)]
    for i, (prompt, text) in enumerate(zip(repeated, texts, strict=True), config["start"]):
        name = f"{i:06d}.txt"
        start = start_of(prompt, module)
        if not config["stream"]:
            headline = f"{name}, from {visible(shortened(prompt))}" if prompt else name
            console.print(Text(f"── {headline} ──", "dim"), soft_wrap=True)
            console.print(Text.assemble((visible(start), "bold"), visible(text)), soft_wrap=True)
        write_atomically(directory / name, start + text)
    print(f"{len(texts)} {'text is' if len(texts) == 1 else 'texts are'} in {directory}")


def read_prompts(prompt: str | None, file: str | None) -> list[str]:
    """The prompt, or those of a file, one a line; empty lines are none.

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
        raise InputError(f"prompts={file} is empty: expected a prompt a line.")
    return prompts


def visible(text: str) -> str:
    """Text without the control characters that a terminal would obey; line breaks and tabs stay."""
    return text.translate(_SYMBOLS)


def _tell_if_too_long(prompt: str, tokens: int, context: int) -> None:
    if context and tokens + 1 > longest_start(context):
        print(
            f"The prompt {shortened(prompt)} has {tokens:,} tokens: the model, whose context is {context:,}, goes "
            f"on from the last {longest_start(context):,}.",
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
    r"""Stop strings of the command line, where a line break, hard to write there, may stand as ``\n``."""
    strings = given if isinstance(given, list) else [given]
    return [text.replace("\\n", "\n") if isinstance(text, str) else text for text in strings]
