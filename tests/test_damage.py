"""What ilm_jax wrote is read as it was written or refused in one line, however it was damaged."""

import collections
import shutil

import numpy as np
import pytest

from tests.damage import KINDS, outcome

# Of each kind here; `python -m tests.mutate` draws more.
MUTANTS = {"table": 80, "vectors": 60, "cache": 80, "catalogue": 60, "checkpoint": 30}


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_of_ours_is_read_as_it_was_or_refused(tmp_path, name):
    kind = KINDS[name]
    kind.make(tmp_path / "whole")
    whole = kind.read(tmp_path / "whole")
    assert outcome(kind, tmp_path / "whole", whole) == "read"
    found = collections.Counter()
    for seed in range(MUTANTS[name]):
        folder = tmp_path / f"mutant-{seed}"
        shutil.copytree(tmp_path / "whole", folder)
        did = kind.damage(folder, np.random.default_rng(seed))
        try:
            found[outcome(kind, folder, whole)] += 1
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed}: {did}") from error
        shutil.rmtree(folder)
    # Of a checkpoint's files, which Orbax names at random, most say nothing of its numbers.
    least = 1 if name == "checkpoint" else MUTANTS[name] // 4
    assert found["refused"] >= least, found
    # A catalogue has a digest of every byte.
    assert found["read"] > 0 or name == "catalogue", found
