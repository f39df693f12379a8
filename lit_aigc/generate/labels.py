"""Class labels that samples are asked for, by index or by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lit_aigc.build import did_you_mean
from lit_aigc.errors import InputError
from lit_aigc.spec import Condition, DataSpec


def condition_of(label: int | str | Sequence[int | str] | None, n: int, spec: DataSpec) -> Condition | None:
    """Return the condition for n samples of one class or of a class each; None: the model's default.

    Raises:
        InputError: If a class is unknown, or the number of classes is not that of the samples.
    """
    if label is None:
        return None
    labels = list(label) if isinstance(label, (list, tuple)) else [label] * n
    if len(labels) != n:
        raise InputError(f"label has {len(labels)} entries for n={n} samples: give one class, or one per sample.")
    return Condition(torch.tensor([_class_index(entry, spec) for entry in labels]))


def _class_index(entry: int | str, spec: DataSpec) -> int:
    if isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry < spec.num_classes:
        return entry
    if str(entry) in spec.class_names:
        return spec.class_names.index(str(entry))
    if not spec.num_classes:
        raise InputError("This model has no classes: leave the label out.")
    names = [name for label, name in enumerate(spec.class_names) if name != str(label)]
    hint = did_you_mean(str(entry), names)
    if not hint.startswith(","):
        hint = f"; known: {', '.join([f'0 to {spec.num_classes - 1}', *sorted(names)])}"
    raise InputError(f"label={entry} is unknown{hint}")
