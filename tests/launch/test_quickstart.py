"""The shell part of the quickstart: what it installs, and which words it hands on."""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parents[2]


def test_flags_reach_the_study_and_are_no_extras_of_the_installation(tmp_path):
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$@" >> "$VIRTUAL_ENV/calls"\n')
    python.chmod(0o755)
    words = ["--dataset", "custom", "--data_dir", "a folder"]
    env = {"PATH": f"{python.parent}:{os.environ['PATH']}", "VIRTUAL_ENV": str(tmp_path)}
    subprocess.run(["bash", str(ROOT / "launch/quickstart.sh"), *words], env=env, check=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == f"-m pip install --quiet --disable-pip-version-check --no-compile -e {ROOT}"
    assert calls[-1] == f"{ROOT}/studies/reproduce.py quickstart {' '.join(words)}"
