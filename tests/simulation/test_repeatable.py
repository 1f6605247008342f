"""A simulated run of one seed does the same each time: what it found can be looked at again."""

import os
import subprocess
import sys
from pathlib import Path

SEED, ROUNDS = 5, 3
PROJECT = Path(__file__).parents[2]


def _begin(hash_seed):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.simulation.chaos_trace", str(SEED), str(ROUNDS)],
        cwd=PROJECT, env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_run_of_one_seed_does_the_same_when_sets_have_another_order():
    runs = [_begin(1), _begin(2)]
    first, second = [run.communicate(timeout=100)[0].splitlines() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert len(first) > 500
    differing = [pair for pair in zip(first, second, strict=False) if len(set(pair)) > 1]
    assert differing[:1] == []
    assert len(first) == len(second)
