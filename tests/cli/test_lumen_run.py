"""A run of LUMEN's rows: trained, measured with and without critiques, asked, and talked to."""

import json

import pytest

from tests.cli.small_world import DECODER, SMALL
from tests.cli.trained_run import refused, rows, run, trained_run


@pytest.fixture(scope="module")
def lumen(tmp_path_factory):
    """(catalogue, folder) of a run of one step."""
    root, catalogue, _ = trained_run()
    folder = tmp_path_factory.mktemp("lumen") / "run"
    texts = folder.with_name("texts.jsonl")
    texts.write_text("".join(written(catalogue)))
    run(
        "train",
        "--gin_file=tiny/stage2_mlp.gin",
        "--gin_file=tiny/lumen.gin",
        f"--gin.CACHE_DIR={root / 'cache'}",
        f"--gin.MODEL_DIR={folder}",
        f"--gin.LM_FROM={root / '0'}",
        f"--gin.CF_TABLE={root / 'cf.safetensors'}",
        *SMALL,
        *DECODER,
        '--gin.TASK_FEATURE_LENGTHS={"inputs": 400, "targets": 200}',
        "--gin.MENTION_HISTORY=id+slot",
        "--gin.MENTION_USER=id",
        "--gin.task_settings.TaskSettings.history=5",
        f"--gin.regen.RegenSettings.texts_file={str(texts)!r}",
    )
    return catalogue, folder


def written(catalogue):
    """A critique and a reason for every purchase but users' first."""
    for user, raw in enumerate(catalogue.user_ids):
        for item in catalogue.sequence(user)[1:].tolist():
            start, end = catalogue.content[item][0]
            word = catalogue.texts[item][start:end]
            about = {"user_id": raw, "item_ids": [catalogue.item_ids[item]], "source": "a-model"}
            yield json.dumps({"task": "critique", "target": f"More {word}.", **about}) + "\n"
            yield json.dumps({"task": "purchase_reason", "target": f"For {word}.", **about}) + "\n"


@pytest.mark.slow
def test_it_is_trained_and_measured_with_and_without_critiques(lumen, tmp_path):
    _, folder = lumen
    told = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert any({"item_loss", "nll_content", "loss"} <= set(row) for row in told)
    run(
        "evaluate",
        f"--model_dir={folder}",
        f"--output={tmp_path}",
        "--users=6",
        "--texts=6",
        "--beams=10",
        "--tasks=purchase_critique,purchase_uncritiqued",
        "--exclude_seen",
    )
    record = json.loads((tmp_path / "evaluation.json").read_text())
    for task in ("purchase_critique", "purchase_uncritiqued"):
        for metric in ("ndcg@10", "nll", "true_words", "title/true_words", "true_item/rougeL"):
            assert f"{task}/{metric}" in record["figures"], metric
        assert not any("id_strings" in name for name in record["figures"])
    cards = record["protocol"]
    assert cards["purchase_critique/ranking"]["score"].startswith("the item head's")


@pytest.mark.slow
def test_an_item_and_its_text_are_the_answer(lumen, tmp_path, capsys):
    catalogue, folder = lumen
    asked = tmp_path / "in.jsonl"
    asked.write_text(json.dumps({"prompt": f"{{item:{catalogue.item_ids[3]}}}, what next?"}) + "\n")
    words = ("infer", f"--model_dir={folder}", f"--input={asked}", "--answer=item_and_text")
    run(*words, f"--output={tmp_path}/out", "--beams=5", "--max_new_tokens=4")
    (found,) = rows(tmp_path / "out")
    assert len({item["id"] for item in found["items"]}) == 5 and len(found["tokens"]) <= 4
    many = catalogue.num_items + 1
    said = refused(capsys, *words, f"--output={tmp_path}/x", f"--beams={many}")
    assert f"--beams={many}: give a number from 1 to {catalogue.num_items}" in said
    _, _, plain = trained_run()
    said = refused(capsys, *words[:1], f"--model_dir={plain}", *words[2:], f"--output={tmp_path}/y")
    assert "no item head to rank by" in said


@pytest.mark.slow
def test_a_run_is_talked_to_by_history_and_critiques(lumen):
    from ilm_jax import open_run
    from ilm_jax.errors import UserError

    catalogue, folder = lumen
    opened = open_run(folder)
    first = opened.recommend(history=catalogue.item_ids[3:5], critique="darker", count=3)
    assert len({item.id for item in first} - set(catalogue.item_ids[3:5])) == 3
    with pytest.raises(UserError, match="no item before 'darker'"):
        opened.recommend(critique="darker")
