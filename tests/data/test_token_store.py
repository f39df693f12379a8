"""Token files: what was written is read, made once by many processes, remade when damaged."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from lit_aigc.data.store import open_store
from lit_aigc.data.token_store import boundaries, write_tokens


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lit_aigc" / "text"


def build(folder: Path) -> dict[str, object]:
    return {"digest": write_tokens(folder, "train", [np.arange(5), np.array([7])], 100)}


def forbidden(folder: Path) -> dict[str, object]:
    raise AssertionError("made again")


@pytest.mark.parametrize(("vocab_size", "kind"), [(100, "uint16"), (1 << 16, "uint16"), ((1 << 16) + 1, "uint32")])
def test_ids_come_back(tmp_path: Path, vocab_size: int, kind: str) -> None:
    ids = np.array([0, 3, vocab_size - 1, 0])
    store = open_store(
        "text/key", "key", lambda folder: {"digest": write_tokens(folder, "val", [ids[:1], ids[1:]], vocab_size)}
    )
    assert store.tokens("val").dtype == kind
    assert store.tokens("val").tolist() == ids.tolist()
    whole = write_tokens(tmp_path, "again", [ids], vocab_size)
    assert store.facts == {"digest": whole}  # of the content, not of its parts


def test_a_store_is_made_once() -> None:
    open_store("text/key", "key", build)
    assert open_store("text/key", "key", forbidden).tokens("train").tolist() == [0, 1, 2, 3, 4, 7]
    with pytest.raises(AssertionError, match="made again"):
        open_store("text/other", "other", forbidden)


@pytest.mark.parametrize("name", ["train.uint16", "facts.json"])
def test_a_damaged_store_is_made_again(cache_folder: Path, name: str) -> None:
    open_store("text/key", "key", build)
    (cache_folder / "key" / name).write_bytes(b"{")
    assert open_store("text/key", "key", build).tokens("train").tolist() == [0, 1, 2, 3, 4, 7]
    assert sorted(file.name for file in cache_folder.iterdir()) == ["key", "key.lock"]


def test_a_failed_build_leaves_nothing(cache_folder: Path) -> None:
    with pytest.raises(AssertionError):
        open_store("text/key", "key", forbidden)
    assert [file.name for file in cache_folder.iterdir()] == ["key.lock"]


def _counted_build(folder: Path) -> dict[str, object]:
    with (folder.parent / "builds").open("a") as file:
        file.write("x")
    return build(folder)


def _open(queue: multiprocessing.Queue) -> None:
    queue.put(open_store("text/key", "key", _counted_build).tokens("train").tolist())


def test_processes_at_once_make_it_once(cache_folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_open, args=(queue,)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in processes] == [[0, 1, 2, 3, 4, 7]] * 4
    for process in processes:
        process.join()
    assert (cache_folder / "builds").read_text() == "x"


def test_without_a_cache_it_lasts_as_long_as_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache_folder: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    store = open_store("text/key", "key", build)
    assert store.tokens("train").tolist() == [0, 1, 2, 3, 4, 7]
    assert store.folder.is_dir()
    folder = store.folder
    store.temporary.cleanup()
    assert not folder.exists()


def test_boundaries_are_found_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.array([0, 1, 2, 0, 0, 3, 4, 0, 5, 0])
    for block in (1, 3, 4, 100):
        monkeypatch.setattr("lit_aigc.data.token_store._BLOCK", block)
        assert boundaries(tokens).tolist() == [0, 3, 4, 7, 9]
