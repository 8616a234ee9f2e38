"""The second start of a command compiles nothing, in a folder that does not grow for ever."""

import os
import subprocess
import sys
import zlib

import pytest

from ilm_jax.cli import kept_programs
from ilm_jax.cli.kept_programs import (
    ENABLED,
    LEAST_SECONDS,
    PLACE,
    forget_broken,
    forget_old,
    keep_programs,
)

TRAIN = ["train", "--gin_file=tiny/stage0.gin", "--gin.DATASET='toy'", "--gin.TRAIN_STEPS=2"]


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """As at a start: JAX is not imported yet."""
    monkeypatch.setenv("ILM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "jax", raising=False)


@pytest.mark.parametrize(
    "words",
    [
        ["fit_cf", "--dataset=toy", "--output={}/cf.safetensors"],
        pytest.param([*TRAIN, "--gin.MODEL_DIR='{}'"], marks=pytest.mark.slow),
    ],
    ids=["fit_cf", "train"],
)
def test_the_second_start_compiles_nothing(tmp_path, words):
    environment = {**os.environ, "ILM_CACHE": str(tmp_path / "cache")}
    for name in (PLACE, LEAST_SECONDS, "XLA_FLAGS"):
        environment.pop(name, None)
    kept = []
    for run in ("first", "second"):
        command = [sys.executable, "-m", "ilm_jax", *(w.format(tmp_path / run) for w in words)]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        kept.append({path.name for path in (tmp_path / "cache/compiled").rglob("*-cache")})
    assert kept[0] and kept[1] == kept[0]  # whatever is compiled is kept


def test_programs_are_kept_in_the_cache_folder(fresh):
    environment: dict[str, str] = {}
    keep_programs(environment)
    assert environment[PLACE] == str(kept_programs.programs_dir())
    assert os.path.isdir(environment[PLACE])


@pytest.mark.parametrize("told", [{PLACE: "gs://bucket/programs"}, {ENABLED: "false"}])
def test_jaxs_own_words_win(fresh, told):
    environment = dict(told)
    keep_programs(environment)
    assert environment == told


def test_nothing_is_kept_where_nothing_can_be_written(fresh, tmp_path):
    (tmp_path / "cache").write_text("a file stands in the way")
    environment: dict[str, str] = {}
    keep_programs(environment)
    assert environment == {}


def test_a_program_that_has_jax_already_is_left_alone(monkeypatch, tmp_path):
    import jax  # noqa: F401

    monkeypatch.setenv("ILM_CACHE", str(tmp_path))
    environment: dict[str, str] = {}
    keep_programs(environment)
    assert environment == {} and not list(tmp_path.iterdir())


def test_what_a_killed_process_left_half_written_is_forgotten(tmp_path):
    whole = zlib.compress(os.urandom(1000))
    for name, held in [("whole", whole), ("cut", whole[:300]), ("empty", b"")]:
        (tmp_path / f"jit_{name}-cache").write_bytes(held)
    os.utime(tmp_path / "jit_empty-cache", (2e9, 2e9))
    forget_broken(tmp_path)
    assert [path.name for path in tmp_path.glob("*-cache")] == ["jit_whole-cache"]
    old = tmp_path / "jit_old-cache"
    old.write_bytes(whole[:300])
    os.utime(old, (1e9, 1e9))
    forget_broken(tmp_path)  # what an earlier start has looked at is not looked at again
    assert old.exists()


def test_what_was_used_longest_ago_is_forgotten_first(tmp_path):
    for age, name in enumerate(["newest", "middle", "oldest"]):
        (tmp_path / name).write_bytes(b"x" * 10)
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    forget_old(tmp_path, limit=20)
    assert {path.name for path in tmp_path.iterdir()} == {"newest", "middle"}
    forget_old(tmp_path, limit=0)
    assert not list(tmp_path.iterdir())
