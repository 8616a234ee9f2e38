"""Semantic ids from vectors to figures: codes, rows of new words that train alone, evaluation."""

import json

import pytest

from ilm_jax.data.examples.item_codes import ItemCodes
from tests.cli import small_world
from tests.cli.small_world import DECODER
from tests.cli.trained_run import LENGTHS, rows, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """(root of a small world, folder with codes and a run of one step)."""
    root = tmp_path_factory.mktemp("world")
    small_world.save_world(root)
    assert small_world.train(root, "stage0", "0", *DECODER) == 0
    folder = tmp_path_factory.mktemp("semantic")
    run(
        "semantic_ids",
        f"--cache_dir={root / 'cache'}",
        f"--tables={root / 'cf.safetensors'}",
        "--levels=4,4",
        f"--output={folder / 'codes'}",
    )
    assert small_world.train(root, "stage2_semantic", folder / "run", *words(root, folder)) == 0
    return root, folder


def words(root, folder):
    return (*DECODER, f"--gin.LM_FROM={root}/0", LENGTHS, f"--gin.ITEM_CODES={folder / 'codes'}")


def test_new_words_train_and_ids_are_ranked_as_others_are(place, tmp_path):
    root, folder = place
    info = (folder / "run" / "model-info.txt").read_text()
    trains = [line.split()[0] for line in info.splitlines() if line.endswith("trains")]
    assert trains == ["lm/new_tokens/input", "lm/new_tokens/output"]
    made_from = json.loads((folder / "run" / "made_from.json").read_text())
    codes = ItemCodes.load(folder / "codes")
    assert made_from["new_tokens"]["count"] == sum(codes.sizes)
    stage0 = json.loads((root / "0" / "made_from.json").read_text())
    assert made_from["tokenizer"] == stage0["tokenizer"]
    run(
        "evaluate",
        f"--model_dir={folder / 'run'}",
        f"--output={tmp_path}",
        "--users=6",
        "--beams=5",
        "--tasks=sequential_semantic",
    )
    record = json.loads((tmp_path / "evaluation.json").read_text())
    found = record["protocol"]["sequential_semantic/ranking"]["found"]
    assert found["valid_ids"] == 1 and found["colliding_ids"] == 0
    assert 0 <= record["figures"]["sequential_semantic/ndcg@5"] <= 1
    for row in rows(tmp_path / "sequential_semantic" / "ranks.jsonl"):
        assert len(set(row["items"])) == 5
