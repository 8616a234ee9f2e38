"""Folders damaged in many ways are read right or refused in one line, and both happen."""

import collections
import shutil

import numpy as np
import pytest

from ilm_jax.checkpoints.opening import open_language_model
from tests.checkpoints.judging import make, outcome
from tests.checkpoints.mutating import MUTATORS

# Of each kind here; a script may draw more.
MUTANTS = {"config": 60, "header": 100, "index": 60, "tokenizer": 40, "t5x": 40, "own": 16}


@pytest.mark.parametrize("kind", MUTATORS)
def test_a_damaged_folder_is_read_right_or_refused(tmp_path, kind):
    make(kind, tmp_path / "whole")
    whole = None
    if kind in ("t5x", "own"):
        entries = open_language_model(str(tmp_path / "whole")).entries
        whole = {name: entry.read() for name, entry in entries.items()}
    assert outcome(kind, tmp_path / "whole", whole) == "read"
    found = collections.Counter()
    for seed in range(MUTANTS[kind]):
        folder = tmp_path / f"mutant-{seed}"
        shutil.copytree(tmp_path / "whole", folder)
        did = MUTATORS[kind](folder, np.random.default_rng(seed))
        try:
            found[outcome(kind, folder, whole)] += 1
        except Exception as error:
            raise AssertionError(f"{kind}, seed {seed}: {did}") from error
        shutil.rmtree(folder)
    # Damage is seen, and what changes nothing is no reason to refuse.
    assert found["refused"] and found["read"], found
