"""BLEU of translations, by sacrebleu (Post, 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sacrebleu.metrics import BLEU

from lit_aigc.errors import InputError


def bleu(translations: Sequence[str], references: Sequence[str]) -> tuple[dict[str, float], dict[str, Any]]:
    """Return BLEU of a whole corpus, with sacrebleu's own tokens of detokenized text.

    Args:
        translations: Plain text, one per sentence.
        references: One per translation.

    Returns:
        ``bleu`` in [0, 100], and the protocol with sacrebleu's signature, which makes it comparable with other reports.

    Raises:
        InputError: If there is nothing to compare, or the numbers of sentences differ.
    """
    if not translations or len(translations) != len(references):
        raise InputError(
            f"BLEU needs a reference for each translation, and at least one: there are {len(translations)} "
            f"translations and {len(references)} references."
        )
    metric = BLEU()
    found = metric.corpus_score(list(translations), [list(references)])
    facts = {"signature": str(metric.get_signature()), "sentences": len(translations)}
    facts |= {"precisions": [round(p, 2) for p in found.precisions], "brevity_penalty": found.bp}
    facts |= {"translation_words": found.sys_len, "reference_words": found.ref_len}
    return {"bleu": found.score}, facts
