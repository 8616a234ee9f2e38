"""A disk that fills while a checkpoint is written: the last good one survives, and it is said."""

import subprocess
import sys

import pytest

from ilm_jax.checkpoints.checkpoints import CheckpointConfig, Checkpoints
from ilm_jax.errors import UserError
from ilm_jax.files import is_full
from tests.training.small import TwoLayers, make_trainer


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MB."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(where)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a small file system")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_the_last_good_checkpoint_survives(small_disk, asynchronous):
    config = CheckpointConfig(every=4, keep_last=3, asynchronous=asynchronous)
    make_trainer(small_disk / "run", steps=4, checkpoint=config, objective=TwoLayers(4000)).fit()
    ballast = small_disk / "ballast"
    free = 6 * 2**20 - sum(f.stat().st_size for f in small_disk.rglob("*") if f.is_file())
    ballast.write_bytes(bytes(max(0, free - 150_000)))
    again = make_trainer(small_disk / "run", steps=12, checkpoint=config, objective=TwoLayers(4000))
    with pytest.raises(UserError, match="no space left for .* of step 4; make room"):
        again.fit()
    assert Checkpoints(small_disk / "run").resolve("last") == 4
    ballast.unlink()
    make_trainer(small_disk / "run", steps=8, checkpoint=config, objective=TwoLayers(4000)).fit()
    assert Checkpoints(small_disk / "run").resolve("last") == 8


def test_an_error_is_known_by_its_number_or_its_words():
    full = OSError(28, "No space left on device")
    wrapped = ValueError("saving failed")
    wrapped.__cause__ = full
    assert is_full(full) and is_full(wrapped)
    assert is_full(ValueError("RESOURCE_EXHAUSTED: ... No space left on device [source ...]"))
    assert not is_full(OSError(2, "No such file")) and not is_full(None)
