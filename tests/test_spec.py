"""The facts that data tells models."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from lit_aigc.spec import Batch, Condition, DataSpec, TextBatch

SPECS = [
    DataSpec("image", (1, 28, 28), num_classes=2, class_names=("a", "b"), fingerprint="f", name="n"),
    DataSpec("text", (128,), value_range=(0, 255), vocab_size=256),
    DataSpec("audio", (1, 8000), sample_rate=8000),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.modality)
def test_a_spec_survives_json(spec: DataSpec) -> None:
    again = DataSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert isinstance(again.shape, tuple)
    assert isinstance(again.class_names, tuple)


def test_to_dict_holds_every_fact_as_plain_types() -> None:
    facts = SPECS[0].to_dict()
    assert set(facts) == {field.name for field in dataclasses.fields(DataSpec)} - {"token_counts"}
    assert facts["shape"] == [1, 28, 28]
    assert facts["class_names"] == ["a", "b"]
    assert facts["value_range"] == [-1.0, 1.0]


def test_a_spec_can_not_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPECS[0].shape = (3, 28, 28)


def test_an_unknown_fact_is_refused() -> None:
    with pytest.raises(TypeError):
        DataSpec.from_dict({"modality": "image", "shape": [1, 2, 2], "colour": "red"})


def test_parts_of_a_condition() -> None:
    condition = Condition(labels=torch.tensor([3, 1, 2]))
    assert condition[1:].labels.tolist() == [1, 2]
    assert condition[torch.tensor([2, 0])].labels.tolist() == [2, 3]
    assert Condition()[0:2].labels is None


def test_parts_of_batches_know_where_they_are() -> None:
    ids = torch.arange(12).reshape(4, 3)
    part = TextBatch(ids, ids[:, 1:] > 2, 8, carried=True, labels=torch.arange(4)).part(slice(1, 3))
    assert part.ids.tolist() == [[3, 4, 5], [6, 7, 8]]
    assert part.mask.all() and part.mask.shape == (2, 2)
    assert (part.start, part.carried, part.source) == (9, True, None)
    assert part.labels.tolist() == [1, 2]
    images = Batch(torch.zeros(4, 1, 2, 2), None, 8).part(slice(2, 9))
    assert images.images.shape == (2, 1, 2, 2) and images.labels is None and images.start == 10
