"""Numbers of a language model: the likelihood of held-out text, and generated text beside as much real text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from lit_aigc.errors import InputError
from lit_aigc.losses.language import LikelihoodSums
from lit_aigc.metrics.bleu import bleu
from lit_aigc.metrics.novelty import copied_share, longest_copy
from lit_aigc.metrics.text_likelihood import carried_sums, running_text, window_sums, windows
from lit_aigc.metrics.text_quality import distinct, first_words, repetition, self_bleu, words
from lit_aigc.noise import Noise
from lit_aigc.spec import Condition, TextBatch

Numbers = tuple[dict[str, Any], dict[str, Any]]

PROTOCOLS = ("windows", "strided", "carried")
REPEATED = 4  # n of the repetition rate
COPIED = (4, 8)  # lengths in words of the n-grams that are looked up in the training text
_BOUNDARY = 0
_BLOCK = 64  # texts generated at a time
_PROMPT = 32  # tokens of a prompt from the middle of a text
_READ = 1 << 22  # tokens of held-out text that excerpts are taken from


@dataclasses.dataclass(frozen=True)
class TextOptions:
    """What an evaluation of text asks for, as ``text`` in ``conf/evaluate.yaml``.

    Attributes:
        split: ``val`` or ``test``: the held-out text.
        protocols: Of the likelihood, some of `PROTOCOLS`.
        stride: Tokens by which windows of ``strided`` move on; None: half the context.
        texts: Texts generated, and as many real ones; 0: none.
        max_tokens: Tokens of each at most.
        temperature: Of generation.
        prompt_tokens: Tokens of held-out text that each generated text goes on from; None: 0 where the held-out text
            is at least as many texts as are asked for, else 32.
    """

    split: str = "val"
    protocols: Sequence[str] = ("windows",)
    stride: int | None = None
    texts: int = 200
    max_tokens: int = 256
    temperature: float = 1.0
    prompt_tokens: int | None = None

    def __post_init__(self) -> None:
        wrong = []
        if self.split not in ("val", "test"):
            wrong.append(f"text.split={self.split}: expected val or test.")
        if isinstance(self.protocols, str) or not set(self.protocols) <= set(PROTOCOLS):
            wrong.append(f"text.protocols={self.protocols}: expected a list of some of {', '.join(PROTOCOLS)}.")
        for name, least in (("stride", 1), ("texts", 0), ("max_tokens", 1), ("prompt_tokens", 0)):
            value = getattr(self, name)
            if value is None and name in ("stride", "prompt_tokens"):
                continue
            if type(value) is not int or value < least or (name == "texts" and value == 1):
                wrong.append(f"text.{name}={value}: expected {'0, or 2' if name == 'texts' else least} or more.")
        if not 0 <= self.temperature < float("inf"):
            wrong.append(f"text.temperature={self.temperature}: expected 0 or more, such as 1.")
        if wrong:
            raise InputError("\n".join(wrong))


class Excerpt(NamedTuple):
    """Ids of held-out text: what a model is given, and how the text goes on, up to its end."""

    prompt: np.ndarray
    rest: np.ndarray


def measure(config: Mapping[str, Any], subject: Any) -> Numbers:
    """All numbers of a language model by key, and their protocol by name.

    Args:
        config: With ``text``, the fields of `TextOptions`, and ``seed``.
        subject: With ``bundle``, the model, and ``datamodule``, a text data set.

    Raises:
        InputError: If an option is wrong, or the data don't fit the model.
    """
    options, module, data = TextOptions(**config["text"]), subject.bundle.module, subject.datamodule
    if data is None:
        name = subject.bundle.spec.name
        raise InputError(f"A language model is measured on held-out text: add data=NAME, such as data={name}.")
    _check_tokens(module.tokenizer, data)
    with module.evaluating():
        batches = list(getattr(data, f"{options.split}_dataloader")())
        if not batches:
            raise InputError(f"data={data.spec.name} has no text in {options.split}.")
        if batches[0].source is not None:
            return translation(module, batches, options, config["seed"])
        values, protocol = likelihood(module, data, batches, options)
        if options.texts:
            found, facts = generation(module, data, options, config["seed"])
            values |= found
            protocol |= facts
    return values, protocol


def _check_tokens(own: Any, data: Any) -> None:
    given = data.tokenizer
    same = own.name == given.name and own.vocab_size == given.vocab_size
    if not (same and all(own.decode([i]) == given.decode([i]) for i in range(own.vocab_size))):
        raise InputError(
            f"data={data.spec.name} makes other tokens ({given.name}, {given.vocab_size} ids) than the bundle "
            f"({own.name}, {own.vocab_size} ids): give the data and the tokenizer that it was trained on."
        )


# -- likelihood


def likelihood(module: Any, data: Any, batches: Sequence[TextBatch], options: TextOptions) -> Numbers:
    """The likelihood of a split, by each protocol asked for; the keys of all but ``windows`` end in its name."""
    tokenizer, context = module.tokenizer, module.network.context or data.spec.shape[0]
    sizes = torch.from_numpy(tokenizer.sizes() if tokenizer.lossless else np.zeros_like(tokenizer.sizes()))
    text = running_text(batches) if {"strided", "carried"} & set(options.protocols) else None
    number, what = _words(tokenizer, batches)
    values: dict[str, Any] = {}
    protocol: dict[str, Any] = {}
    for name in options.protocols:
        if name == "windows":
            sums, how = window_sums(module, batches, sizes), f"each row of {options.split} of the data on its own"
            facts = {"context": batches[0].ids.shape[1] - 1}
        elif name == "strided":
            stride = options.stride or max(context // 2, 1)
            sums, how = window_sums(module, windows(text, context, stride), sizes), "windows that overlap"
            facts = {"context": context, "stride": stride, "least_context": context - stride}
        else:
            sums, how = carried_sums(module, text, sizes), "the state is carried from the beginning of the split"
            facts = {}
        nats, tokens, characters, size = sums.tolist()
        found = LikelihoodSums(nats, tokens, characters, size, number)
        values |= found.numbers("" if name == "windows" else f"_{name}")
        protocol["likelihood" if name == "windows" else f"likelihood_{name}"] = facts | {
            "protocol": how,
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


def _words(tokenizer: Any, batches: Iterable[TextBatch]) -> tuple[int, str]:
    """Number of words among the targets that count, and what a word is."""
    parts = (batch.ids[:, 1:] if batch.mask is None else batch.ids[:, 1:][batch.mask] for batch in batches)
    targets = torch.cat([part.flatten() for part in parts]).numpy()
    if tokenizer.separator:  # its tokens are words
        return len(targets), "tokens, <unk> and the ends of texts among them"
    ends = np.flatnonzero(targets == _BOUNDARY)
    texts = np.split(targets, ends)
    number = sum(len(tokenizer.decode(ids.tolist()).split()) for ids in texts)
    return number + len(ends), "words between white space, and ends of texts"


# -- generated text


def excerpts(documents: Iterable[np.ndarray], options: TextOptions) -> list[Excerpt]:
    """Where generated texts go on from, and the real text there, evenly from all over the held-out text.

    Args:
        documents: Ids of each text, without any boundary; read up to some millions of tokens.
        options: How many, how long.

    Returns:
        The beginnings of as many of the texts; where these are too few, parts of all of them in a row, fewer than asked
        for if they would overlap.

    Raises:
        InputError: If there is not enough text for two.
    """
    known: list[np.ndarray] = []
    total = 0
    for ids in documents:
        known.append(ids)
        total += len(ids)
        if total >= _READ:
            break
    prompt, most = options.prompt_tokens, options.max_tokens
    whole = [ids for ids in known if len(ids) > (prompt or 0)]
    if len(whole) >= options.texts:
        prompt = prompt or 0
        chosen = (whole[i * len(whole) // options.texts] for i in range(options.texts))
    else:
        prompt = _PROMPT if prompt is None else prompt
        row = np.concatenate([part for ids in known for part in (ids, np.zeros(1, ids.dtype))] or [np.zeros(0, int)])
        room = len(row) // (prompt + most)
        if room < 2:
            raise InputError(
                f"The held-out text has {len(row)} tokens, too few for two parts of {prompt + most}: set "
                "text.max_tokens lower, or text.texts=0 to leave out the numbers of generated text."
            )
        number = min(options.texts, room)
        chosen = (row[i * len(row) // number :] for i in range(number))
    return [Excerpt(ids[:prompt], _to_end(ids[prompt : prompt + most])) for ids in chosen]


def generation(module: Any, data: Any, options: TextOptions, seed: int) -> Numbers:
    """Variety and novelty of generated text, each with the same figure of real text: ``…_real``."""
    tokenizer = module.tokenizer
    taken = excerpts(map(tokenizer.encode, data.texts(options.split)), options)
    real = [tokenizer.decode(excerpt.rest) for excerpt in taken]
    generated = [tokenizer.decode(ids) for ids in _generate(module, [e.prompt for e in taken], options, seed)]
    sides = {"": generated, "_real": real}
    sides = dict(zip(sides, same_size(generated, real), strict=True))

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
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "prompt_tokens": max(len(excerpt.prompt) for excerpt in taken),
        "prompts": f"{data.spec.name}/{options.split}, evenly from all of it",
        "size": "both sides in order of length, each pair cut to the words of the shorter",
        "unit": "words and punctuation marks; longest_copy: characters",
        "repetition": f"{REPEATED}-grams within a text",
        "self_bleu": "mean sentence BLEU-4 of sacrebleu, smoothing exp, effective order",
        "novelty": f"{data.spec.name}/train, {data.spec.fingerprint}",
        "sample_seed": seed,
    }
    return dict(sorted(values.items(), key=lambda item: _order(item[0]))), {"generation": protocol}


def same_size(first: Sequence[str], second: Sequence[str]) -> tuple[list[str], list[str]]:
    """Two sets of as many texts, in order of their length, each pair cut to the words of the shorter one."""
    left, right = (sorted(texts, key=lambda text: len(words(text))) for texts in (first, second))
    lengths = [min(len(words(a)), len(words(b))) for a, b in zip(left, right, strict=True)]
    return tuple([first_words(text, n) for text, n in zip(texts, lengths, strict=True)] for texts in (left, right))


def _order(key: str) -> tuple[str, bool]:
    """Each figure beside that of real text."""
    return key.removesuffix("_real"), key.endswith("_real")


def _generate(module: Any, prompts: Sequence[np.ndarray], options: TextOptions, seed: int) -> list[np.ndarray]:
    found = []
    for start in range(0, len(prompts), _BLOCK):
        given = [torch.from_numpy(np.asarray(ids, dtype=np.int64)) for ids in prompts[start : start + _BLOCK]]
        texts = module.sample(
            len(given),
            condition=Condition(prompts=tuple(given)),
            noise=Noise(seed, start),
            max_tokens=options.max_tokens,
            temperature=options.temperature,
        )
        rows = zip(texts.ids.cpu().numpy(), texts.lengths.tolist(), strict=True)
        found += [_to_end(ids[:length]) for ids, length in rows]
    return found


def _to_end(ids: np.ndarray) -> np.ndarray:
    ends = np.flatnonzero(ids == _BOUNDARY)
    return ids[: ends[0]] if len(ends) else ids


# -- translations


def translation(module: Any, batches: Sequence[TextBatch], options: TextOptions, seed: int) -> Numbers:
    """BLEU of translations of a split's sources, with the split's targets as references."""
    sources, references = [], []
    for batch in batches:
        for row, (source, given) in enumerate(zip(batch.source, batch.source_mask, strict=True)):
            target = batch.ids[row, 1:]
            kept = target if batch.mask is None else target[batch.mask[row]]
            sources.append(source[given].numpy())
            references.append(module.tokenizer.decode(kept.tolist()))
    made = [module.tokenizer.decode(ids.tolist()) for ids in _generate(module, sources, options, seed)]
    values, facts = bleu(made, references)
    facts |= {"max_tokens": options.max_tokens, "temperature": options.temperature, "split": options.split}
    return values, {"bleu": facts | {"references": "as the tokenizer gives them back"}}
