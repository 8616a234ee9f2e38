"""Recommendation knowledge from a mixture to figures, through both kinds of language model."""

import json

import pytest

from ilm_jax.data.examples.candidates import FORMAT
from tests.cli import small_world
from tests.cli.small_world import DECODER
from tests.cli.trained_run import refused, rows, run
from tests.some import some

pytestmark = pytest.mark.slow

LENGTHS = '--gin.TASK_FEATURE_LENGTHS={"inputs": 200, "targets": 40}'
SMALL = {
    "knowledge": ("--gin.t5.T5Config.num_layers=1", "--gin.t5.T5Config.embed_dim=16"),
    "knowledge_decoder": DECODER,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a small world, lists for it, and the same of another seed."""
    root = tmp_path_factory.mktemp("world")
    small_world.save_world(root)
    for seed in (0, 1):
        run(
            "candidates",
            f"--cache_dir={root / 'cache'}",
            "--candidates=6",
            f"--seed={seed}",
            f"--output={root / f'lists{seed}.jsonl'}",
        )
    return root


@pytest.fixture(scope="module", params=SMALL)
def trained(request, place):
    """(the folder, a run of one step without auxiliary tasks, its name)."""
    name = request.param
    words = (*SMALL[name], LENGTHS, "--gin.AUXILIARY=0")
    words += (f"--gin.CANDIDATES_FILE={place / 'lists0.jsonl'}",)
    assert small_world.train(place, name, name, *words) == 0
    return place, place / name


def evaluated(model_dir, output, *words):
    tasks = "--tasks=retrieval,ranking,rating"
    run("evaluate", f"--model_dir={model_dir}", f"--output={output}", "--users=6", tasks, *words)
    return json.loads((output / "evaluation.json").read_text())


def test_the_three_tasks_are_measured_and_only_they_were_trained(trained, tmp_path, capsys):
    place, model_dir = trained
    made_from = json.loads((model_dir / "made_from.json").read_text())
    tasks = {name.rpartition("_")[2] for name in made_from["train"]["prompt"]["tasks"]}
    assert tasks == {"retrieval", "ranking", "rating"}
    record = evaluated(model_dir, tmp_path / "a", "--beams=6")
    for name in ("retrieval/ndcg@5", "ranking/hr@1", "rating/rmse", "rating/mae"):
        low, high = (record["intervals"][name][end] for end in ("low", "high"))
        assert low <= record["figures"][name] <= high
    cards = record["protocol"]
    assert cards["retrieval/ranking"]["candidates"] == "full catalogue of 80"
    assert cards["ranking/ranking"]["candidates"].startswith("6 that the prompt names")
    head, *lists = rows(place / "lists0.jsonl")
    assert head["format"] == FORMAT
    known = {line["user"]: set(line["candidates"]) for line in lists if line["split"] == "test"}
    for row in some(rows(tmp_path / "a" / "ranking" / "ranks.jsonl")):
        assert set(row["items"]) == known[row["user"]]
    # Other lists are other figures, which nothing compares with these.
    other = f"--gin.CANDIDATES_FILE={place / 'lists1.jsonl'}"
    evaluated(model_dir, tmp_path / "b", "--beams=6", other)
    line = refused(capsys, "compare", tmp_path / "a", tmp_path / "b")
    assert "protocols differ" in line and "ranking/ranking.candidates" in line


def test_lists_of_another_split_are_refused_before_a_step(place, capfd):
    words = (*SMALL["knowledge"], LENGTHS, "--gin.HELD_OUT_ITEMS=0.2")
    words += (f"--gin.CANDIDATES_FILE={place / 'lists0.jsonl'}",)
    assert small_world.train(place, "knowledge", "refused", *words) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert "made on another split" in line and "ilm candidates" in line
    assert not (place / "refused" / "checkpoints").exists()
