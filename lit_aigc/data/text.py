"""Text as a LightningDataModule: from any source to batches of token ids."""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from lit_aigc.data.base import DataModule
from lit_aigc.data.cleaning import first_few
from lit_aigc.data.corpora import Corpus, TextSource
from lit_aigc.data.loaders import Batches, BatchLoader, evaluation_loader
from lit_aigc.data.sources import CLEANING_ORDER, SPLITS
from lit_aigc.data.store import Store, open_store
from lit_aigc.data.text_batching import EVALUATION, TRAINING, Originals, RowReader
from lit_aigc.data.text_cleaning import UNTOUCHED, Cleaner, Cleaning, cleaned, kept_pieces
from lit_aigc.data.text_pieces import Piece
from lit_aigc.data.token_store import boundaries, write_tokens
from lit_aigc.errors import InputError, check, not_whole
from lit_aigc.spec import DataSpec
from lit_aigc.tokenization.tokenizers import Tokenizer, load_tokenizer

_FORMAT = 1
_COUNTED = 10_000_000  # tokens whose frequencies a model may start from


class TextData(DataModule):
    """Text in ``train``, ``val`` and ``test`` splits, as ids of a tokenizer that is trained on the first.

    A split is the stream ``0 d1 0 d2 0 … dn 0`` of its documents' ids in a memory-mapped file, so a corpus may be
    larger than memory. The file is made once, in the user's cache folder, and reused for the same text, cleaning and
    tokenizer. See `DataModule` for the rest.

    Args:
        source: Source of the text, such as `lit_aigc.data.corpora.TinyShakespeare`.
        tokenizer: Such as `lit_aigc.tokenization.tokenizers.CharacterTokenizer`; trained here.
        root: Folder of the source's files, if it needs any.
        batching: How training batches are made: ``crops`` at random places, ``reshuffled`` windows that cover the text
            once per epoch, ``carried`` rows that each batch continues, or ``sentences`` (documents) of similar length.
            See `lit_aigc.data.text_batching`.
        context: Tokens that the model reads at once; None (for ``sentences`` only): those of the longest sentence.
        batch_size: Rows in a training batch over all processes together; they must divide it.
        eval_batch_size: Rows in a validation or test batch of one process; for ``carried``, of all processes.
        evaluation: How a split is scored, each target once: in ``windows`` that don't overlap, in ``strided`` ones,
            with ``carried`` state, or by ``sentences``. None: ``sentences`` if `batching` is, else ``windows``.
        stride: Targets that a strided window scores; None: half the context.
        cleaning: How to clean the text; None leaves it unchanged, to compare with published numbers.
        seed: Of the order of training; not of splits.

    Attributes:
        evaluation: How splits are scored, by name.
        tokenizer: Trained once the data is read.
        report: Counts of cleaning, and the tokens of each split, once the data is read.

    Raises:
        InputError: If options are wrong; names all that are.
    """

    modality = "text"
    of_tokens = True
    items = "rows"

    def __init__(
        self,
        source: TextSource,
        tokenizer: Tokenizer,
        *,
        root: str | None = None,
        batching: Literal["crops", "reshuffled", "carried", "sentences"] = "reshuffled",
        context: int | None = 128,
        batch_size: int = 32,
        eval_batch_size: int = 32,
        evaluation: Literal["windows", "strided", "carried", "sentences"] | None = None,
        stride: int | None = None,
        cleaning: Cleaning | None = None,
        seed: int = 0,
    ):
        has_context = batching == "sentences" or context is not None
        check(
            ("data.batching", batching, batching in TRAINING, ", ".join(TRAINING)),
            ("data.evaluation", evaluation, evaluation in (None, *EVALUATION), f"{', '.join(EVALUATION)} or null"),
            ("data.context", "null", has_context, f"a number for {batching}; only data.batching=sentences needs none"),
            more=[
                *not_whole("data.batch_size", batch_size, least=1),
                *not_whole("data.eval_batch_size", eval_batch_size, least=1),
                *not_whole("data.seed", seed, least=None),
                *([] if context is None else not_whole("data.context", context, least=1)),
                *([] if stride is None else not_whole("data.stride", stride, least=1)),
                *source.problems(root),
            ],
        )
        evaluation = evaluation or ("sentences" if batching == "sentences" else "windows")
        if evaluation == "strided" and context is not None and (stride or 1) > context:
            raise InputError(f"data.stride={stride} is more than data.context={context}: targets would be left out.")

        super().__init__(source, root, batch_size, eval_batch_size, seed)
        self.tokenizer, self.cleaning = tokenizer, cleaning or UNTOUCHED
        self.batching, self.evaluation, self.context, self.stride = batching, evaluation, context, stride
        self._tokenizer_is_given = False
        self._corpus: Corpus | None = None
        self._store: Store | None = None

    def use_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Use a trained tokenizer, such as a bundle's; to be called before the data is read."""
        if self._spec is not None:
            raise RuntimeError("the data was already read with another tokenizer")
        self.tokenizer, self._tokenizer_is_given = tokenizer, True

    def read(self) -> DataSpec:
        """See the base class; raises `InputError` also for text that is too short for a batch."""
        self._corpus = self.source.read(self.root)
        aligned = (self.batching, self.evaluation, self.cleaning) == ("sentences", "sentences", UNTOUCHED)
        if self._corpus.translations and not aligned:
            raise InputError(
                f"{self.source.name}: translations need data.batching=sentences, data.evaluation=sentences and "
                "data.cleaning=null."
            )
        tokenizer = _saved(self.tokenizer) if self._tokenizer_is_given else _identity(self.tokenizer)
        facts = repr((_FORMAT, self.source.name, self._corpus.stamp, self.cleaning, tokenizer)).encode()
        key = hashlib.blake2b(facts, digest_size=16).hexdigest()
        self._store = open_store(f"text/{key}", key, self._build)
        if not self._tokenizer_is_given:
            self.tokenizer = load_tokenizer(self._store.folder)
        self.report = {**self._corpus.report, **self._store.facts["report"]}
        self._warn_of_skipped_text()
        self._check_length()
        names = [file.stem for file in self._store.folder.glob("*.uint*")]
        longest = (int(np.diff(boundaries(self._store.tokens(name))).max(initial=1)) for name in names)
        context = self.context or max(longest)
        digests = json.dumps([self._store.facts["digests"], context], sort_keys=True)
        return DataSpec(
            modality=self.modality,
            shape=(context,),
            value_range=(0, self.tokenizer.vocab_size - 1),
            vocab_size=self.tokenizer.vocab_size,
            fingerprint=hashlib.blake2b(digests.encode(), digest_size=16).hexdigest(),
            name=self.source.name,
            evaluation=self.evaluation,
            token_counts=lambda: self._token_counts(),
        )

    def tokens(self, split: str) -> np.ndarray:
        """Return the stream of ids of a split, ``(n,)`` uint16 or uint32, on the disk."""
        self.check_split(split)
        return self._store.tokens(self._stored(split))

    def _token_counts(self) -> np.ndarray:
        return np.bincount(self.tokens("train")[1 : 1 + _COUNTED], minlength=self.tokenizer.vocab_size)

    def sizes(self) -> dict[str, int]:
        """Return the number of tokens in each split, without boundaries between documents."""
        _ = self.spec
        return {split: self.report[f"{self._stored(split)}_tokens"] for split in SPLITS}

    def texts(self, split: str) -> Iterator[str]:
        """Yield the documents of a split, cleaned, in order; long ones in pieces of about a million characters."""
        self.check_split(split)
        return (piece.text for piece in self._pieces(split, self._store.folder) if piece.text)

    def originals(self, split: str) -> Iterator[str]:
        """Yield the source text of each document of a split; nothing for plain text."""
        self.check_split(split)
        return self._original_texts(split)

    def train_dataloader(self) -> BatchLoader:
        """Return a loader of this rank's share of each training batch; see `DataModule.training_loader`."""
        rank, world_size = self.place()
        self.check_world_size(world_size)
        reader = self._reader("train")
        batching = TRAINING[self.batching](reader.tokens, *self.spec.shape, self.batch_size, self.seed)
        request = partial(batching.request, rank=rank, world_size=world_size)
        return self.training_loader(Batches(reader, request, batching.epoch_batches))

    def evaluation_batches(
        self, split: str, rank: int = 0, world_size: int = 1, evaluation: str | None = None
    ) -> BatchLoader:
        """Return a loader of a split with every target once over all ranks; the first is predicted from the boundary.

        Args:
            split: ``train``, ``val`` or ``test``.
            rank: Which share.
            world_size: Number of shares; each gets one or more batches.
            evaluation: Another protocol than the data's own; see the class.
        """
        context, evaluation = self.spec.shape[0], evaluation or self.evaluation
        check(("evaluation", evaluation, evaluation in EVALUATION, ", ".join(EVALUATION)))
        reader = self._reader(split)
        options = {"strided": {"stride": self.stride or -(-context // 2)}, "carried": {"rows": self.eval_batch_size}}
        rows = EVALUATION[evaluation](reader.tokens, context, **options.get(evaluation, {}))
        called = f"{'rows' if evaluation == 'carried' else evaluation} of {split}"
        block = self.evaluation_block(len(rows), world_size, called)
        return evaluation_loader(reader, rows.requests(block, rank, world_size))

    def _reader(self, split: str) -> RowReader:
        tokens = self.tokens(split)
        if not self._corpus.translations:
            return RowReader(tokens)
        return RowReader(tokens, Originals(self._store.tokens(f"{self._stored(split)}_source"), *self.spec.shape))

    def _build(self, folder: Path) -> dict[str, Any]:
        """Make what is made once: the choice of documents, the trained tokenizer, and the tokens."""
        cleaner = Cleaner(self.cleaning)
        splits = [split for split in CLEANING_ORDER if self._stored(split) == split]
        for split in splits:
            before = cleaner.report["characters"]
            np.save(folder / f"kept_{split}.npy", cleaner.decide(self._corpus.splits[split]()))
            if cleaner.report["characters"] == before:
                self._refuse_empty(split, cleaner.report)
        report = dict(cleaner.report)
        if not self._tokenizer_is_given:
            training = (piece.text for piece in self._pieces("train", folder))
            self.tokenizer.train(itertools.chain(training, self._original_texts("train")))
        self.tokenizer.save(folder)
        digests = {"tokenizer": _digest(folder / "tokenizer.json")}
        for split in splits:
            digests[split] = self._write(folder, split, self._pieces(split, folder), report)
            if self._corpus.translations:
                originals = (Piece(text) for text in self._original_texts(split))
                digests[f"{split}_source"] = self._write(folder, f"{split}_source", originals, report)
        return {"report": report, "digests": digests}

    def _write(self, folder: Path, name: str, pieces: Iterable[Piece], report: dict[str, int]) -> str:
        report[f"{name}_tokens"] = 0

        def stream() -> Iterator[np.ndarray]:
            yield np.zeros(1, np.int32)
            for piece in pieces:
                ids = self.tokenizer.encode(piece.text)
                report[f"{name}_tokens"] += len(ids)
                yield np.append(ids, 0) if piece.ends else ids

        return write_tokens(folder, name, stream(), self.tokenizer.vocab_size)

    def _refuse_empty(self, split: str, report: dict[str, int]) -> NoReturn:
        counts = ", ".join(f"{reason} {count}" for reason, count in {**self._corpus.report, **report}.items() if count)
        raise InputError(
            f"{self.source.name}: no text in the split {split} ({counts or 'all of it is empty'}). "
            f"Give more text{f' in data.root={self.root}' if self.root else ''}, or clean less."
        )

    def _pieces(self, split: str, folder: Path) -> Iterator[Piece]:
        kept = np.load(folder / f"kept_{self._stored(split)}.npy")
        return kept_pieces(self._corpus.splits[split](), kept, self.cleaning)

    def _original_texts(self, split: str) -> Iterator[str]:
        if split not in self._corpus.translations:
            return iter(())
        return (cleaned(piece.text, self.cleaning) for piece in self._corpus.translations[split]())

    def _stored(self, split: str) -> str:
        """Return the name under which a split is stored: that of val if it is also the test set."""
        return "val" if self._corpus.splits[split] is self._corpus.splits["val"] else split

    def _check_length(self) -> None:
        least = {"crops": self.context, "reshuffled": self.context, "carried": self.batch_size, "sentences": 1}
        length = len(self._store.tokens("train"))
        if length <= least[self.batching]:
            name = "batch_size" if self.batching == "carried" else "context"
            raise InputError(
                f"{self.source.name}: {length - 1} tokens of training text are fewer than "
                f"data.{name}={least[self.batching]}: set it to {length - 1} or less, or give more text."
            )

    def _warn_of_skipped_text(self) -> None:
        names, count = self._corpus.not_text, self.report["invalid_bytes"]
        words = {
            "exact_duplicates": "documents are exact duplicates of others",
            "near_duplicates": "documents are near duplicates of others",
            "too_long": "documents are too long",
        }
        found = [f"{len(names)} files that are not UTF-8 text ({first_few(names)})"] if names else []
        found += [f"{self.report[reason]} {what}" for reason, what in words.items() if self.report.get(reason)]
        if found:
            self.warn(f"left out: {', '.join(found)}")
        if count:
            self.warn(f"{count} bytes are not UTF-8 and became U+FFFD")


def _identity(tokenizer: Tokenizer) -> str:
    """Identify what an untrained tokenizer will learn from a given text: its class and options."""
    kind = type(tokenizer)
    options = json.dumps(vars(tokenizer), sort_keys=True, default=lambda value: type(value).__name__)
    return f"{kind.__module__}.{kind.__qualname__} {options}"


def _saved(tokenizer: Tokenizer) -> str:
    """Return the hash of a trained tokenizer's file."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        return _digest(Path(folder, "tokenizer.json"))


def _digest(file: Path) -> str:
    return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
