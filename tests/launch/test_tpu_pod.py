"""The pod's commands, word by word, and a pod that is taken away, against a gcloud of ours."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from ilm_jax.compilation.topology import Topology
from launch import tpu_pod
from tests.some import some

HOSTILE = 'gs://b/x\'; rm -rf ~; $(reboot) `id` "q"'
WORDS = ["train", "--gin_file=pods/gemma2_2b_v5e_16.gin", "--gin.MODEL_DIR=gs://b/run"]
WHERE = ["--name=align", "--zone=us-west4-a"]

# Answers from a list of states, logs every call, and loses the first run's connection.
GCLOUD = """#!{python} -IS
import json, pathlib, sys
folder = pathlib.Path({folder!r})
with (folder / "calls").open("a") as f: f.write(json.dumps(sys.argv[1:]) + "\\n")
if "describe" in sys.argv:
    if "--format=json(tpu)" in sys.argv:
        node = {{"acceleratorType": "v5litepod-16"}}
        print(json.dumps({{"tpu": {{"nodeSpec": [{{"node": node}}]}}}}))
        sys.exit()
    states = (folder / "states").read_text().split(",")
    (folder / "states").write_text(",".join(states[1:] or states))
    if states[0] == "NONE":
        sys.exit("ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource "
                 "'projects/p/locations/z/queuedResources/align' was not found.")
    print(states[0])
if any("tail -n" in word for word in sys.argv):
    codes = (folder / "codes").read_text().split(",")
    (folder / "codes").write_text(",".join(codes[1:] or codes))
    sys.exit(int(codes[0]))
"""


@pytest.fixture
def gcloud(tmp_path, monkeypatch):
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "gcloud").write_text(GCLOUD.format(python=sys.executable, folder=str(tmp_path)))
    (bin_ / "gcloud").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    return tmp_path


def calls(folder):
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def run(gcloud, states, codes, **more):
    (gcloud / "states").write_text(states)
    (gcloud / "codes").write_text(codes)
    pod = tpu_pod.Pod("align", "us-west4-a", Topology.parse("v5e-16"), "image")
    options = {"retries": 3, "keep": False, "archive": str(gcloud / "code.tar.gz"), **more}
    return tpu_pod.run(pod, WORDS, tpu_pod.Runner(False), wait=lambda _: None, **options)


def dry(capsys, *words):
    assert tpu_pod.main([*WHERE, "--dry_run", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("$ ") for line in some(lines))
    return [shlex.split(line[2:]) for line in lines]


def test_a_dry_run_prints_every_command(capsys):
    commands = dry(capsys, "--spot", "--project=p", "--", *WORDS)
    at = ["--zone=us-west4-a", "--project=p"]
    describe = [
        "gcloud",
        "compute",
        "tpus",
        "queued-resources",
        "describe",
        "align",
        "--format=value(state.state)",
        *at,
    ]
    assert commands[0][0] == "git" and commands[0][3] == "archive"
    assert commands[1] == commands[3] == describe
    assert commands[2] == [
        "gcloud",
        "compute",
        "tpus",
        "queued-resources",
        "create",
        "align",
        "--node-id=align",
        "--accelerator-type=v5litepod-16",
        "--runtime-version=v2-alpha-tpuv5-lite",
        "--spot",
        *at,
    ]
    assert commands[4][3:6] == ["tpu-vm", "scp", "/tmp/align-ilm_jax.tar.gz"]
    assert "uv pip install -q -e '.[tpu]'" in commands[5][8]
    line = commands[6][8]
    assert line.startswith("--command=") and "--multiprocess" in line
    assert commands[6][3:6] == ["tpu-vm", "ssh", "align"] and "--worker=all" in commands[6]
    assert "--worker=0" in commands[7] and "tail -n +1 -f" in commands[7][8]
    assert commands[-1][3:6] == ["queued-resources", "delete", "align"]


def test_two_slices_are_two_nodes(capsys):
    words = ["train", "--gin_file=pods/gemma2_9b_v5e_2x128.gin", "--gin.MODEL_DIR=gs://b/run"]
    commands = dry(capsys, "--setup=ls", "--", *words)
    assert {"--node-count=2", "--node-prefix=align", "--accelerator-type=v5litepod-128"} <= set(
        commands[2]
    )
    assert [c[5] for c in commands if c[3:5] == ["tpu-vm", "ssh"]] == [
        "align-0",
        "align-0",
        "align-1",
        "align-1",
        "align-0",
        "align-1",
        "align-0",
    ]
    assert [c[8] for c in commands if c[3:5] == ["tpu-vm", "ssh"]].count("--command=ls") == 2


def test_hostile_values_reach_the_verb_as_one_word(tmp_path):
    """The line is run by a real shell, its Python replaced by one that prints its words."""
    (tmp_path / "ilm_jax_venv/bin").mkdir(parents=True)
    (tmp_path / "ilm_jax_checkout").mkdir()
    fake = tmp_path / "ilm_jax_venv/bin/python"
    fake.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    fake.chmod(0o755)
    line = tpu_pod.run_line(["train", f"--gin.MODEL_DIR={HOSTILE}"])
    wait = f"; while [ ! -f ~/{tpu_pod.LOG}.code ]; do sleep 0.1; done"
    home = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run(["bash", "-c", line + wait], env=home, timeout=60, check=True)
    said = json.loads((tmp_path / tpu_pod.LOG).read_text())
    assert said == ["-m", "ilm_jax", "train", f"--gin.MODEL_DIR={HOSTILE}"]
    assert (tmp_path / f"{tpu_pod.LOG}.code").read_text() == "0\n"


def test_secrets_are_not_printed(capsys):
    tpu_pod.Runner(True).show(["x", "--gin.HF_TOKEN=abc123", "--command=export API_KEY=xyz; run"])
    out = capsys.readouterr().out
    assert "abc123" not in out and "xyz" not in out and out.count("***") == 2


def test_a_pod_that_is_taken_away_is_made_again(gcloud):
    states = ",".join(["NONE", "WAITING_FOR_RESOURCES", "ACTIVE", *["SUSPENDED"] * 3, "ACTIVE"])
    assert run(gcloud, states, "255,0") == 0
    verbs = [tuple(call[2:4]) for call in calls(gcloud)]
    assert verbs.count(("queued-resources", "create")) == 2
    assert verbs.count(("tpu-vm", "scp")) == 2
    assert verbs[-1] == ("queued-resources", "delete")


def test_a_broken_connection_is_taken_up_again_without_a_new_start(gcloud):
    assert run(gcloud, "ACTIVE", "255,255,0") == 0
    lines = [word for call in calls(gcloud) for word in call if word.startswith("--command=")]
    assert sum("-m ilm_jax" in line for line in lines) == 1
    assert sum("tail -n" in line for line in lines) == 3


def test_a_run_that_fails_is_not_tried_again(gcloud):
    assert run(gcloud, "ACTIVE", "2", keep=True) == 2
    verbs = [tuple(call[2:4]) for call in calls(gcloud)]
    assert verbs.count(("tpu-vm", "scp")) == 1 and ("queued-resources", "delete") not in verbs


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*WHERE], "name what to run"),
        (["--name=a;b", "--zone=us-west4-a", "--", *WORDS], "small letters"),
        (["--name=a", "--zone=mars", "--", *WORDS], "is no zone"),
        ([*WHERE, "--", "train", "--gin_file=tiny/stage0.gin"], "is not written like"),
        ([*WHERE, "--topology=tpu7x:2x2x2", "--", *WORDS], "Kubernetes"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_made(words, told, capsys):
    assert tpu_pod.main([*words[:2], "--dry_run", *words[2:]]) == 2
    captured = capsys.readouterr()
    assert told in captured.err and not captured.out


def test_without_gcloud_it_says_so(monkeypatch, tmp_path, capsys):
    (tmp_path / "git").symlink_to(shutil.which("git"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tpu_pod.main([*WHERE, "--", *WORDS]) == 2
    assert "gcloud is not installed: see docs/pods.md" in capsys.readouterr().err
