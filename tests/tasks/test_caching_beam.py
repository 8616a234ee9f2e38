"""A Beam runner's workers write the bytes of one process; one that dies loses nothing."""

import pathlib

import pytest

from ilm_jax.cli import cache_tasks
from ilm_jax.data.streams import task_cache
from ilm_jax.errors import UserError
from tests.tasks.planned import contents, planned

pytest.importorskip("apache_beam", reason="Apache Beam is not installed (extra `beam`)")

from ilm_jax.tasks import beam_files, caching_beam  # noqa: E402 - need Beam

KILLING = pathlib.Path(__file__).with_name("killing_module.py")
PROCESSES = "--direct_running_mode=multi_processing --direct_num_workers=2"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(task_cache, "RECORDS_PER_PART", 40)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """What one process writes."""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_cache, "RECORDS_PER_PART", 40)
        plan = planned(folder)
        plan.open().finish(plan.jobs())
    return contents(folder)


def finished(plan, options, between=""):
    caching, jobs = plan.open(), plan.jobs()
    caching_beam.run(caching, plan, "DirectRunner", options, between)
    assert not caching.missing(jobs)
    caching.finish(jobs)


@pytest.mark.parametrize("options", ["", pytest.param(PROCESSES, marks=pytest.mark.slow)])
def test_the_bytes_are_those_of_one_process(tmp_path, wanted, options, capfd):
    finished(planned(tmp_path), options)
    assert contents(tmp_path) == wanted
    printed = capfd.readouterr()
    parts = sum(name.endswith("array_record") for name in wanted)
    assert f"parts {parts}" in printed.out and "cache: toy/DirectRunner: " in printed.err


def test_a_folder_between_stands_for_a_cache_that_workers_do_not_see(tmp_path, wanted):
    folder, between = tmp_path / "cache", tmp_path / "bucket"
    finished(planned(folder), "", str(between))
    assert contents(folder) == wanted
    assert not list(between.rglob("*.tmp-*"))
    # What a job that was left alone has written there is fetched, not written again.
    again = planned(tmp_path / "again")
    caching = again.open()
    beam_files.fetch(caching, again, caching.missing(again.jobs()), str(between))
    assert not caching.missing(again.jobs())


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_and_doubles_nothing(tmp_path, wanted, monkeypatch):
    mark = tmp_path / "mark"
    mark.touch()
    monkeypatch.setenv("ILM_TEST_KILL", str(mark))
    plan = planned(tmp_path / "cache", [str(KILLING)])
    caching, jobs = plan.open(), plan.jobs()
    with pytest.raises(UserError, match="was killed .* run this again"):
        caching_beam.run(caching, plan, "DirectRunner", PROCESSES)
    assert not mark.exists()
    assert caching.missing(jobs)
    finished(plan, PROCESSES)
    assert contents(tmp_path / "cache") == wanted


def test_what_is_wrong_is_one_line(tmp_path):
    plan = planned(tmp_path / "one")
    caching = plan.open()
    for runner, options, message in (
        ("DirectRunner", "--direct_num_wokers=3", "no option --direct_num_wokers"),
        ("DirectRunner", "--runner=FlinkRunner", "the runner is --beam_runner"),
        ("NoRunner", "", "NoRunner"),
    ):
        with pytest.raises(UserError, match=message) as error:
            caching_beam.run(caching, plan, runner, options)
        assert "\n" not in str(error.value)


@pytest.mark.slow
def test_the_verb_runs_a_beam_runner_and_goes_on(tmp_path, capfd):
    planned(tmp_path)
    words = [f"--cache_dir={tmp_path}", "--tasks=item_item", "--nowith_text_only"]
    for _ in range(2):  # the second time nothing is missing
        cache_tasks.main([*words, "--beam_runner=DirectRunner", f"--beam_options={PROCESSES}"])
    assert "align_toy_item_item" in capfd.readouterr().out
