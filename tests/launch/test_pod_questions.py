"""What Google Cloud could not be asked is not absent: a gcloud of ours fails and is killed."""

import json
import os
import subprocess
import sys

import pytest

from ilm_jax.compilation.topology import Topology
from ilm_jax.errors import UserError
from ilm_jax.training.stopping import STOPPED
from launch import tpu_pod

asking = sys.modules[tpu_pod.Runner.__module__]

# Each kind of question takes its answers from a file: a state, a failure in words, or -9. The pod
# is there as long as the file "alive" is.
GCLOUD = """#!{python} -IS
import json, os, pathlib, sys
folder = pathlib.Path({folder!r})
words = sys.argv[1:]
with (folder / "calls").open("a") as f: f.write(json.dumps(words) + "\\n")
def take(name):
    file = folder / name
    parts = file.read_text().split("|") if file.exists() else [""]
    file.write_text("|".join(parts[1:] or parts))
    if parts[0] == "KILLED": os.kill(os.getpid(), 9)
    if parts[0][:1] == "!": sys.exit("ERROR: (gcloud) " + parts[0][1:])
    return parts[0]
alive = folder / "alive"
where = "projects/p/locations/z/queuedResources/align"
absent = f"ERROR: (gcloud) NOT_FOUND: Resource '{{where}}' was not found."
if "describe" in words:
    if "--format=json(tpu)" in words:
        print(take("type") or json.dumps({{"tpu": {{"nodeSpec": [
            {{"node": {{"acceleratorType": "v5litepod-16"}}}}]}}}}))
        sys.exit()
    state = take("states")
    if not alive.exists(): sys.exit(absent)
    print(state)
elif "create" in words:
    said = take("create")
    if alive.exists(): sys.exit("ERROR: (gcloud) ALREADY_EXISTS: Resource '" + where + "'")
    alive.touch()
    if said == "lost": sys.exit("ERROR: (gcloud) network is unreachable")
elif "delete" in words:
    take("delete")
    if not alive.exists(): sys.exit(absent)
    alive.unlink()
elif "scp" in words: take("scp")
elif any("tail -n" in word for word in words):
    code = take("codes")
    if code == "0+gone": alive.unlink(); code = "0"
    if code == "255+gone": alive.unlink(); code = "255"
    sys.exit(int(code))
elif any("echo running" in word for word in words): print(take("own"))
"""
NETWORK = "!network is unreachable"
TOKEN = "!Reauthentication required: please run gcloud auth login"
QUOTA = "!RESOURCE_EXHAUSTED: Quota limit 'TPUV5s' has been exceeded"


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """Runs the launcher against answers; returns the verbs that gcloud was called with."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "gcloud").write_text(GCLOUD.format(python=sys.executable, folder=str(tmp_path)))
    (bin_ / "gcloud").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    monkeypatch.setattr(asking, "TRIES", 5)

    def run(alive=True, retries=2, keep=False, **answers):
        for name, said in {"states": "ACTIVE", "codes": "0", **answers}.items():
            (tmp_path / name).write_text(said)
        if alive:
            (tmp_path / "alive").touch()
        pod = tpu_pod.Pod("align", "us-west4-a", Topology.parse("v5e-16"), "image")
        code = tpu_pod.run(
            pod,
            ["train"],
            tpu_pod.Runner(False),
            retries=retries,
            keep=keep,
            archive=str(tmp_path / "code.tar.gz"),
            wait=lambda _: None,
        )
        return code

    run.folder = tmp_path
    return run


def verbs(cloud):
    calls = map(json.loads, (cloud.folder / "calls").read_text().splitlines())
    return [call[3] for call in calls]


def starts(cloud):
    return sum("nohup" in line for line in (cloud.folder / "calls").read_text().splitlines())


@pytest.mark.parametrize("failure", [NETWORK, TOKEN, QUOTA, "KILLED", ""])
def test_a_question_that_fails_leaves_a_living_pod_and_its_run_alone(cloud, failure):
    assert cloud(states=f"ACTIVE|{failure}|{failure}|ACTIVE", codes="255|0") == 0
    assert starts(cloud) == 1 and "create" not in verbs(cloud)
    assert verbs(cloud).count("delete") == 1 and verbs(cloud)[-1] == "delete"


def test_a_question_that_fails_while_waiting_is_put_again(cloud):
    states = f"WAITING_FOR_RESOURCES|{NETWORK}|KILLED|PROVISIONING|ACTIVE"
    assert cloud(alive=False, states=states) == 0
    assert verbs(cloud).count("create") == 1


def test_a_run_that_has_ended_well_is_not_done_again_whatever_becomes_of_its_pod(cloud):
    assert cloud(states=f"ACTIVE|{NETWORK}") == 0  # no question is answered again
    assert cloud(codes="0+gone") == 0
    assert starts(cloud) == 2 and verbs(cloud).count("create") == 0


def test_when_nothing_is_answered_for_long_the_pod_is_left_and_said(cloud):
    with pytest.raises(UserError, match="network is unreachable.*costs money.*delete align"):
        cloud(states=f"ACTIVE|{NETWORK}", codes="255")
    assert "delete" not in verbs(cloud) and starts(cloud) == 1
    with pytest.raises(UserError, match="run has ended with code 2.*does not say.*costs money"):
        cloud(states=f"ACTIVE|{NETWORK}", codes="2")
    assert "delete" not in verbs(cloud)


def test_without_permission_it_ends_at_once_and_nothing_was_made(cloud):
    with pytest.raises(UserError, match="PERMISSION_DENIED.*nothing was made"):
        cloud(states="!PERMISSION_DENIED: no tpu.queuedResources.get")
    assert verbs(cloud) == ["describe"]


def test_another_thing_that_is_not_found_is_not_the_pod(cloud):
    gone = "!NOT_FOUND: Resource 'projects/p' was not found"
    assert cloud(states=f"ACTIVE|{gone}|ACTIVE", codes="255|0") == 0
    assert verbs(cloud).count("delete") == 1 and starts(cloud) == 1


def test_a_pod_that_is_there_is_used_if_it_is_of_the_same_type(cloud):
    assert cloud() == 0 and "create" not in verbs(cloud)
    (cloud.folder / "calls").unlink()
    for spec, told in [
        ({"node": {"acceleratorType": "v5litepod-256"}}, "1 x v5litepod-256"),
        ({"node": {"acceleratorConfig": {"topology": "8x8"}}}, "1 x 8x8"),
        (
            {"node": {"acceleratorType": "v5litepod-16"}, "multisliceParams": {"nodeCount": 2}},
            "2 x v5litepod-16",
        ),
    ]:
        with pytest.raises(UserError, match=f"another type: {told}, not 1 x v5litepod-16"):
            cloud(type=json.dumps({"tpu": {"nodeSpec": [spec]}}))
    assert set(verbs(cloud)) == {"describe"}


def test_a_pod_that_appears_between_question_and_creation_is_checked_and_used(cloud):
    script = cloud.folder / "bin/gcloud"  # the first question comes before another launcher's pod
    script.write_text(
        script.read_text().replace(
            'elif "create" in words:', 'elif "create" in words:\n    alive.touch()'
        )
    )
    assert cloud(alive=False) == 0
    formats = [
        w
        for line in (cloud.folder / "calls").read_text().splitlines()
        for w in json.loads(line)
        if w.startswith("--format")
    ]
    assert "--format=json(tpu)" in formats and verbs(cloud).count("create") == 1


def test_a_creation_whose_answer_is_lost_makes_one_pod(cloud):
    assert cloud(alive=False, create="lost") == 0
    assert verbs(cloud).count("create") == 1


def test_a_pod_without_quota_is_asked_for_again_and_a_wrong_one_is_not(cloud):
    assert cloud(alive=False, create=f"{QUOTA}|{QUOTA}|made") == 0
    assert verbs(cloud).count("create") == 3
    (cloud.folder / "calls").unlink()
    with pytest.raises(UserError, match="refuses the pod align.*INVALID_ARGUMENT"):
        cloud(alive=False, create="!INVALID_ARGUMENT: no such runtime")
    assert verbs(cloud).count("create") == 1


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED", "PREEMPTED"])
def test_a_lost_pod_is_deleted_and_made_again(cloud, state):
    assert cloud(states=f"{state}|WAITING_FOR_RESOURCES|ACTIVE", delete=f"{NETWORK}|") == 0
    assert verbs(cloud).count("create") == 1 and verbs(cloud).count("delete") == 3


def test_a_pod_that_is_being_deleted_or_in_a_new_state_is_waited_for(cloud):
    assert cloud(states="DELETING|SUSPENDING|REPAIRING|ACTIVE") == 0
    assert "create" not in verbs(cloud) and verbs(cloud).count("delete") == 1


def test_pods_that_never_come_to_life_end_the_attempts(cloud):
    with pytest.raises(UserError, match="asked 5 times for the pod"):
        cloud(alive=False, states="FAILED")


def test_a_pod_that_cannot_be_deleted_is_said_with_the_command(cloud, capfd):
    assert cloud(delete=NETWORK) == 0
    said = capfd.readouterr().err
    assert "WARNING: the pod align could not be deleted" in said.splitlines()[-1]
    assert "costs money" in said and "queued-resources delete align --force" in said
    (cloud.folder / "calls").unlink()
    assert cloud(codes="0+gone", delete="") == 0  # nothing to delete any more
    assert "WARNING" not in capfd.readouterr().err and verbs(cloud).count("delete") == 1


def test_gclouds_own_failure_is_not_the_runs(cloud):
    assert cloud(codes="1|0", own="running") == 0 and starts(cloud) == 1
    assert cloud(codes="1|0", own="1") == 1 and starts(cloud) == 2
    assert cloud(codes="1", own="2") == 2


def test_a_run_that_was_stopped_or_has_vanished_is_not_finished(cloud):
    assert cloud(codes=f"{tpu_pod.RUN_STOPPED}|{tpu_pod.RUN_VANISHED}|0") == 0
    assert starts(cloud) == 3 and verbs(cloud).count("delete") == 1


def test_installing_that_fails_on_a_living_pod_is_not_tried_for_ever(cloud):
    with pytest.raises(UserError, match="3 failures in a row on a living pod.*costs money"):
        cloud(scp="!disk is full", retries=20)
    assert verbs(cloud).count("scp") == 3 and "delete" not in verbs(cloud)


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """A worker's home: shell lines run there as they would by ssh."""
    (tmp_path / "ilm_jax_venv/bin").mkdir(parents=True)
    (tmp_path / "ilm_jax_checkout").mkdir()

    def run(line, program=None):
        line = line.replace("sleep 2;", "sleep 0.2;")
        if program:
            python = tmp_path / "ilm_jax_venv/bin/python"
            python.write_text(f"#!{sys.executable}\n{program}")
            python.chmod(0o755)
        env = {**os.environ, "HOME": str(tmp_path)}
        return subprocess.run(
            ["bash", "-c", line],
            cwd=tmp_path,
            env=env,
            timeout=60,
            capture_output=True,
            text=True,
        )

    return run


WAITS = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit({code}))\ntime.sleep(50)"


def test_following_ends_as_the_run_did(worker):
    worker(tpu_pod.run_line(["train"]), "print('ended well')")
    done = worker(tpu_pod.FOLLOW)
    assert (done.returncode, done.stdout.strip()) == (0, "ended well")
    worker(tpu_pod.run_line(["train"]), f"print('{STOPPED}; saved step 3')")
    assert worker(tpu_pod.FOLLOW).returncode == tpu_pod.RUN_STOPPED
    worker(tpu_pod.run_line(["train"]), "raise SystemExit(3)")
    assert worker(tpu_pod.FOLLOW).returncode == 3 and worker(tpu_pod.CODE).stdout == "3\n"


def test_a_start_waits_for_the_earlier_run_to_save_and_end(worker, tmp_path):
    worker(tpu_pod.run_line(["train"]), WAITS.format(code="open('saved', 'w').write('x') and 0"))
    assert worker(tpu_pod.CODE).stdout == "running\n"
    worker("sleep 0.5")
    worker(tpu_pod.run_line(["train"]), "import os; print(os.path.exists('saved'))")
    assert worker(tpu_pod.FOLLOW).stdout.strip() == "True"


def test_a_run_whose_machine_was_started_anew_is_not_followed_for_ever(worker):
    worker(tpu_pod.run_line(["train"]), WAITS.format(code=0))
    started = worker(f"cat ~/{tpu_pod.LOG}.pid").stdout.strip()
    worker(f"echo another > ~/{tpu_pod.LOG}.boot")
    assert worker(tpu_pod.FOLLOW).returncode == tpu_pod.RUN_VANISHED
    worker(f"kill -9 -- -{started}")
