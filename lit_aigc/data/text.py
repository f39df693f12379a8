"""Text as a LightningDataModule: from any source to batches of token ids."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol

import lightning as L
import numpy as np
from lightning.pytorch.utilities import rank_zero_only

from lit_aigc.data.cleaning import first_few
from lit_aigc.data.corpora import Corpus, TextSource
from lit_aigc.data.loaders import Loader, PinnedTransfer, SizedLoader, check_share
from lit_aigc.data.sources import CLEANING_ORDER, SPLITS
from lit_aigc.data.text_batching import (
    Carried,
    CarriedOnce,
    Crops,
    Originals,
    Reshuffled,
    RowReader,
    Sentences,
    SentencesOnce,
    WindowsOnce,
)
from lit_aigc.data.text_cleaning import UNTOUCHED, Cleaner, Cleaning, cleaned, kept_pieces
from lit_aigc.data.text_pieces import Piece
from lit_aigc.data.token_store import TokenStore, boundaries, open_store, write_tokens
from lit_aigc.errors import InputError, not_whole
from lit_aigc.spec import DataSpec
from lit_aigc.tokenization.tokenizers import load_tokenizer

log = logging.getLogger(__name__)

_FORMAT = 1
_COUNTED = 10_000_000  # tokens whose frequencies a model may start from
_TRAINING = {"crops": Crops, "reshuffled": Reshuffled, "carried": Carried, "sentences": Sentences}
_EVALUATIONS = ("windows", "strided", "carried", "sentences")


class Tokenizer(Protocol):
    """What `TextData` asks of a tokenizer; those of `lit_aigc.tokenization.tokenizers` are."""

    vocab_size: int

    def train(self, texts: Iterable[str]) -> None:
        """Learn the vocabulary, anew."""

    def encode(self, text: str) -> np.ndarray:
        """``(n,)`` int32 ids above 0."""

    def decode(self, ids: Sequence[int]) -> str:
        """The inverse, without the boundaries."""

    def save(self, directory: str | Path) -> None:
        """Write ``tokenizer.json``, for `load_tokenizer`."""


class TextData(PinnedTransfer, L.LightningDataModule):
    """Text in ``train``, ``val`` and ``test`` splits, as ids of a tokenizer that is trained on the first.

    A split is the stream ``0 d1 0 d2 0 … dn 0`` of its documents' ids in a file that is memory-mapped, so a corpus may
    be larger than memory. The file is made once, in the user's cache folder, and found again for the same text,
    cleaning and tokenizer. Batch k of training is a pure function of (seed, k) on any number of processes, so resuming
    needs `start_batch` only.

    Args:
        source: Where the text comes from, such as `lit_aigc.data.corpora.TinyShakespeare`.
        tokenizer: Such as `lit_aigc.tokenization.tokenizers.CharacterTokenizer`; trained here.
        root: Folder of the source's files; sources that need none ignore it.
        batching: How training batches are made: ``crops`` at places drawn anew each time, ``reshuffled`` windows that
            cover the text once an epoch, ``carried`` rows that each batch goes on with, or ``sentences`` (documents) of
            like length. See `lit_aigc.data.text_batching`.
        context: Tokens that the model reads at once; None (for ``sentences`` only): the longest sentence's.
        batch_size: Rows in a training batch over all processes together; they must divide it.
        eval_batch_size: Rows in a validation or test batch of one process; for ``carried``, of all together.
        evaluation: How a split is scored, each target once: in ``windows`` that don't overlap, in ``strided`` ones,
            with ``carried`` state, or by ``sentences``. None: ``sentences`` if batches are, else ``windows``.
        stride: Targets that a strided window scores; None: half the context.
        cleaning: None leaves the text untouched, for numbers that are compared with published ones.
        seed: Of the order of training; not of splits.

    Attributes:
        start_batch: Number of the first batch that `train_dataloader` gives.
        batch_size: Rows in a training batch over all processes together.
        evaluation: How splits are scored, by name.
        tokenizer: Trained once `spec` was asked for.
        report: What cleaning counted, and the tokens of each split, once the data is read.

    Raises:
        InputError: All that is wrong with these, in one message.
    """

    of_text = True

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
        super().__init__()
        problems = [
            *not_whole("data.batch_size", batch_size, least=1),
            *not_whole("data.eval_batch_size", eval_batch_size, least=1),
            *not_whole("data.seed", seed, least=None),
            *([] if context is None else not_whole("data.context", context, least=1)),
            *([] if stride is None else not_whole("data.stride", stride, least=1)),
        ]
        if batching not in _TRAINING:
            problems.append(f"data.batching is {batching!r}, expected {', '.join(_TRAINING)}.")
        if evaluation not in (None, *_EVALUATIONS):
            problems.append(f"data.evaluation is {evaluation!r}, expected {', '.join(_EVALUATIONS)} or null.")
        if context is None and batching != "sentences":
            problems.append(
                f"data.context is null, which only data.batching=sentences can do; {batching} needs a number."
            )
        problems += source.problems(root)
        evaluation = evaluation or ("sentences" if batching == "sentences" else "windows")
        if evaluation == "strided" and not problems and context is not None and (stride or 1) > context:
            problems.append(f"data.stride={stride} is more than data.context={context}: targets would be left out.")
        if problems:
            raise InputError("\n".join(problems))

        self.source, self.tokenizer, self.root = source, tokenizer, root
        self.batching, self.evaluation, self.context, self.stride = batching, evaluation, context, stride
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self.cleaning = cleaning or UNTOUCHED
        self.start_batch = 0
        self.report: dict[str, int] = {}
        self._tokenizer_is_given = False
        self._corpus: Corpus | None = None
        self._store: TokenStore | None = None
        self._spec: DataSpec | None = None

    def use_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Take a trained tokenizer, such as a bundle's, as it is; to be called before the data is read."""
        if self._spec is not None:
            raise RuntimeError("the data was already read with another tokenizer")
        self.tokenizer, self._tokenizer_is_given = tokenizer, True

    @property
    def spec(self) -> DataSpec:
        """The facts about the data; the first call reads it."""
        if self._spec is None:
            self.setup()
        return self._spec

    def setup(self, stage: str | None = None) -> None:
        """Read, clean and encode all splits, once; raises InputError for what is missing, empty or too short."""
        if self._spec is not None:
            return
        self._corpus = self.source.read(self.root)
        aligned = (self.batching, self.evaluation, self.cleaning) == ("sentences", "sentences", UNTOUCHED)
        if self._corpus.translations and not aligned:
            raise InputError(
                f"{self.source.name}: translations need data.batching=sentences, data.evaluation=sentences and "
                "data.cleaning=null."
            )
        tokenizer = _saved(self.tokenizer) if self._tokenizer_is_given else _identity(self.tokenizer)
        key = repr((_FORMAT, self.source.name, self._corpus.stamp, self.cleaning, tokenizer)).encode()
        self._store = open_store(hashlib.blake2b(key, digest_size=16).hexdigest(), self._build)
        if not self._tokenizer_is_given:
            self.tokenizer = load_tokenizer(self._store.folder)
        self.report = {**self._corpus.report, **self._store.facts["report"]}
        self._warn_of_what_is_left_out()
        self._check_length()
        context = self.context or self._longest()
        digests = json.dumps([self._store.facts["digests"], context], sort_keys=True)
        self._spec = DataSpec(
            modality="text",
            shape=(context,),
            value_range=(0, self.tokenizer.vocab_size - 1),
            vocab_size=self.tokenizer.vocab_size,
            fingerprint=hashlib.blake2b(digests.encode(), digest_size=16).hexdigest(),
            name=self.source.name,
            evaluation=self.evaluation,
            token_counts=lambda: self._token_counts(),
        )

    def tokens(self, split: str) -> np.ndarray:
        """``(n,)`` uint16 or uint32: the stream of ids of a split, on the disk."""
        self._check_split(split)
        return self._store.tokens(self._stored(split))

    def _token_counts(self) -> np.ndarray:
        return np.bincount(self.tokens("train")[1 : 1 + _COUNTED], minlength=self.tokenizer.vocab_size)

    def sizes(self) -> dict[str, int]:
        """Tokens in each split, boundaries between documents left out."""
        _ = self.spec
        return {split: self.report[f"{self._stored(split)}_tokens"] for split in SPLITS}

    def texts(self, split: str) -> Iterator[str]:
        """The documents of a split, cleaned, in order; of long ones the pieces of about a million characters."""
        self._check_split(split)
        return (piece.text for piece in self._pieces(split, self._kept(self._store.folder, split)) if piece.text)

    def originals(self, split: str) -> Iterator[str]:
        """What each document of a split is the translation of; nothing for plain text."""
        self._check_split(split)
        return self._original_texts(split)

    def check_world_size(self, world_size: int) -> None:
        """Raises InputError if this many processes can't share a training batch equally."""
        check_share(self.batch_size, world_size, "rows")

    def train_dataloader(self) -> Loader:
        """Endless, from batch number `start_batch` on; this rank's share of each batch."""
        rank, world_size = self._place()
        self.check_world_size(world_size)
        reader = self._reader("train")
        batching = _TRAINING[self.batching](reader.tokens, *self.spec.shape, self.batch_size, self.seed)
        return Loader(
            reader, lambda: (batching.request(k, rank, world_size) for k in itertools.count(self.start_batch))
        )

    def val_dataloader(self) -> SizedLoader:
        """Every target of ``val`` once over all ranks."""
        return self.evaluation_batches("val", *self._place())

    def test_dataloader(self) -> SizedLoader:
        """Every target of ``test`` once over all ranks."""
        return self.evaluation_batches("test", *self._place())

    def evaluation_batches(
        self, split: str, rank: int = 0, world_size: int = 1, evaluation: str | None = None
    ) -> SizedLoader:
        """A split's batches with every target once over all ranks; the first one is predicted from the boundary.

        Args:
            split: ``train``, ``val`` or ``test``.
            rank: Which share.
            world_size: Number of shares; each gets a batch or more.
            evaluation: Another protocol than the data's own; see the class.
        """
        context, evaluation = self.spec.shape[0], evaluation or self.evaluation
        reader = self._reader(split)
        if evaluation == "sentences":
            rows = SentencesOnce(reader.tokens, context)
        elif evaluation == "carried":
            rows = CarriedOnce(reader.tokens, context, self.eval_batch_size)
        elif evaluation == "strided":
            rows = WindowsOnce(reader.tokens, context, self.stride or -(-context // 2))
        elif evaluation == "windows":
            rows = WindowsOnce(reader.tokens, context)
        else:
            raise InputError(f"evaluation is {evaluation!r}, expected {', '.join(_EVALUATIONS)}.")
        if len(rows) < world_size:
            raise InputError(
                f"{len(rows)} {'rows' if evaluation == 'carried' else evaluation} of {split} are too few for "
                f"{world_size} processes: use fewer devices."
            )
        # every rank gets a batch, for the Trainer skips the whole loop, hooks and all, on a rank that has none
        block = min(self.eval_batch_size, len(rows) // world_size)
        return SizedLoader(reader, lambda: rows.requests(block, rank, world_size))

    def _reader(self, split: str) -> RowReader:
        tokens = self.tokens(split)
        if not self._corpus.translations:
            return RowReader(tokens)
        return RowReader(tokens, Originals(self._store.tokens(f"{self._stored(split)}_source"), *self.spec.shape))

    def _build(self, folder: Path) -> dict[str, Any]:
        """Everything that is made once: what is kept, the trained tokenizer, the tokens."""
        cleaner = Cleaner(self.cleaning)
        splits = [split for split in CLEANING_ORDER if self._stored(split) == split]
        for split in splits:
            before = cleaner.report["characters"]
            np.save(folder / f"kept_{split}.npy", cleaner.decide(self._corpus.splits[split]()))
            if cleaner.report["characters"] == before:
                self._refuse_empty(split, cleaner.report)
        report = dict(cleaner.report)
        if not self._tokenizer_is_given:
            training = (piece.text for piece in self._pieces("train", self._kept(folder, "train")))
            self.tokenizer.train(itertools.chain(training, self._original_texts("train")))
        self.tokenizer.save(folder)
        digests = {"tokenizer": _digest(folder / "tokenizer.json")}
        for split in splits:
            digests[split] = self._write(folder, split, self._pieces(split, self._kept(folder, split)), report)
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

    def _pieces(self, split: str, kept: np.ndarray) -> Iterator[Piece]:
        return kept_pieces(self._corpus.splits[split](), kept, self.cleaning)

    def _kept(self, folder: Path, split: str) -> np.ndarray:
        return np.load(folder / f"kept_{self._stored(split)}.npy")

    def _original_texts(self, split: str) -> Iterator[str]:
        if split not in self._corpus.translations:
            return iter(())
        return (cleaned(piece.text, self.cleaning) for piece in self._corpus.translations[split]())

    def _stored(self, split: str) -> str:
        """The name under which a split is stored: the test that is no other than val has none of its own."""
        return "val" if self._corpus.splits[split] is self._corpus.splits["val"] else split

    def _longest(self) -> int:
        names = [file.stem for file in self._store.folder.glob("*.uint*")]
        return max(int(np.diff(boundaries(self._store.tokens(name))).max(initial=1)) for name in names)

    def _check_length(self) -> None:
        least = {"crops": self.context, "reshuffled": self.context, "carried": self.batch_size, "sentences": 1}
        length = len(self._store.tokens("train"))
        if length <= least[self.batching]:
            name = "batch_size" if self.batching == "carried" else "context"
            raise InputError(
                f"{self.source.name}: {length - 1} tokens of training text are fewer than "
                f"data.{name}={least[self.batching]}: set it to {length - 1} or less, or give more text."
            )

    def _check_split(self, split: str) -> None:
        if split not in SPLITS:
            raise InputError(f"no split {split!r}; there is {', '.join(SPLITS)}.")
        _ = self.spec

    def _warn_of_what_is_left_out(self) -> None:
        words = {
            "exact_duplicates": "documents are exact duplicates of others",
            "near_duplicates": "documents are near duplicates of others",
            "too_long": "documents are too long",
        }
        found = [f"{self.report[reason]} {what}" for reason, what in words.items() if self.report.get(reason)]
        if names := self._corpus.not_text:
            found.insert(0, f"{len(names)} files that are no UTF-8 text ({first_few(names)})")
        if found:
            _warn(f"{self.source.name}: left out: {', '.join(found)}")
        if count := self.report["invalid_bytes"]:
            _warn(f"{self.source.name}: {count} bytes are not UTF-8 and became U+FFFD")

    def _place(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


def _identity(tokenizer: Tokenizer) -> str:
    """What an untrained tokenizer will be trained to, given the text: its class and its options."""
    kind = type(tokenizer)
    options = json.dumps(vars(tokenizer), sort_keys=True, default=lambda value: type(value).__name__)
    return f"{kind.__module__}.{kind.__qualname__} {options}"


def _saved(tokenizer: Tokenizer) -> str:
    """The hash of what a trained tokenizer is saved as."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        return _digest(Path(folder, "tokenizer.json"))


def _digest(file: Path) -> str:
    return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()


@rank_zero_only
def _warn(message: str) -> None:
    log.warning(message)
