"""A run with an item head beside the text: trained, measured both ways, and asked."""

import dataclasses
import json

import numpy as np
import pytest

from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.settings_json import settings_from
from ilm_jax.data.examples.task_keys import tokenizer_path
from ilm_jax.data.sources import toy
from ilm_jax.data.sources.prepare import catalogue_dir
from tests.cli import small_world
from tests.cli.small_world import DECODER, SMALL
from tests.cli.trained_run import LENGTHS, refused, rows, run, trained_run


@pytest.fixture(scope="module")
def head_run(tmp_path_factory):
    """(catalogue, folder) of a run of one step with both heads."""
    root, catalogue, _ = trained_run()
    folder = tmp_path_factory.mktemp("items") / "run"
    run(
        "train",
        "--gin_file=tiny/stage2_mlp.gin",
        "--gin_file=runs/stage2_items_and_texts.gin",
        f"--gin.CACHE_DIR={root / 'cache'}",
        f"--gin.MODEL_DIR={folder}",
        f"--gin.LM_FROM={root / '0'}",
        f"--gin.CF_TABLE={root / 'cf.safetensors'}",
        *SMALL,
        *DECODER,
        LENGTHS,
        "--gin.PACK=0",
        "--gin.MENTION_HISTORY=id+slot",
        "--gin.MENTION_USER=id",
    )
    return catalogue, folder


@pytest.mark.slow
def test_a_run_with_both_heads_is_measured_both_ways(head_run, tmp_path):
    catalogue, folder = head_run
    told = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert any({"item_loss", "nll_content", "loss"} <= set(row) for row in told)
    run(
        "evaluate",
        f"--model_dir={folder}",
        f"--output={tmp_path}",
        "--users=4",
        "--beams=10",
        "--nogeneration",
        "--tasks=sequential_random",
        "--exclude_seen",
    )
    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert {"ndcg@10", "id_strings/ndcg@10", "coverage@10", "id_strings/coverage@10"} <= set(
        record["figures"]
    )
    cards = record["protocol"]
    assert cards["ranking"]["score"].startswith("the item head's")
    assert cards["ranking"]["found"] == {"targets_without_vector": 0}
    assert cards["id_strings/ranking"]["score"].startswith("sum of log-probabilities")
    assert cards["ranking"]["ids"] == cards["id_strings/ranking"]["ids"]
    by_head, by_names = rows(tmp_path / "ranks.jsonl"), rows(tmp_path / "id_strings/ranks.jsonl")
    assert [row["user"] for row in by_head] == [row["user"] for row in by_names]
    assert all(len(set(row["items"])) == 10 for row in by_head)
    for row in by_head:
        items = catalogue.sequence(catalogue.user_ids.index(row["user"])).tolist()
        had = {catalogue.item_ids[item] for item in items[:-1]} - {row["target"]}
        assert not had & set(row["items"])


@pytest.mark.slow
def test_a_recommendation_is_answered_by_the_head_or_by_id_strings(head_run, tmp_path, capsys):
    catalogue, folder = head_run
    asked = tmp_path / "in.jsonl"
    asked.write_text(json.dumps({"prompt": f"{{item:{catalogue.item_ids[3]}}}, what next?"}) + "\n")
    found = {}
    for answer in ("items", "id_strings"):
        out = tmp_path / f"{answer}.jsonl"
        words = (f"--input={asked}", f"--output={out}", f"--answer={answer}", "--beams=5")
        run("infer", f"--model_dir={folder}", *words)
        (found[answer],) = rows(out)
        assert len({item["id"] for item in found[answer]["items"]}) == 5
    assert found["items"]["items"] != found["id_strings"]["items"]
    wrong = ("--answer=items", "--length_penalty=1", f"--input={asked}", f"--output={tmp_path}/x")
    assert "is of strings" in refused(capsys, "infer", f"--model_dir={folder}", *wrong)


def grown_world(root, folder, catalogue):
    """Two items behind the catalogue's, and the table with their vectors; returns the tokenizer."""
    more = {
        "item_ids": ["late1", "late2"],
        "titles": ["Late", "Later"],
        "texts": ["Tea.", "Ink."],
    }
    more |= {"content": [[], []], "categories": [[], []]}
    grown = dataclasses.replace(
        catalogue, **{name: [*getattr(catalogue, name), *new] for name, new in more.items()}
    )
    grown.save(catalogue_dir("toy", folder / "cache"), {"builder": toy.VERSION})
    old = EmbeddingTable.load(root / "cf.safetensors")
    EmbeddingTable(
        **{
            **{field.name: getattr(old, field.name) for field in dataclasses.fields(old)},
            "item": np.concatenate([old.item, 2 * old.item[:2]]),
            "item_cold": np.concatenate([old.item_cold, [False, False]]),
            "item_ids": list(grown.item_ids),
            "split_fingerprint": make_splits(grown).fingerprint,
        }
    ).save(folder / "grown.safetensors")
    own = settings_from(small_world.SETTINGS)
    return tokenizer_path("toy", own, catalogue.fingerprint, root / "cache")


@pytest.mark.slow
def test_items_that_join_are_ranked_without_training(head_run, tmp_path, capsys):
    catalogue, folder = head_run
    root = trained_run()[0]
    tokenizer = grown_world(root, tmp_path, catalogue)
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "{item:late1}, what next?"}) + "\n")
    words = [
        *("infer", f"--model_dir={folder}", f"--input={tmp_path / 'in.jsonl'}", "--answer=items"),
        "--beams=82",
        *(f"--gin.CACHE_DIR={str(tmp_path / 'cache')!r}", f"--gin.TOKENIZER={str(tokenizer)!r}"),
    ]
    table = tmp_path / "grown.safetensors"
    run(*words, f"--output={tmp_path / 'out.jsonl'}", f"--gin.CF_TABLE={str(table)!r}")
    assert "2 of toy/item" in capsys.readouterr().err
    (found,) = rows(tmp_path / "out.jsonl")
    names = [item["id"] for item in found["items"]]
    assert {"late1", "late2"} <= set(names) and len(names) == len(set(names))
    other = EmbeddingTable.load(table)
    other.item[0] *= 1.01
    other.save(tmp_path / "other.safetensors")
    wrong = f"--gin.CF_TABLE={str(tmp_path / 'other.safetensors')!r}"
    said = refused(capsys, *words, f"--output={tmp_path / 'x.jsonl'}", wrong)
    assert "was trained with something else" in said and "CF_TABLE" in said


@pytest.mark.slow
def test_a_head_without_a_table_is_refused(tmp_path, capsys):
    root, _, _ = trained_run()
    said = refused(
        capsys,
        "train",
        "--gin_file=tiny/stage2_text_full.gin",
        "--gin_file=runs/stage2_items.gin",
        f"--gin.CACHE_DIR={root / 'cache'}",
        f"--gin.MODEL_DIR={tmp_path / 'run'}",
        f"--gin.LM_FROM={root / '0'}",
        *SMALL,
        *DECODER,
        LENGTHS,
        "--gin.MENTION_HISTORY=id+slot",
        "--gin.MENTION_USER=id",
    )
    assert "this model reads item vectors: give the file that `ilm fit_cf` wrote" in said
