"""Folders that refuse: one line that names the place and the remedy, exit code 2, no traceback."""

import errno
import os
import pathlib
import subprocess
import sys

import pytest

from ilm_jax.checkpoints.checkpoints import CheckpointConfig, Checkpoints
from ilm_jax.cli import main as cli
from ilm_jax.cli.words import split_bindings
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write, folder_path, is_there, trouble


def mounted(folder, options):
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    return folder


@pytest.fixture
def places(tmp_path):
    """{how a path refuses: a folder that cannot be made}."""
    read_only = mounted(tmp_path / "read only é", "ro")
    (tmp_path / "file").write_text("a file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    yield {
        "read-only file system": read_only / "run",
        "a file stands where a folder should be": tmp_path / "file" / "run",
        "a file, or a link to nothing, stands in the way": tmp_path / "dangling",
        "links lead back to themselves": tmp_path / "loop",
        "name a shorter path": tmp_path / ("x" * 300),
    }
    subprocess.run(["umount", "-l", str(read_only)], check=True)


VERBS = [
    ("train", "--gin_file=tiny/stage0.gin", "--gin.MODEL_DIR={}"),
    ("cache_tasks", "--dataset=toy", "--cache_dir={}"),
    ("convert", "--source={}/../source", "--model_dir={}/out"),
]


@pytest.mark.parametrize("words", VERBS, ids=lambda words: words[0])
def test_a_folder_that_cannot_be_written_is_one_line(words, places, capfd):
    for told, place in places.items():
        code = cli.main([word.format(place) for word in words])
        said = capfd.readouterr().err.splitlines()
        errors = [line for line in said if line.startswith("ilm: error: ")]
        assert code == 2 and len(errors) == 1 and "Traceback" not in "".join(said), (told, said)
        # A cache may be looked for before it is made: where a file stands, there is no folder.
        assert told in errors[0] or (words[0] == "cache_tasks" and str(place) in errors[0]), errors


@pytest.fixture
def full(tmp_path):
    folder = mounted(tmp_path / "full", "size=64k,nr_inodes=4")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("lack", ["room", "inodes"])
def test_a_full_disk_names_the_file_that_was_wanted_and_leaves_the_old_one(full, lack):
    with atomic_write(full / "kept.txt") as stream:
        stream.write("old")
    if lack == "inodes":
        for n in range(2):
            (full / str(n)).touch()
    with pytest.raises(OSError) as caught, atomic_write(full / "kept.txt") as stream:
        stream.write("x" * (100_000 if lack == "room" else 1))
    told = trouble(caught.value)
    assert told.startswith(f"{full}/kept.txt: no space left on device") and "df -i" in told
    assert (full / "kept.txt").read_text() == "old" and not list(full.glob("*tmp*"))


def test_what_libraries_say_in_words_is_understood_and_faults_of_ours_are_not():
    assert "df -h" in trouble(ValueError("RESOURCE_EXHAUSTED: x [os_error_code='28']"))
    assert "another file system" in trouble(RuntimeError("I/O error: no (os error 30)"))
    wrapped = RuntimeError("saving failed")
    wrapped.__cause__ = PermissionError(errno.EACCES, "Permission denied", "/data/x")
    assert trouble(wrapped).startswith("/data/x: permission denied: change its owner")
    assert trouble(ValueError("shapes differ")) is None and trouble(KeyError("loss")) is None
    bug = TypeError("no such argument")
    bug.__context__ = FileNotFoundError(errno.ENOENT, "No such file", "/x")
    assert trouble(bug) is None and trouble(UserError("said already")) is None


class Unreachable(type(pathlib.Path())):
    """A folder of a storage that does not answer; `exists` and `is_dir` say False."""

    def stat(self, **_):
        raise OSError(errno.EIO, "Forbidden: token has expired", str(self))

    def exists(self):
        return False

    is_dir = exists


def test_what_cannot_be_asked_is_not_absent(tmp_path, monkeypatch):
    assert is_there(tmp_path) and not is_there(tmp_path / "no") and not is_there("/dev/null/x")
    monkeypatch.setattr("ilm_jax.files.folder_path", lambda path: Unreachable(path))
    with pytest.raises(UserError, match="input/output error"):
        is_there(tmp_path)
    # A run over such a folder would start anew, and write over the old one's metrics.
    for config in (None, CheckpointConfig()):
        with pytest.raises(UserError, match="input/output error"):
            Checkpoints(tmp_path, config)


def test_checkpoints_that_are_listed_and_cannot_be_opened_are_said(tmp_path, monkeypatch):
    (tmp_path / "checkpoints" / "7" / "params").mkdir(parents=True)
    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.all_steps", lambda *_, **__: [])
    with pytest.raises(UserError, match=r"holds the checkpoints \[7\], which cannot be opened"):
        Checkpoints(tmp_path, CheckpointConfig())


def test_a_tilde_behind_an_equals_sign_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/a b")
    assert split_bindings(["--gin.MODEL_DIR=~/run", "--gin.A=x~/y"])[0] == [
        "MODEL_DIR=/home/a b/run",
        "A=x~/y",
    ]
    assert folder_path("~/run") == pathlib.Path("/home/a b/run")


def test_names_may_be_long_and_odd_and_a_link_stays_a_link(tmp_path):
    name = "é" * 120 + " '$(x)'.txt"
    assert len(os.fsencode(name)) > 245
    (tmp_path / "link").symlink_to(tmp_path / name)
    for path in (tmp_path / name, tmp_path / "link"):
        with atomic_write(path) as stream:
            stream.write(path.name)
    assert (tmp_path / "link").is_symlink() and (tmp_path / name).read_text() == "link"
    assert len(list(tmp_path.iterdir())) == 2
