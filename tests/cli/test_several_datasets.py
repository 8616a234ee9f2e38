"""A run over two datasets is measured and asked in the catalogue of the task that is named."""

import json

import pytest

from ilm_jax.errors import UserError
from ilm_jax.runs.opening import run_of_folder
from ilm_jax.training.writers import read_metrics
from tests.cli import small_world
from tests.cli.small_world import DECODER
from tests.cli.trained_run import refused, rows, run

LENGTHS = '--gin.TASK_FEATURE_LENGTHS={"inputs": 160, "targets": 80}'
WORLDS = {"toy": 60, "toy/world1": 80}  # items
FIRST, SECOND = "openp5_toy_sequential_random", "openp5_toy_world1_sequential_random"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """({name: catalogue}, folder of a run of stage 2 over both datasets)."""
    root = tmp_path_factory.mktemp("several")
    catalogues = {
        name: small_world.save_world(root, items, 40, number, name, f"{number}.st")
        for number, (name, items) in enumerate(WORLDS.items())
    }
    assert small_world.train(root, "stage0", "0", *DECODER) == 0
    words = [
        f"--gin.LM_FROM={root}/0",
        '--gin.dataset_config.DatasetConfig.also={"toy/world1": None}',
        "--gin.MIXTURE_OR_TASK_NAME='openp5_random'",
        "--gin.INFER_EVAL_STEPS=1",
        f"--gin.CF_TABLE={root}/0.st,{root}/1.st",
        LENGTHS,
        *DECODER,
    ]
    assert small_world.train(root, "stage2_mlp", "both", *words) == 0
    return catalogues, root / "both"


def with_targets(catalogue):
    return sum(len(catalogue.sequence(user)) >= 3 for user in range(catalogue.num_users))


@pytest.mark.slow
def test_each_task_is_measured_against_its_own_catalogue(both, tmp_path):
    catalogues, folder = both
    words = ("--beams=3", f"--output={tmp_path}/e", f"--tasks=sequential_random,{SECOND}")
    run("evaluate", f"--model_dir={folder}", *words)
    record = json.loads((tmp_path / "e/evaluation.json").read_text())
    card = record["protocol"]
    one, two = card["ranking"], card[f"{SECOND}/ranking"]
    for part, name, task in ((one, "toy", FIRST), (two, "toy/world1", SECOND)):
        assert part["task"] == task and part["candidates"] == f"full catalogue of {WORLDS[name]}"
        assert part["users"] == str(with_targets(catalogues[name]))
    assert card["split"]["dataset"] == "toy"
    assert card["toy/world1 split"]["items"] != card["split"]["items"]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "name"), [("sequential_random", "toy"), (SECOND, "toy/world1")])
def test_a_task_is_answered_with_items_of_its_own_catalogue(both, tmp_path, task, name):
    catalogues, folder = both
    words = (f"--model_dir={folder}", f"--task={task}", "--answer=items", "--beams=3")
    run("infer", *words, f"--output={tmp_path}/items.jsonl")
    found = [row for row in rows(tmp_path / "items.jsonl") if "items" in row]
    titles = dict(zip(catalogues[name].item_ids, catalogues[name].titles, strict=True))
    assert len(found) == with_targets(catalogues[name])
    listed = [item for row in found for item in row["items"]]
    assert all(titles[item["id"]] == item["title"] for item in listed)
    begins = name.replace("/", "")
    assert all(row["text"].startswith(f"{begins} item_") for row in found)


@pytest.mark.slow
def test_the_evaluation_while_training_measures_the_tasks_of_both(both):
    catalogues, folder = both
    names = {name for row in read_metrics(folder / "metrics.jsonl") for name in row}
    assert {f"infer_eval/{FIRST}/hr@10", f"infer_eval/{SECOND}/hr@10"} <= names
    for name, task in zip(WORLDS, (FIRST, SECOND), strict=True):
        own = catalogues[name]
        lines = rows(folder / f"infer_eval/{task}-000001.jsonl")
        assert len(lines) == with_targets(own)
        for line in lines:
            chosen = own.sequence(own.user_row[line["input"]["user"]])
            assert line["target"] == own.item_ids[chosen[-2]], "the one for validation"
            assert set(line["prediction"]) <= set(own.item_ids)


@pytest.mark.slow
def test_a_task_of_no_dataset_of_the_run_is_refused(both, capsys, tmp_path):
    _, folder = both
    words = ("--task=openp5_toy_world7_sequential_random", f"--output={tmp_path}/x")
    assert "no task 'openp5_toy_world7" in refused(capsys, "infer", f"--model_dir={folder}", *words)
    opened = run_of_folder(folder)
    with pytest.raises(UserError, match="reads no dataset 'toy/world7': it was made of toy, toy/w"):
        opened.splits_of("toy/world7")
