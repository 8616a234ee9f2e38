"""OpenP5's own model from words to figures: trained, gone on with, evaluated by beams, asked."""

import json

import pytest

from tests.cli import small_world
from tests.cli.trained_run import LENGTHS, refused, rows, run

pytestmark = pytest.mark.slow

WORDS = (LENGTHS, "--gin.t5.T5Config.num_layers=1")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Root of a small world with runs R (of two steps, one after the other) and C."""
    root = tmp_path_factory.mktemp("openp5")
    small_world.save_world(root)
    assert small_world.train(root, "openp5", "r", *WORDS) == 0
    assert small_world.train(root, "openp5", "r", *WORDS, "--gin.TRAIN_STEPS=2") == 0
    clusters = (
        "--gin.MIXTURE_OR_TASK_NAME=openp5_collaborative",
        "--gin.NEW_TOKENS=collaborative",
        "--gin.CLUSTER_TOKENS=8",
        "--gin.CLUSTER_SPLIT=3",
    )
    assert small_world.train(root, "openp5", "c", *WORDS, *clusters) == 0
    return root


def test_all_of_the_model_trains_and_numbers_start_anew(place, capsys):
    info = (place / "r" / "model-info.txt").read_text()
    assert "lm/word_embedding/embedding" in info and "frozen" not in info.split("total")[0]
    said = json.loads((place / "r" / "made_from.json").read_text())
    objective = said["objective"]["LanguageModelling"]
    assert objective["word_rows"] == 512 and len(objective["redraws"]["ids"]) >= 10
    assert (said["optimizer"]["eps_hat"], said["steps"]) == (True, 2)
    clusters = (place / "c" / "model-info.txt").read_text()
    assert "lm/new_tokens/input" in clusters and "lm/new_tokens/output" not in clusters


@pytest.mark.parametrize("name, task", [("r", "random"), ("c", "collaborative")])
def test_items_are_ranked_by_beams_whose_scores_are_means(place, tmp_path, name, task):
    def measured(penalty):
        run(
            "evaluate",
            f"--model_dir={place / name}",
            f"--output={tmp_path / penalty}",
            "--users=6",
            "--beams=5",
            f"--tasks=sequential_{task}",
            f"--length_penalty={penalty}",
        )
        record = json.loads((tmp_path / penalty / "evaluation.json").read_text())
        folder = tmp_path / penalty / ("" if task == "random" else f"sequential_{task}")
        return record, rows(folder / "ranks.jsonl")

    record, ranked = measured("1")
    plain, sums = measured("0")
    (card,) = (c for n, c in record["protocol"].items() if n.endswith("ranking"))
    assert "number of tokens to the power 1" in card["score"]
    assert card["found"]["valid_ids"] == 1
    assert ranked[0]["scores"][0] > sums[0]["scores"][0] / 2
    assert plain["figures"].keys() == record["figures"].keys()


def test_it_answers_and_what_is_not_there_is_refused(place, tmp_path, capsys):
    prompts = [{"prompt": "What does toy {user:u7} choose next?"}, {"prompt": "And then?"}]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)) + "\n")
    run(
        "infer",
        f"--model_dir={place / 'r'}",
        f"--input={tmp_path / 'prompts.jsonl'}",
        "--answer=items",
        f"--output={tmp_path / 'answers.jsonl'}",
    )
    assert len(rows(tmp_path / "answers.jsonl")) == 2
    line = refused(
        capsys,
        "export",
        f"--model_dir={place / 'r'}",
        "--answer=items",
        f"--output={tmp_path / 'e'}",
    )
    assert "word_ids" in line
