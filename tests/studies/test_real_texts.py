"""Studies through a published language model on written texts: plans, receipts, what is kept."""

import dataclasses
import json

import numpy as np
import pytest

from ilm_jax.data.catalogue.splits import TRAIN, make_splits
from ilm_jax.data.tokenizers import open_tokenizer_at
from ilm_jax.errors import UserError
from ilm_jax.metrics.values import MetricValues
from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run
from tests.studies.test_published_study import model


def write_world(folder):
    """Forty users, sixty items and a text for each; returns the file of texts."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = [
        f"{user} {' '.join(map(str, rng.choice(60, 12, replace=False)))}" for user in range(40)
    ]
    (folder / "user_sequence.txt").write_text("\n".join(lines) + "\n")
    kinds = ("Drama", "Comedy")
    items = "".join(f"{item}\tFilm {item:02}\t{kinds[item % 2]}\n" for item in range(60))
    (folder / "items.tsv").write_text("id\ttitle\tgenres\n" + items)
    texts = {
        str(item): f"A {kinds[item % 2].lower()} that lasts {item} minutes." for item in range(60)
    }
    file = folder / "texts.json"
    file.write_text(json.dumps(texts))
    return file


@pytest.fixture
def words(tmp_path):
    """Attributes of a study that trains little."""
    return {
        "dataset": "custom",
        "seed": 0,
        "folder": tmp_path / "study",
        "data_dir": str(tmp_path / "data"),
        "cache_dir": str(tmp_path / "cache"),
        "source": str(model(tmp_path / "instruct")),
        "texts_file": str(write_world(tmp_path / "data")),
        "receipts": tmp_path / "receipts",
        "most_steps": 2,
    }


def run_of(command, lm):
    """The recipe of a command, with a shape in the place of what `ilm convert` will write."""
    files = [word.removeprefix("--gin_file=") for word in command if word.startswith("--gin_file=")]
    files = ["models/smollm2_135m.gin" if str(lm) in file else file for file in files]
    bindings = [word.removeprefix("--gin.") for word in command if word.startswith("--gin.")]
    return gin_config.build(Run, files, bindings)


def test_rows_differ_in_the_reader_and_in_what_trains(script, words):
    real = script("real_texts")
    study = real.RealTexts(**words)
    for row, (plain, frozen) in study.rows.items():
        command = study.train_cell(real.Cell(0, row), 3e-3)
        assert (
            command[2] == "--gin_file=lm/long.gin"
            and f"stage2_{plain.replace('-', '_')}" in command[1]
        )
        run = run_of(command, study.lm)
        alone = frozen or row == "mlp"  # an MLP is an adaptor
        assert (run.trainer.trainable == ("^adaptor/",)) == alone
        assert run.dataset.task_feature_lengths == {"inputs": study.inputs, "targets": 32}
        assert run.trainer.total_steps == 2  # of a study that trains little
        whole = dataclasses.replace(study, most_steps=0).train_cell(real.Cell(0, row), 3e-3)
        assert run_of(whole, study.lm).trainer.total_steps == (260 if "longer" in row else 200)
    held_out = make_splits(study.catalogue).item_fold != TRAIN
    assert 0 < study.all_texts == 60 - held_out.sum() < 60
    titled = {**json.loads(study.files[0].read_text())}
    title = study.catalogue.titles[int(np.flatnonzero(held_out)[0])]
    titled[study.catalogue.item_ids[int(np.flatnonzero(~held_out)[0])]] = f"After {title}."
    study.files[0].write_text(json.dumps(titled))
    assert study.all_texts == 60 - held_out.sum() - 1
    assert [name for name, *_ in real.few_texts._before(study, [real.Cell(0, "ilm")])] == [
        "cf",
        "lm",
        "stage1",
    ]


def test_a_longer_row_has_the_rate_of_the_row_that_it_is_more_of(script, words, monkeypatch):
    real = script("real_texts")
    study, asked = real.RealTexts(**words), []

    def chosen(path, rows, grid, search):
        asked.append(list(rows))
        return {"all_ilm-rand": 3e-3, "all_ilm": 1e-2}

    monkeypatch.setattr(real.few_texts.chosen_rates, "chosen", chosen)
    cells = [real.Cell(0, row) for row in ("ilm-rand", "ilm-rand-longer", "ilm")]
    rates = real.few_texts._rates(study, cells, study.grid)
    assert asked == [["all_ilm-rand", "all_ilm"]]
    assert rates == {"all_ilm-rand": 3e-3, "all_ilm-rand-longer": 3e-3, "all_ilm": 1e-2}


def test_a_receipt_is_of_these_texts_vectors_and_weights(script, words, monkeypatch, tmp_path):
    real = script("real_texts")
    study = real.RealTexts(**words)
    cell = real.Cell(0, "ilm")
    made = study.made_from(cell, 3e-3)
    assert made.keys() == {
        *("data", "learning rate", "row", "stage 1", "vectors", "language model", "texts"),
        "measured",
    }
    assert study.name(cell) == "data_instruct_seed0_all_ilm"
    moved = dataclasses.replace(study, folder=tmp_path / "elsewhere")
    assert moved.made_from(cell, 3e-3) == made
    study.train_cell(cell, 3e-3)
    (tmp_path / "other.json").write_text(json.dumps({"1": "Another text."}))
    other = dataclasses.replace(study, texts_file=str(tmp_path / "other.json"))
    monkeypatch.setattr(real, "VECTORS", ("--dim=8",))
    changed = other.made_from(cell, 1e-3)
    assert {name for name in made if made[name] != changed[name]} == {
        *("learning rate", "row", "vectors", "texts")
    }


def test_low_rank_updates_and_all_weights_train_where_their_rows_say_so(script, words):
    retention = script("retention")
    study = retention.Retention(**words, passages=("A passage.",))
    trains = {}
    for row, (_, _, rate) in retention.ROWS.items():
        run = run_of(study.train_cell(retention.Cell(0, row), rate), study.lm)
        trains[row] = run.trainer.trains
        assert run.dataset.settings.text_only == (row == "text-full")
    assert trains["text-full"] == ("^lm/",)
    assert trains["lora"] == (*trains["frozen"], "/lora_[ab]$")
    made = study.made_from(retention.Cell(0, "lora"), 1e-3)
    assert made["passages"] == study.digest and made["length"] == "128"


def test_another_pythons_passages_are_not_mixed_with_those_that_were_read(script, words):
    retention = script("retention")
    study = retention.Retention(**words, passages=("As this Python has it.",))
    first = {"language model": retention.identity(study.source), **study.read}
    found = retention.Receipt(study.name("before"), first, "", 1.0, [], {})
    retention.receipts.write(study.receipts, found)
    other = dataclasses.replace(study, passages=("As another has it.",))
    # Receipts stand, whatever this Python has; rows that are missing cannot be compared with them.
    assert other.made_from(retention.Cell(0, "lora"), 1.0)["passages"] == study.digest
    with pytest.raises(UserError, match="receipts of other passages"):
        retention.measure(other, ["lora"])
    asked = dataclasses.replace(other, asked=True)
    with pytest.raises(UserError, match="before.json was made from another passages"):
        retention.measure(asked, ["lora"])


def test_an_edited_file_of_texts_makes_another_step(script, words, monkeypatch):
    """Else what was trained on the texts before would be taken for what these make."""
    real, steps = script("real_texts"), script("steps")
    study = real.RealTexts(**words)
    monkeypatch.setattr(real.RealTexts, "lm", study.folder / "lm")
    command = ["train", f"--gin.{real.TEXTS_FILE}={words['texts_file']!r}"]
    monkeypatch.setattr(steps, "_recipe", lambda command: "")
    before = steps._made_from(study, command, [])
    assert steps._made_from(study, command, []) == before
    texts = json.loads(study.files[0].read_text())
    study.files[0].write_text(json.dumps({**texts, "1": "Another."}))
    after = steps._made_from(study, command, [])
    assert [name for name in before if before[name] != after[name]] == [words["texts_file"]]


def test_what_is_no_file_of_texts_is_told_before_anything_runs(script, words, tmp_path, capsys):
    real = script("real_texts")
    file = tmp_path / "texts.json"
    file.write_text("[1]")
    flags = ["--data_dir", words["data_dir"], "--lm", words["source"], "--model_dir", str(tmp_path)]
    assert real.main([*flags, "--texts_file", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "texts.json: a list instead of {item id: text}" in line


def test_passages_are_compared_with_the_model_as_it_was(script, tmp_path):
    retention = script("retention")
    tokens = np.full(30, 127.0)

    def receipt(nll):
        values = MetricValues(
            retention.METRIC,
            "passages",
            np.arange(30),
            tokens * (nll + np.arange(30) % 3),
            tokens,
            False,
        )
        texts = MetricValues("nll_content", "items", np.arange(30), tokens, tokens, False)
        metrics = {retention.METRIC: values, "nll_content": texts}
        return retention.Receipt("row", {}, "", 1.0, [], metrics)

    told = retention.report({"before": receipt(1.0), "text-full": receipt(1.5)})
    assert "before     perplexity of passages 7.39" in told
    assert "before below text-full: text-full - before = 0.5000 [" in told
    assert len(retention.passages_of(None)) > 50
    for wrong in ('{"a": 1}', "[1]", "nothing"):
        (tmp_path / "passages.json").write_text(wrong)
        with pytest.raises(UserError, match=r"--passages=.*passages\.json"):
            retention.passages_of(str(tmp_path / "passages.json"))


@pytest.mark.slow
def test_a_frozen_models_passages_are_as_they_were_and_a_trained_ones_are_not(
    script, words, capsys
):
    """From raw data to receipts, through a small model of random weights."""
    retention = script("retention")
    tokenizer = open_tokenizer_at(words["source"])
    passages = tuple(f"{n}, and {n + 1} is one more. " * 60 for n in range(6)) + ("Too short.",)
    assert len(retention.tokenized(tokenizer, passages)) == 6
    study = retention.Retention(**words, passages=passages)
    found = retention.measure(study, list(retention.ROWS))
    own = {name: receipt.metrics[retention.METRIC] for name, receipt in found.items()}
    np.testing.assert_allclose(own["frozen"].values, own["before"].values, rtol=1e-5)
    for row in ("lora", "text-full"):
        assert np.abs(own[row].values - own["before"].values).max() > 1e-3
    capsys.readouterr()
    again = retention.measure(dataclasses.replace(study, folder=study.folder / "new"), ["lora"])
    mean = found["lora"].mean(retention.METRIC)
    assert again["lora"].mean(retention.METRIC) == pytest.approx(mean, rel=1e-6)
    assert "[1/" not in capsys.readouterr().out  # a row with a receipt is not run again
