import os
import platform
import subprocess
import sys

import pytest

from lit_aigc.machine.memory import keep_freed_memory

BLOCK, TURNS = 48 * 2**20, 10
CODE = f"""
import resource, sys
from lit_aigc.machine.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

block = b"x" * {BLOCK}
del block
before = faults()
for _ in range({TURNS}):
    block = b"x" * {BLOCK}
    del block
print(faults() - before)
"""


def page_faults(what: str, **variables: str) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | variables
    command = [sys.executable, "-c", CODE, what]
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc")
class TestKeepFreedMemory:
    def test_a_block_that_was_freed_serves_again(self):
        assert page_faults("keep") < TURNS

    def test_without_it_each_block_is_cleared_anew(self):
        assert page_faults("default") > page_faults("keep") + TURNS * BLOCK // 2**21  # pages of at most 2 MB

    def test_what_the_environment_sets_stays(self):
        variables = {"MALLOC_MMAP_MAX_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}
        assert page_faults("keep", **variables) > TURNS * BLOCK // 2**21


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("looked for malloc"))
    keep_freed_memory()
