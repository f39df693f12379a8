"""Measure a language model: the likelihood of held-out text, and generated text against as much real text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from lit_aigc.errors import InputError, check, not_whole
from lit_aigc.evaluate.checks import refuse_options_of_images
from lit_aigc.losses.language import likelihood_figures
from lit_aigc.metrics.bleu import bleu
from lit_aigc.metrics.novelty import copied_share, longest_copy
from lit_aigc.metrics.text_likelihood import text_likelihood
from lit_aigc.metrics.text_quality import distinct, first_words, repetition, self_bleu, words
from lit_aigc.noise import Noise
from lit_aigc.sampling.tokens import Decoding
from lit_aigc.spec import Condition

Numbers = tuple[dict[str, Any], dict[str, Any]]

PROTOCOLS = ("windows", "strided", "carried")
_MEANING = {
    "windows": "windows of the context that don't overlap, each on its own",
    "sentences": "each sentence on its own",
    "strided": "windows that advance by the stride, of which only new targets count",
    "carried": "rows of consecutive text, each read from beginning to end while carrying the state",
}
REPEATED = 4  # n of the repetition rate
COPIED = (4, 8)  # lengths in words of the n-grams looked up in the training text
_SEARCH = {"beams": 4}
_DRAWING = {"temperature", "top_k", "top_p", "min_p"}
_BOUNDARY = 0
_BLOCK = 64  # texts generated at a time
_PROMPT = 32  # tokens of a prompt from the middle of a text
_READ = 1 << 22  # tokens of held-out text from which excerpts are taken


@dataclasses.dataclass(frozen=True)
class TextOptions:
    """Options of an evaluation of text, as ``text`` in ``conf/evaluate.yaml``.

    Attributes:
        split: ``val`` or ``test``: the held-out text.
        protocols: Of the likelihood, some of `PROTOCOLS`; for data of sentences ``windows`` means one sentence each.
        texts: Number of generated texts, and of real ones; 0: none.
        decoding: Fields of `lit_aigc.sampling.tokens.Decoding`; those of None keep their defaults.
        searching: The same for translations, which use beam search unless `decoding` says how to draw.
        prompt_tokens: Tokens of held-out text that each generated text continues; None: 0 if the held-out text has at
            least as many texts as wanted, else 32.
    """

    split: str = "val"
    protocols: Sequence[str] = ("windows",)
    texts: int = 200
    decoding: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    prompt_tokens: int | None = None
    searching: Decoding = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        allowed, texts, prompt = ", ".join(PROTOCOLS), self.texts, self.prompt_tokens
        chosen = not isinstance(self.protocols, str) and set(self.protocols) <= set(PROTOCOLS)
        check(
            ("text.split", self.split, self.split in ("val", "test"), "val or test."),
            ("text.protocols", self.protocols, chosen, f"a list of some of {allowed}."),
            ("text.texts", texts, not not_whole("", texts, least=0) and texts != 1, "0, or 2 or more."),
            ("text.prompt_tokens", prompt, prompt is None or not not_whole("", prompt, least=0), "0 or more."),
        )
        given = {name: value for name, value in self.decoding.items() if value is not None}
        object.__setattr__(self, "searching", Decoding(**(_SEARCH | given if not _DRAWING & set(given) else given)))
        object.__setattr__(self, "decoding", Decoding(**given))


class Excerpt(NamedTuple):
    """Ids of held-out text: a prompt, and the rest of the text up to its end."""

    prompt: np.ndarray
    rest: np.ndarray


def prepare_data(config: Mapping[str, Any], data: Any, bundle: Any, fake: None) -> None:
    """Read a data set with the tokenizer of the model.

    Raises:
        InputError: If it isn't text.
    """
    if not hasattr(data, "use_tokenizer"):
        raise InputError(
            f"data={data.spec.name} holds {data.spec.modality} data, and the bundle is a language model: give the data "
            f"that it was trained on, such as data={bundle.spec.name}."
        )
    data.use_tokenizer(bundle.module.tokenizer)


def measure(config: Mapping[str, Any], subject: Any) -> Numbers:
    """Measure a language model, and return its metrics by key and their protocol by name.

    Args:
        config: Has ``text``, the fields of `TextOptions`, and ``seed``.
        subject: Has ``bundle``, the model, and ``datamodule``, a text data set.

    Raises:
        InputError: If an option is wrong, or the data doesn't fit the model.
    """
    refuse_options_of_images(config)
    options, module, data = TextOptions(**config["text"]), subject.bundle.module, subject.datamodule
    if data is None:
        name = subject.bundle.spec.name
        raise InputError(f"A language model is measured on held-out text: add data=NAME, such as data={name}.")
    _check_fit(subject.bundle, data)
    with module.evaluating():
        if next(iter(data.originals(options.split)), None) is not None:
            return translation(module, data, options, config["seed"])
        values, protocol = likelihood(module, data, options)
        found, facts = generation(module, data, options, config["seed"]) if options.texts else ({}, {})
    return values | found, protocol | facts


def _check_fit(bundle: Any, data: Any) -> None:
    own, given = bundle.module.tokenizer, data.tokenizer
    if own is not given and own.to_dict() != given.to_dict():
        raise InputError(
            f"data={data.spec.name} has other tokens ({given.name}, {given.vocab_size} ids) than the bundle "
            f"({own.name}, {own.vocab_size} ids): give the data and the tokenizer that it was trained on."
        )
    (context,), (read,) = bundle.spec.shape, data.spec.shape
    if data.batching != "sentences" and read != context:
        raise InputError(
            f"data={data.spec.name} has a context of {read} tokens, the bundle {context}: set data.context={context}."
        )


# -- likelihood


def likelihood(module: Any, data: Any, options: TextOptions) -> Numbers:
    """Measure the likelihood of a split by each protocol; keys end in its name, except for ``windows``."""
    tokenizer, plain = module.tokenizer, "sentences" if data.batching == "sentences" else "windows"
    sizes = torch.from_numpy(tokenizer.sizes() if tokenizer.lossless else np.zeros_like(tokenizer.sizes()))
    number, what = _words(tokenizer, data.tokens(options.split))
    values, protocol = {}, {}
    for name in options.protocols:
        if plain == "sentences" and name != "windows":
            raise InputError(
                f"text.protocols has {name}, which needs one running text; data={data.spec.name} has separate "
                "sentences, each with a context of its own: ask for windows only."
            )
        evaluation = plain if name == "windows" else name
        batches = data.evaluation_batches(options.split, evaluation=evaluation)
        nats, tokens, characters, size = text_likelihood(module, batches, sizes).tolist()
        suffix = "" if name == "windows" else f"_{name}"
        values |= likelihood_figures(nats, tokens, characters, size, number, suffix)
        facts = {"protocol": _MEANING[evaluation], "context": data.spec.shape[0]}
        if name == "strided":
            facts["stride"] = data.stride or -(-data.spec.shape[0] // 2)
        if name == "carried":
            facts["rows"] = data.eval_batch_size
        protocol[f"likelihood{suffix}"] = facts | {
            "split": f"{data.spec.name}/{options.split}",
            "fingerprint": data.spec.fingerprint,
            "tokenizer": tokenizer.name,
            "vocab_size": tokenizer.vocab_size,
            "tokens": int(tokens),
            **({"characters": int(characters), "bytes": int(size)} if tokenizer.lossless else {}),
            "words": f"{number} {what}",
            "precision": "float32 network, float64 sums",
        }
    return values, protocol


def _words(tokenizer: Any, stream: np.ndarray) -> tuple[int, str]:
    """Return the number of words among the targets of a stream ``0 d1 0 d2 0``, and the definition of a word."""
    if tokenizer.name == "word":
        return len(stream) - 1, "tokens, including <unk> and the ends of texts"
    ends = np.flatnonzero(stream == _BOUNDARY)
    number = sum(len(tokenizer.decode(ids).split()) for ids in np.split(stream, ends))
    return number + len(ends) - 1, "words between white space, and ends of texts"


# -- generated text


def excerpts(stream: np.ndarray, options: TextOptions) -> list[Excerpt]:
    """Choose the beginnings of generated texts and the real text after them, evenly spaced over the held-out text.

    Args:
        stream: Ids ``0 d1 0 d2 0 … dn 0`` of all texts; some millions of them are read.
        options: Their number and length.

    Returns:
        Beginnings of texts; if there are too few, parts of all of them in a row, fewer than wanted if they would
        overlap.

    Raises:
        InputError: If there isn't enough text for two.
    """
    row = np.asarray(stream[1:_READ], dtype=np.int64)
    known = [ids[ids != _BOUNDARY] for ids in np.split(row, np.flatnonzero(row == _BOUNDARY))]
    prompt, most = options.prompt_tokens, options.decoding.max_tokens
    whole = [ids for ids in known if len(ids) > (prompt or 0)]  # not with an empty rest
    if len(whole) >= options.texts:
        prompt = prompt or 0
        chosen = (whole[i * len(whole) // options.texts] for i in range(options.texts))
    else:
        prompt = _PROMPT if prompt is None else prompt
        room = len(row) // (prompt + most)
        if room < 2:
            raise InputError(
                f"The held-out text has {len(row)} tokens, too few for two parts of {prompt + most}: set "
                "text.decoding.max_tokens lower, or text.texts=0 to leave out the metrics of generated text."
            )
        number = min(options.texts, room)
        chosen = (row[i * len(row) // number :] for i in range(number))
    return [Excerpt(ids[:prompt], _to_end(ids[prompt : prompt + most])) for ids in chosen]


def generation(module: Any, data: Any, options: TextOptions, seed: int) -> Numbers:
    """Measure the variety and novelty of generated text, each next to the figure of real text: ``…_real``."""
    tokenizer = module.tokenizer
    taken = excerpts(data.tokens(options.split), options)
    real = [tokenizer.decode(excerpt.rest) for excerpt in taken]
    generated = [tokenizer.decode(ids) for ids in _generate(module, [e.prompt for e in taken], options.decoding, seed)]
    sides = dict(zip(("", "_real"), same_size(generated, real), strict=True))

    def training() -> Iterable[str]:
        texts = data.texts("train")
        return texts if tokenizer.lossless else (tokenizer.decode(tokenizer.encode(text)) for text in texts)

    values = {}
    for suffix, texts in sides.items():
        tokens = [words(text) for text in texts]
        values |= {f"distinct_{n}{suffix}": distinct(tokens, n) for n in (1, 2, 3)}
        values |= {f"self_bleu{suffix}": self_bleu(tokens), f"repetition{suffix}": repetition(tokens, REPEATED)}
        values[f"longest_copy{suffix}"] = longest_copy(texts, training)
    for n in COPIED:
        shares = copied_share(list(sides.values()), training, n)
        values |= {f"copied_{n}grams{suffix}": share for suffix, share in zip(sides, shares, strict=True)}
    protocol = {
        "texts": len(taken),
        "words": sum(len(words(text)) for text in sides[""]),
        **dataclasses.asdict(options.decoding),
        "prompt_tokens": max(len(excerpt.prompt) for excerpt in taken),
        "prompts": f"{data.spec.name}/{options.split}, evenly from all of it",
        "size": "both sides in order of length, each pair truncated to the words of the shorter",
        "unit": "words and punctuation marks; longest_copy: characters",
        "repetition": f"{REPEATED}-grams within a text",
        "self_bleu": "mean sentence BLEU-4 of sacrebleu, smoothing exp, effective order",
        "novelty": f"{data.spec.name}/train, {data.spec.fingerprint}",
        "sample_seed": seed,
    }
    keys = sorted(values, key=lambda key: (key.removesuffix("_real"), key))  # each figure next to that of real text
    return {key: values[key] for key in keys}, {"generation": protocol}


def same_size(first: Sequence[str], second: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sort two sets of equally many texts by length, and truncate each pair to the words of the shorter one."""
    left, right = (sorted(texts, key=lambda text: len(words(text))) for texts in (first, second))
    lengths = [min(len(words(a)), len(words(b))) for a, b in zip(left, right, strict=True)]
    return tuple([first_words(text, n) for text, n in zip(texts, lengths, strict=True)] for texts in (left, right))


def _generate(module: Any, prompts: Sequence[np.ndarray], decoding: Decoding, seed: int) -> list[np.ndarray]:
    found = []
    for start in range(0, len(prompts), _BLOCK):
        given = [torch.from_numpy(ids.astype(np.int64)) for ids in prompts[start : start + _BLOCK]]
        texts = module.sample(
            len(given),
            condition=Condition(prompts=tuple(given)),
            noise=Noise(seed, start),
            **dataclasses.asdict(decoding),
        )
        rows = zip(texts.ids.cpu().numpy(), texts.lengths.tolist(), strict=True)
        found += [ids[:length] for ids, length in rows]
    return found


def _to_end(ids: np.ndarray) -> np.ndarray:
    ends = np.flatnonzero(ids == _BOUNDARY)
    return ids[: ends[0]] if len(ends) else ids


# -- translations


def translation(module: Any, data: Any, options: TextOptions, seed: int) -> Numbers:
    """Measure the BLEU of translations of a split's originals, with its texts as references."""
    references = list(data.texts(options.split))
    sources = [module.tokenizer.encode(text) for text in data.originals(options.split)]
    made = [module.tokenizer.decode(ids) for ids in _generate(module, sources, options.searching, seed)]
    values, facts = bleu(made, references)
    facts |= {"split": f"{data.spec.name}/{options.split}", "fingerprint": data.spec.fingerprint}
    return values, {"bleu": facts | dataclasses.asdict(options.searching)}
