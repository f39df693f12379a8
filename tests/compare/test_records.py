"""Records on disk: which are read, what the code's version is."""

import json
import subprocess

import pytest

import lit_aigc
from lit_aigc.compare.records import code_version, newest_records, read_record
from lit_aigc.errors import InputError


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    for name in ("lit_aigc", "conf", "docs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file.py").write_text("1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    return tmp_path


def test_the_version_is_the_last_commit_of_code_or_configs(checkout):
    first = code_version(root=checkout)
    assert len(first) == 7
    assert set(first) <= set("0123456789abcdef")
    (checkout / "docs/file.py").write_text("2\n")
    git(checkout, "commit", "-qam", "docs")
    assert code_version(root=checkout) == first
    (checkout / "conf/file.py").write_text("2\n")
    git(checkout, "commit", "-qam", "conf")
    assert code_version(root=checkout) != first


def test_uncommitted_changes_show_and_are_told_apart(checkout):
    clean = code_version(root=checkout)
    (checkout / "docs/new.md").write_text("x")
    assert code_version(root=checkout) == clean
    seen = []
    for file, text in (("lit_aigc/file.py", "2\n"), ("lit_aigc/file.py", "3\n"), ("conf/new.yaml", "a: 1\n")):
        (checkout / file).write_text(text)
        seen.append(code_version(root=checkout))
    assert all(version.startswith(f"{clean}+") for version in seen)
    assert len(set(seen)) == 3


def test_config_folders_of_the_users_own_are_part_of_the_version(checkout, tmp_path):
    own = tmp_path / "docs"
    (own / "a.yaml").write_text("a: 1")
    one = code_version([own], root=checkout)
    (own / "a.yaml").write_text("a: 2")
    assert one.startswith(code_version(root=checkout) + "+")
    assert code_version([own], root=checkout) != one


def test_outside_of_a_checkout_it_is_the_packages_version(tmp_path, checkout, monkeypatch):
    (checkout / "site/lit_aigc").mkdir(parents=True)  # installed within somebody's checkout, not part of it
    assert code_version(root=checkout / "site") == lit_aigc.__version__
    monkeypatch.setenv("PATH", "")
    assert code_version(root=checkout) == lit_aigc.__version__


def write(folder, *records):
    for i, record in enumerate(records):
        (folder / f"{i}.json").write_text(json.dumps(record))


def test_the_newest_of_each_experiment_and_seed_is_taken(made_up, plan, tmp_path):
    write(
        tmp_path,
        made_up("a", 0, 1.0, date="2026-02-01T00:00:00+00:00", commit="new"),
        made_up("a", 0, 2.0, date="2026-01-01T00:00:00+00:00", commit="old"),
        made_up("a", 1, 3.0),
        made_up("a", 2, 4.0, budget={"minutes": 30}),
        made_up("a", 3, 5.0, overrides=["validations=2"]),
        made_up("b", 0, 6.0),
    )
    found = newest_records(plan("a"))
    assert sorted((r["seed"], r["commit"]) for r in found) == [(0, "new"), (1, "1234567")]
    assert [r["seed"] for r in newest_records(plan("a", seeds=(1, 7)))] == [1]
    assert [r["seed"] for r in newest_records(plan("a", overrides=("validations=2",)))] == [3]


def test_an_experiment_without_a_record_is_named(made_up, plan, tmp_path):
    write(tmp_path, made_up("a"))
    with pytest.raises(InputError, match="no record of b, c with this budget"):
        newest_records(plan("a", "b", "c"))


@pytest.mark.parametrize(("text", "expected"), [("{", "can't be read"), ("{}", "is not a record"), ("[]", "is not a")])
def test_what_is_no_record_is_told(tmp_path, text, expected):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=expected):
        read_record(tmp_path / "x.json")
