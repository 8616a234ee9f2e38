"""Steps of a study run side by side, each after what it reads."""

import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from ilm_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def studies(monkeypatch):
    """Modules of the folder, whose names are common words."""
    monkeypatch.syspath_prepend(str(ROOT / "studies"))
    import scheduling
    import steps
    import study

    monkeypatch.setattr(study.Study, "data", "catalogue")
    yield scheduling, steps, study
    for name in ("scheduling", "steps", "study"):
        sys.modules.pop(name)


def step(folder, name, *reads):
    return name, ["note", f"--output={folder / name}", *reads], folder / name


def test_a_step_starts_when_what_it_reads_is_made_and_not_before(studies, monkeypatch, tmp_path):
    scheduling, steps, study = studies
    both, began, ended = threading.Barrier(2, timeout=20), [], []

    def verb(command, name, folder, prefix=""):
        assert prefix == f"{name}: "
        began.append((name, set(ended)))
        if name in ("left", "right-2"):
            both.wait()  # passes only if both run at the same time
        (tmp_path / name).touch()
        ended.append(name)

    monkeypatch.setattr(steps, "run_verb", verb)
    plan = [
        step(tmp_path, "data"),
        step(tmp_path, "left", f"--from={tmp_path / 'data'}"),
        step(tmp_path, "right", f"--from={tmp_path / 'data'}"),
        step(tmp_path, "right-2", f"--from='{tmp_path / 'right'}'"),
        step(tmp_path, "last", f"--of={tmp_path / 'left'}", f'--and={{"a": "{tmp_path}/right-2"}}'),
    ]
    seconds = scheduling.run_steps(study.Study("toy", 0, tmp_path, jobs=2), plan)
    before = dict(began)
    assert list(before)[0] == "data" and list(before)[-1] == "last"
    assert "data" in before["left"] and "right" in before["right-2"]
    assert {"left", "right-2"} <= before["last"]
    assert set(seconds) == set(before)


def test_a_step_that_fails_lets_the_one_beside_it_finish_and_starts_no_other(
    studies, monkeypatch, tmp_path
):
    scheduling, steps, study = studies
    both = threading.Barrier(2, timeout=20)

    def verb(command, name, folder, prefix=""):
        both.wait()
        if name == "bad":
            raise UserError("step 'bad' failed")
        time.sleep(0.5)  # the one that fails ends first
        (tmp_path / name).touch()

    monkeypatch.setattr(steps, "run_verb", verb)
    plan = [step(tmp_path, name) for name in ("bad", "good", "later")]
    with pytest.raises(UserError, match="step 'bad' failed"):
        scheduling.run_steps(study.Study("toy", 0, tmp_path, jobs=2), plan)
    assert (tmp_path / "good").exists() and not (tmp_path / "later").exists()


def test_lines_of_verbs_side_by_side_say_whose_they_are(studies, tmp_path, capfd):
    _, steps, _ = studies
    steps.run_verb(["--help"], "first", tmp_path, prefix="first: ")
    printed = capfd.readouterr().out.splitlines()
    assert printed and all(line.startswith("first: ") for line in printed)
    with pytest.raises(UserError, match="step 'second' failed"):
        steps.run_verb(["no-such-verb"], "second", tmp_path, prefix="second: ")
    assert "second: " in capfd.readouterr().out


@pytest.mark.parametrize(
    ("cores", "platforms", "plugin", "jobs"),
    [(2, "", "", 2), (1, "", "", 1), (8, "", "jax_plugins", 1), (8, "cpu", "libtpu", 2)],
)
def test_two_steps_run_side_by_side_where_no_accelerator_is_shared(
    studies, monkeypatch, cores, platforms, plugin, jobs
):
    scheduling, _, _ = studies
    monkeypatch.setattr(scheduling.os, "cpu_count", lambda: cores)
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(scheduling.importlib.util, "find_spec", lambda name: name == plugin or None)
    assert scheduling.default_jobs() == jobs


def test_jobs_keep_to_cores_of_their_own(studies, monkeypatch):
    scheduling, _, _ = studies
    some = {0, 1, 4, 5, 6}
    monkeypatch.setattr(scheduling.os, "sched_getaffinity", lambda _: some, raising=False)
    assert scheduling.cores_of(1) == [some]
    assert scheduling.cores_of(2) == [{0, 4, 6}, {1, 5}]
    assert scheduling.cores_of(6) == [some] * 6  # too few: all for everyone
    monkeypatch.delattr(scheduling.os, "sched_getaffinity")
    assert scheduling.cores_of(2) == [set(), set()]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux alone has it")
def test_a_step_runs_on_its_jobs_cores_and_the_study_keeps_all(studies, monkeypatch, tmp_path):
    scheduling, steps, study = studies
    before, seen = os.sched_getaffinity(0), {}

    def verb(command, name, folder, prefix=""):
        code = "import os; print(sorted(os.sched_getaffinity(0)))"
        seen[name] = subprocess.check_output([sys.executable, "-c", code], text=True)
        (tmp_path / name).touch()

    monkeypatch.setattr(steps, "run_verb", verb)
    monkeypatch.setattr(scheduling, "cores_of", lambda jobs: [{min(before)}] * jobs)
    scheduling.run_steps(study.Study("toy", 0, tmp_path, jobs=2), [step(tmp_path, "one")])
    assert seen["one"].strip() == f"[{min(before)}]"
    assert os.sched_getaffinity(0) == before


def test_a_name_that_another_begins_with_is_not_named_by_it(script, tmp_path):
    steps = script("steps")
    for other in ("text+items", "text-longer", "text.old", "texts"):
        assert not steps.is_named(tmp_path / "text", [f"--gin.X='{tmp_path / other}'"])
    assert steps.is_named(tmp_path / "text", [f"--gin.X='{tmp_path / 'text'}'"])
    assert steps.is_named(tmp_path / "text", [f'{{"x": "{tmp_path}/text/1"}}'])
