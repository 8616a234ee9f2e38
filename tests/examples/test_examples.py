import pathlib
import runpy
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def run_example(monkeypatch, name, *words):
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")


@pytest.mark.slow  # three stages, most of it compiling
def test_own_data_goes_from_raw_files_to_a_recommendation_and_a_description(
    monkeypatch, tmp_path, capsys
):
    run_example(monkeypatch, "own_data.py", tmp_path, "--steps=4")
    lines = capsys.readouterr().out.splitlines()
    assert sum("log p" in line for line in lines) == 3


@pytest.mark.slow
def test_a_language_model_of_ones_own_is_read_by_a_family_of_ones_own(
    monkeypatch, tmp_path, capsys
):
    run_example(monkeypatch, "own_lm.py", tmp_path, "--steps=2")
    assert "nats per token after 2 steps" in capsys.readouterr().out


def test_every_example_is_short_and_says_what_it_adds_and_how_long_it_takes():
    for path in sorted((ROOT / "examples").glob("*.py")):
        text = path.read_text()
        head = text.split('"""')[1]
        assert text.count("\n") <= 80, path
        assert "dds " in head and ("minute" in head or "second" in head), path


@pytest.mark.slow
def test_own_objective_trains_and_goes_on_where_it_was(monkeypatch, tmp_path, capsys):
    run_example(monkeypatch, "own_objective.py", 4, tmp_path / "run")
    run_example(monkeypatch, "own_objective.py", 30, tmp_path / "run")
    first, second = capsys.readouterr().out.splitlines()[::2]
    assert first.startswith("two towers  NDCG@10 0.") and first != second
    assert "next_item" in (tmp_path / "run" / "made_from.json").read_text()
