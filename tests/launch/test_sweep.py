"""Sweeps: which runs there are, what is refused, and one that survives a failure and a kill."""

import csv
import dataclasses
import json
import sys

import pytest

from ilm_jax.cli.words import split_bindings
from ilm_jax.errors import UserError
from ilm_jax.runs import gin_config, sweep_results
from ilm_jax.runs.run import Run
from ilm_jax.runs.sweeps import Sweep, parse_value, run_name
from ilm_jax.training import finished
from launch import sweep

MIXTURES = [{"long_description": 1.0}, {"long_description": 1.0, "sequential_random": 1.0}]
GRID = {"MIXTURE_OR_TASK_NAME": MIXTURES, "LEARNING_RATE": [1e-3, 3e-3], "SEED": [0, 1]}


def test_a_grid_is_every_combination_in_a_folder_of_its_own():
    runs = Sweep(("a.gin",), grid=GRID).expand()
    assert len(runs) == 8 == len(set(runs))
    assert all("/" not in name and " " not in name and len(name) < 100 for name in runs)
    assert {tuple(b) for b in runs.values()} == {tuple(GRID)}
    # Adding a value moves nobody.
    more = Sweep(("a.gin",), grid=GRID | {"SEED": [2, 0, 1]}).expand()
    assert set(runs) < set(more)


def test_draws_are_the_same_again_and_inside_their_bounds():
    how = {"LEARNING_RATE": "log(1e-4, 1e-2)", "n.num_queries": [1, 4, 8]}
    one = Sweep(("a.gin",), random=how, draws=20, draw_seed=3).expand()
    assert one == Sweep(("a.gin",), random=how, draws=20, draw_seed=3).expand()
    rates = [b["LEARNING_RATE"] for b in one.values()]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates) and len(set(rates)) == 20
    assert sum(rate < 1e-3 for rate in rates) in range(4, 17)
    assert {b["n.num_queries"] for b in one.values()} == {1, 4, 8}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gin_file": ()}, "needs a recipe"),
        ({"grid": {"SEED": "01"}}, "give a list .*SEED"),
        ({"random": {"A": "log(0,1)"}, "draws": 1}, "the smaller first"),
        ({"random": {"A": "normal(0,1)"}, "draws": 1}, "write log"),
        ({"random": {"A": "log(1,2)"}}, "number of draws"),
        ({"runs": [{"A": 1}, {"A": 1}]}, "same bindings"),
        ({"best": "least"}, "use min or max"),
    ],
)
def test_what_is_no_sweep_is_refused(changes, words):
    with pytest.raises(UserError, match=words):
        Sweep(**{"gin_file": ("a.gin",), **changes}).expand()


def test_hostile_values_stay_one_word_and_name_no_other_folder():
    value = "x'; rm -rf ~; $(reboot) `id`\n../.."
    assert not set(run_name({"A": value})) & set("/'; $`\n")
    words = sweep.train_words(Sweep(("a.gin",)), {"A": value}, "/m")
    assert f"--gin.A={value}" in words and len(words) == 4
    runner = sweep.Runner("/m", Sweep(("a.gin",)), "tpu --name=s-{number} --", (), {})
    assert runner.command(7, "n", {"A": value})[:3] == ["tpu", "--name=s-7", "--"]
    assert parse_value("1e-3") == 1e-3 and parse_value("gs://a") == "gs://a"


STAGE0 = ["--gin_file=tiny/stage0.gin"]


def test_two_runs_with_one_configuration_are_refused_before_anything_starts(tmp_path, capsys):
    words = ["--folder", str(tmp_path), *STAGE0, "--grid", "LEARNING_RATE=1e-3|0.001"]
    assert sweep.main(words) == 2
    assert "same bindings" in capsys.readouterr().err
    restated = Sweep(
        ("tiny/stage0.gin",),
        fixed={"MODEL_DIR": "m"},
        runs=[{"SEED": 0}, {"SEED": 0, "TOKENIZER": ""}],
    )
    with pytest.raises(UserError, match="have the same configuration"):
        sweep.run_sweep(str(tmp_path / "none"), restated, jobs=1)
    assert not (tmp_path / "none").exists()


def test_a_binding_that_nothing_reads_is_refused_before_anything_starts(tmp_path, capsys):
    assert sweep.main(["--folder", str(tmp_path), *STAGE0, "--grid", "LERNING_RATE=1|2"]) == 2
    assert "did you mean 'LEARNING_RATE'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


FAKE = """
import pathlib, sys
from ilm_jax.runs import gin_config
from ilm_jax.training import finished
from ilm_jax.runs.run import Run
words = [w[6:] for w in sys.argv[1:] if w.startswith("--gin.")]
gin_config.build(Run, [w[11:] for w in sys.argv[1:] if w.startswith("--gin_file=")], words)
recipe = gin_config.bindings_of(gin_config.operative_config())
at = dict(w[6:].split("=", 1) for w in sys.argv[1:] if w.startswith("--gin."))
folder = pathlib.Path(at["MODEL_DIR"]); folder.mkdir(parents=True, exist_ok=True)
with (folder / "starts").open("a") as f: f.write("x")
if at["LEARNING_RATE"] == "0.003" and at["SEED"] == "1" and not (folder / "mended").exists():
    sys.exit("no such luck")
loss = float(at["LEARNING_RATE"]) * 100 + int(at["SEED"]) * 0.01
finished.write(str(folder), seconds=1, step=1, validation={"loss": loss}, recipe=recipe, inputs={})
"""


@pytest.mark.slow
def test_failures_do_not_stop_the_others_and_are_tried_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep.signal, "signal", lambda *_: None)
    (tmp_path / "fake.py").write_text(FAKE)
    folder = tmp_path / "runs"
    rates = {"LEARNING_RATE": [1e-3, 3e-3], "SEED": [0, 1]}
    one = Sweep(("tiny/stage0.gin",), grid=rates)
    launcher = f"{sys.executable} {tmp_path}/fake.py"
    assert sweep.run_sweep(str(folder), one, jobs=2, launcher=launcher) == 1
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert sorted(row["state"] for row in rows) == ["failed"] + ["finished"] * 3
    assert "no such luck" in capsys.readouterr().err
    (failed,) = [row["run"] for row in rows if row["state"] == "failed"]
    (folder / failed / "mended").touch()
    assert sweep.run_sweep(str(folder), one, jobs=2, launcher=launcher) == 0
    starts = {name: (folder / name / "starts").read_text() for name in one.expand()}
    assert starts.pop(failed) == "xx" and set(starts.values()) == {"x"}
    text = (folder / "results.md").read_text()
    assert (
        "best on average: LEARNING_RATE=0.001: loss 0.1050 ± 0.0050 (standard error, 2 seeds)"
        in text
    )
    assert (folder / "results.png").read_bytes()[:4] == b"\x89PNG"
    assert len(json.loads((folder / "sweep.json").read_text())["runs"]) == 4
    # Shared bindings are part of what a run is: its results are not those of other ones.
    kept = ("sweep.json", "results.csv", "results.md", "results.png")
    before = {name: (folder / name).read_bytes() for name in kept}
    other = dataclasses.replace(one, fixed={"TRAIN_STEPS": 9})
    with pytest.raises(UserError, match="made by another sweep: TRAIN_STEPS .*, now 9"):
        sweep.run_sweep(str(folder), other, jobs=2, launcher=launcher)
    assert before == {name: (folder / name).read_bytes() for name in kept}


def test_what_stands_in_a_folder_is_judged_by_recipe_and_inputs_not_by_a_file(tmp_path):
    folder, recipe = (
        str(tmp_path),
        "A = 1\nCF_TABLE = 'x'\nMODEL_DIR = 'm'\nf.g = \\\n    {'a': 1}\n",
    )
    parse = gin_config.bindings_of

    def standing(text, inputs=None):
        return finished.standing(folder, parse(text), inputs, parse)

    assert standing(recipe, {}).state == "absent"
    (tmp_path / "config.gin").write_text(recipe)
    assert standing(recipe).state == "begun"
    assert standing(recipe.replace("A = 1", "A = 2")).state == "other"
    inputs = {"table 0": "0123"}
    finished.write(folder, seconds=1, step=1, validation={}, recipe=parse(recipe), inputs=inputs)
    assert standing(recipe, inputs).state == "finished"
    # Where a file lies and where results go make no other run; another file does.
    moved = recipe.replace("'x'", "'y'").replace("'m'", "'n'")
    assert standing(moved, inputs).state == "finished"
    assert standing(moved).state == "other"
    assert "table 0 0123, now 4567" in standing(recipe, {"table 0": "4567"}).why
    assert (
        "f.g {'a': 1}, now {'a': 2}" in standing(recipe.replace("{'a': 1}", "{'a': 2}"), inputs).why
    )
    (tmp_path / finished.FILE).write_text('{"seconds": 1, "validation": {}}')
    assert standing(recipe, inputs).why == "it does not say what made it"
    (tmp_path / finished.FILE).write_text('{"seconds"')
    with pytest.raises(UserError, match="damaged"):
        standing(recipe, inputs)


def test_error_bars_are_standard_errors_over_seeds():
    rows = [
        {"bindings": {"A": 1, "SEED": seed}, "validation": {"loss": loss}}
        for seed, loss in enumerate([1.0, 2.0, 3.0])
    ]
    ((mean, error, count),) = sweep_results.averages(rows, Sweep()).values()
    assert (mean, count) == (2.0, 3) and error == pytest.approx(1 / 3**0.5)


def test_what_is_not_finite_is_left_out_by_name_and_other_settings_are_no_seeds():
    rows = [
        {"run": f"r{n}", "bindings": {"LEARNING_RATE": rate}, "validation": {"loss": loss}}
        for n, (rate, loss) in enumerate([(0.1, float("nan")), (0.01, 2.0), (0.001, 1.0)])
    ]
    one = Sweep(grid={"LEARNING_RATE": [0.1, 0.01, 0.001]})
    lines = sweep_results._best(rows, sweep_results.averages(rows, one), one)
    assert lines == [
        "left out: loss of r0 is not a finite number",
        "best on average: LEARNING_RATE=0.001: loss 1.0000 (one seed)",
        "best run: r2: loss 1.0000",
    ]
    names = ("decoder.DecoderConfig.num_layers", "qformer.QFormerConfig.num_layers")
    two = Sweep(runs=tuple({name: 2} for name in names))
    rows = [{"bindings": {name: 2}, "validation": {"loss": 1.0}} for name in names]
    assert set(sweep_results.averages(rows, two)) == {f"{name}=2" for name in names}


def test_a_grid_may_be_over_recipes():
    one = Sweep(grid={"gin_file": ["tiny/stage0.gin", "tiny/stage1.gin"], "SEED": [0, 1]})
    runs = one.expand()
    assert len(runs) == 4 and all("/" not in name for name in runs)
    words = sweep.train_words(one, {"gin_file": "tiny/stage1.gin", "SEED": 1}, "/m")
    assert words[1:] == ["--gin_file=tiny/stage1.gin", "--gin.SEED=1", "--gin.MODEL_DIR=/m"]


def test_every_setting_competes_at_the_rate_that_suits_it():
    values = {("a", 1e-3): 2.0, ("a", 1e-2): 1.0, ("b", 1e-3): 1.5, ("b", 1e-2): 3.0}
    rows = [
        {
            "bindings": {"gin_file": name, "LEARNING_RATE": rate, "SEED": seed},
            "validation": {"loss": value + seed},
        }
        for (name, rate), value in values.items()
        for seed in (0, 1)
    ]
    tuned = Sweep(grid={"gin_file": ["a", "b"]}, tuned=("LEARNING_RATE",))
    lines = sweep_results.at_their_best(rows, tuned)
    assert lines[1] == "each at its best LEARNING_RATE, by loss:"
    assert lines[2:] == [
        "- gin_file=a  LEARNING_RATE=0.01: 1.5000 ± 0.5000 (standard error, 2 seeds)",
        "- gin_file=b  LEARNING_RATE=0.001: 2.0000 ± 0.5000 (standard error, 2 seeds)",
    ]
    rows[-1]["validation"] = {}
    assert "(runs are missing)" in sweep_results.at_their_best(rows, tuned)[3]
    with pytest.raises(UserError, match="tuned = .*SPEED.*: no such binding differs"):
        Sweep(("a.gin",), grid={"SEED": [0]}, tuned=("SPEED",)).expand()


def test_the_rows_are_one_sweep_over_one_grid_of_rates():
    rows = gin_config.build(Sweep, ["sweeps/rows.gin"], [], [])
    assert rows.tuned == ("LEARNING_RATE",) and rows.metric == "nll_content"
    places = ["LM_FROM=lm", "CF_TABLE=t", "MODEL_DIR=m"]
    for bindings in list(rows.expand().values())[::4]:
        words = sweep.train_words(rows, bindings, "m")
        named, rest = split_bindings(words[1:])
        run = gin_config.build(Run, [w.split("=")[1] for w in rest], [*named, *places])
        assert run.optimizer.learning_rate == bindings["LEARNING_RATE"]
        (judged,) = run.train_eval.values()
        assert judged.mixture_or_task_name == "long_description"
