from __future__ import annotations

import pytest
import torch

from lit_aigc.errors import InputError
from lit_aigc.metrics import precision_recall as module
from lit_aigc.metrics.precision_recall import PrecisionRecall, covered, precision_recall, radii


def features(n: int, d: int = 8, seed: int = 0, scale: float = 1.0, offset: float = 0.0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * scale + offset


def by_definition(fake: torch.Tensor, real: torch.Tensor, k: int) -> dict[str, float]:
    def share(queries: torch.Tensor, centres: torch.Tensor) -> float:
        own = (centres[:, None] - centres[None]).double().norm(dim=2)
        radius = own.sort(dim=1).values[:, k]
        return float(((queries[:, None] - centres[None]).double().norm(dim=2) <= radius).any(dim=1).double().mean())

    return {"precision": share(fake, real), "recall": share(real, fake)}


@pytest.mark.parametrize("k", [1, 3])
def test_equals_the_definition(k):
    fake, real = features(90, scale=0.8, offset=0.4), features(70, seed=1)
    found = precision_recall(fake, real, k)
    assert found == pytest.approx(by_definition(fake, real, k), abs=1e-12)
    assert 0 < found["recall"] < found["precision"] < 1


def test_equals_torch_fidelity():
    fidelity = pytest.importorskip("torch_fidelity.metric_prc")
    fake, real = features(300, 24, scale=0.9, offset=0.2), features(251, 24, seed=1)
    options = {"prc_neighborhood": 3, "prc_batch_size": 100, "save_cpu_ram": True, "verbose": False}
    expected = fidelity.prc_features_to_metric(fake, real, **options)
    found = precision_recall(fake, real)
    assert 0.1 < found["recall"] != found["precision"] < 1
    assert found == pytest.approx({key: expected[key] for key in ("precision", "recall")}, abs=1e-6)


def test_by_hand_on_a_line():
    real = torch.tensor([[0.0], [1.0], [3.0]])  # radii to the nearest: 1, 1, 2
    fake = torch.tensor([[-1.0], [5.5], [5.0], [9.0]])  # radii: 6, 0.5, 0.5, 3.5
    assert radii(real, 1).tolist() == [1.0, 1.0, 4.0]
    assert radii(fake, 1).tolist() == [36.0, 0.25, 0.25, 12.25]
    assert covered(fake, real, radii(real, 1)).tolist() == [True, False, True, False]  # on the edge counts
    assert precision_recall(fake, real, 1) == {"precision": 0.5, "recall": 1.0}


def test_blocks_make_no_difference(monkeypatch):
    fake, real = features(90, scale=0.8, offset=0.4), features(70, seed=1)
    whole = precision_recall(fake, real)
    monkeypatch.setattr(module, "_ROWS", 7)
    monkeypatch.setattr(module, "_COLUMNS", 2)  # fewer than neighbours
    assert precision_recall(fake, real) == whole


def test_memory_of_a_block_is_bounded(monkeypatch):
    sizes = []
    squares = module._squares
    monkeypatch.setattr(module, "_squares", lambda x, y: sizes.append((len(x), len(y))) or squares(x, y))
    monkeypatch.setattr(module, "_ROWS", 16)
    monkeypatch.setattr(module, "_COLUMNS", 32)
    precision_recall(features(100), features(100, seed=1))
    assert max(rows * columns for rows, columns in sizes) == 16 * 32


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_set_against_itself(offset):
    """Exact where rounding is large beside the distances: an item is in a ball of radius 0 around itself."""
    one = features(60, offset=offset)
    assert precision_recall(one, one) == {"precision": 1.0, "recall": 1.0}
    same = one[:1].expand(20, -1)
    assert precision_recall(same, same) == {"precision": 1.0, "recall": 1.0}
    assert precision_recall(same + 1.0, same) == {"precision": 0.0, "recall": 0.0}


def test_what_each_of_them_sees():
    real = features(400, 2)
    collapsed = real[:1] + features(400, 2, seed=1) * 0.01
    assert precision_recall(collapsed, real)["precision"] == 1.0
    assert precision_recall(collapsed, real)["recall"] < 0.1
    scattered = torch.cat([real[::2], features(200, 2, seed=2) + 20.0])
    assert precision_recall(scattered, real)["precision"] == pytest.approx(0.5)
    assert precision_recall(scattered, real)["recall"] > 0.95


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("limit", [40, 1000])
def test_batch_size_makes_no_difference(batch_size, limit):
    x, reference = features(101, offset=0.3), features(60, seed=1)
    whole, parts = PrecisionRecall(reference, limit), PrecisionRecall(reference, limit)
    whole.update(x, 0)
    for start in range(0, 101, batch_size):
        parts.update(x[start : start + batch_size], start)
    assert parts.compute() == whole.compute()
    if limit == 1000:
        assert whole.compute() == precision_recall(x, reference)


def test_bad_input():
    with pytest.raises(InputError, match="need at least 4 images on either side, got 3"):
        precision_recall(features(3), features(30))
    with pytest.raises(InputError, match="need at least 4 images on either side, got 2"):
        precision_recall(features(30), features(2))
    with pytest.raises(InputError, match="NaN"):
        precision_recall(features(30) / 0.0, features(30))
    with pytest.raises(InputError, match="got 0"):
        PrecisionRecall(features(30)).compute()
