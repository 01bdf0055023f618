"""The peak of the tree of processes: a child's memory counts while it lives."""

from __future__ import annotations

import subprocess
import sys

from pipeline.memory import TreePeak, tree_mb

CHILD = "import sys; held = bytearray(b'x' * 2**26); print('ready', flush=True); sys.stdin.read()"


def test_a_child_counts_while_it_lives() -> None:
    before = tree_mb()
    with TreePeak() as peak:
        child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        peak._look()
        child.communicate()
    assert before > 1
    assert peak.mb >= before + 64
    assert tree_mb() < peak.mb - 32
