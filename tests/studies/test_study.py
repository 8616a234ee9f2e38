"""A study skips only what the same command made from the same inputs."""

import json
import pathlib
import sys

import pytest

from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write
from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run
from ilm_jax.training import finished

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """The module, its verbs leaving the files of the real ones, and the names of those that ran."""
    monkeypatch.syspath_prepend(str(ROOT / "studies"))
    import steps as running
    import study as module

    ran = []

    def verb(command, name, folder, prefix=""):
        ran.append(name)
        at = dict(word.lstrip("-").partition("=")[::2] for word in command[1:])
        if command[0] == "fit_cf":
            with atomic_write(at["output"]) as stream:
                stream.write(f"table of seed {at['seed']}")
        elif command[0] == "evaluate":
            with atomic_write(pathlib.Path(at["output"]) / "evaluation.json") as stream:
                stream.write("{}")
        elif command[0] == "train":
            folder = at["gin.MODEL_DIR"].strip("'")
            finished.write(folder, seconds=1, step=1, validation={}, recipe={}, inputs={})

    monkeypatch.setattr(running, "run_verb", verb)
    monkeypatch.setattr(module.Study, "data", "catalogue")
    yield module, ran
    for name in ("study", "steps", "scheduling"):
        sys.modules.pop(name)


def test_a_second_time_nothing_runs_and_other_inputs_are_refused_by_name(
    steps, tmp_path, monkeypatch
):
    module, ran = steps
    study = module.Study("toy", 0, tmp_path / "s")
    module.run_study(study, ["text-zero", "mlp"], ranking=False)
    assert ran == ["cf", "stage0", "evaluate text-zero", "mlp", "evaluate mlp"]
    module.run_study(study, ["text-zero", "mlp"], ranking=False)
    assert len(ran) == 5
    module.run_study(study, ["text-zero", "mlp", "ilm"], ranking=False)
    assert ran[5:] == ["stage1", "ilm", "evaluate ilm"]

    other_seed = module.Study("toy", 1, tmp_path / "s")
    with pytest.raises(UserError, match=r"step 'cf' .*--seed=0, now --seed=1"):
        module.run_study(other_seed, ["mlp"], ranking=False)
    monkeypatch.setattr(module.Study, "data", "another catalogue")
    with pytest.raises(UserError, match="step 'cf' .* other data"):
        module.run_study(study, ["mlp"], ranking=False)
    monkeypatch.setattr(module.Study, "data", "catalogue")
    # What an earlier step made was replaced: neither it nor what was made from it stands.
    (tmp_path / "s/cf.safetensors").write_text("somebody's vectors")
    with pytest.raises(UserError, match="step 'cf' .* other output"):
        module.run_study(study, ["mlp"], ranking=False)
    (tmp_path / "s/cf.safetensors").unlink()
    with pytest.raises(UserError, match="stage1.* would make now|mlp.* would make now"):
        ran.clear()
        monkeypatch.setattr(
            sys.modules["steps"],
            "run_verb",
            lambda command, name, folder, **_: (tmp_path / "s/cf.safetensors").write_text("new"),
        )
        module.run_study(study, ["mlp"], ranking=False)


def test_a_kill_between_a_step_and_its_record_loses_nothing(steps, tmp_path):
    module, ran = steps
    study = module.Study("toy", 0, tmp_path / "s")
    module.run_study(study, ["mlp"], ranking=False)
    file = tmp_path / "s/steps/stage0.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "output": ""}))
    module.run_study(study, ["mlp"], ranking=False)
    assert len(ran) == 4 and json.loads(file.read_text())["output"]
    file.unlink()
    with pytest.raises(UserError, match="is not what step 'stage0' would make"):
        module.run_study(study, ["mlp"], ranking=False)


def test_a_quickstarts_readers_recommend_and_id_strings_are_one_rows_alone(
    steps, tmp_path, monkeypatch
):
    module, _ = steps
    monkeypatch.setattr(module.Study, "tokenizer", tmp_path / "stage0.model")
    study = module.Study("toy", 0, tmp_path / "s", heads=True)
    plan = module.plan(study, list(study.recipes), True)
    names = [name for name, *_ in plan]
    assert names[:3] == ["cf", "stage0", "stage1"] and names[-1] == "baselines"
    assert names[3:5] == ["ilm", "evaluate ilm"], "what takes longest starts first"
    words = {name: command for name, command, _ in plan}
    for row in study.recipes:
        asked = words[f"evaluate {row}"]
        reads = row in module.READER_ROWS
        assert ("--noid_strings" in asked) == reads, row
        assert ("--exclude_seen" in asked) == (reads or row == "text-full"), row
        assert ("--noranking" in asked) == (row == "text-zero"), row
        if row == "text-zero":
            continue
        files = [word.partition("=")[2] for word in words[row] if word.startswith("--gin_file")]
        bindings = [w.removeprefix("--gin.") for w in words[row] if w.startswith("--gin.")]
        run = gin_config.build(Run, files, bindings)
        assert run.objective.scores_items == reads and run.objective.predicts_text, row
        assert sum(run.dataset.row_lengths.values()) == 244, "rows of all recipes cost the same"
        assert (run.dataset.settings.tokenizer == str(study.tokenizer)) == reads, row
        assert not run.dataset.use_cached, "nothing waits for caches"
    plain = module.plan(module.Study("toy", 0, tmp_path / "p"), list(study.recipes), True)
    assert "baselines" not in {name for name, *_ in plain}
    assert not any("stage2_items_and_texts" in " ".join(command) for _, command, _ in plain)


@pytest.mark.slow
def test_a_step_may_be_a_script_of_the_studies(monkeypatch, tmp_path, capfd):
    monkeypatch.syspath_prepend(str(ROOT / "studies"))
    import steps as running

    running.run_verb(["baselines.py", "--help"], "baselines", tmp_path)
    assert "python studies/baselines.py --dataset" in capfd.readouterr().out
    with pytest.raises(UserError, match="step 'baselines' failed"):
        running.run_verb(["baselines.py", "--no_such_flag"], "baselines", tmp_path)
    sys.modules.pop("steps")
