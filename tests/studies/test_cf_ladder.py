"""A run's lists stand in the ladder of their users, and in no other."""

import json
import pathlib
import sys

import numpy as np
import pytest

from ilm_jax.cf import evaluation
from ilm_jax.cf.interactions import train_interactions
from ilm_jax.cf.popularity import popularity_scorer
from ilm_jax.data.catalogue.splits import TEST, SplitConfig, make_splits
from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import results
from ilm_jax.metrics.values import Evaluation, MetricValues
from tests.data.small_catalogue import small_catalogue

STUDIES = pathlib.Path(__file__).parents[2] / "studies"


@pytest.fixture
def ladder(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(STUDIES))
    import cf_ladder

    splits = make_splits(small_catalogue(), SplitConfig(held_out_items=0.0))
    made = cf_ladder.Ladder(splits, train_interactions(splits), tmp_path)
    made.measure("popularity", lambda: popularity_scorer(splits.train_counts()))
    yield made
    for name in ("cf_ladder", "cf_data", "cf_sweep", "ladder_picture", "receipts"):
        sys.modules.pop(name)


def lists_of(ladder, folder, change=None, seen="left out, but for the target"):
    """What `ilm evaluate` writes, in another order of users, of the ladder's own row."""
    catalogue = ladder.splits.catalogue
    _, users, targets = evaluation.held_back(ladder.splits, TEST)
    rows = [
        {
            "user": catalogue.user_ids[user],
            "target": catalogue.item_ids[item],
            "rank": rank if rank <= 10 else None,
        }
        for user, item, rank in zip(users, targets, ladder.ranks["popularity"][0]["0"], strict=True)
    ][::-1]
    if change:
        change(rows)

    def write(at):
        (at / "ranks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return ["ranks.jsonl"]

    metric = MetricValues("ndcg@10", "users", np.arange(2), np.ones(2))
    given = Evaluation([metric], protocol={"ranking": {"seen_items": seen}})
    sizes = {"trainable_params": 5, "frozen_params": 7, "model_dir": "", "step": 1}
    results.write(folder, given, writers=[write], **sizes)
    return folder


def test_a_row_of_lists_equals_the_scores_that_they_are_of(ladder, tmp_path):
    ladder.evaluated("lists", lists_of(ladder, tmp_path))
    scored, listed = (np.array(*ladder.ranks[name][0].values()) for name in ("popularity", "lists"))
    assert (scored <= 10).any() and (scored > 10).any()
    assert np.array_equal(np.minimum(scored, 11), np.minimum(listed, 11))
    left_out, kept_in = "\n".join(ladder.lines()).split("seen items kept in")
    assert "lists" in left_out and "lists" not in kept_in
    ladder.evaluated("lists", lists_of(ladder, tmp_path, seen="kept as candidates"))
    assert "\n".join(ladder.lines()).count("\n  lists     ") == 2


def test_a_row_of_seeds_is_their_mean_user_by_user(ladder, tmp_path):
    users = len(ladder.ranks["popularity"][0]["0"])
    ranks = {"0": [1] * users, "1": [1] + [99] * (users - 1)}
    ladder.ranks["mean"] = [ranks, {}]
    line = next(line for line in ladder.lines() if line.startswith("  mean "))
    half = (1 + 1 / users) / 2
    assert line.count(f"{half:.4f} [") == 2  # HR@10 and NDCG@10
    assert line.endswith(f"(seeds: 1.0000, {1 / users:.4f})")
    assert ladder.has("mean", 1) and not ladder.has("mean", 2)


def test_the_picture_has_the_rows_of_the_half_without_seen_items(ladder, tmp_path, monkeypatch):
    ladder.evaluated("lists", lists_of(ladder, tmp_path, seen="kept as candidates"))
    ladder.picture({}, (), "small")
    assert (tmp_path / "ladder.png").read_bytes().startswith(b"\x89PNG")
    ladder.evaluated("run", lists_of(ladder, tmp_path))
    drawn = {}
    monkeypatch.setattr("ladder_picture.draw", lambda rows, title, output: drawn.update(rows))
    ladder.picture({"popularity": "the most popular"}, ("run", "lists"), "small")
    assert {name: ours for name, (_, ours) in drawn.items()} == {
        "the most popular": False,
        "run": True,
    }


def test_a_receipt_of_each_row_holds_its_users(ladder, tmp_path):
    import receipts

    ladder.evaluated("head", lists_of(ladder, tmp_path))
    ladder.keep({"head": "A head, 3 steps"}, ("head",), "movielens/1m", tmp_path / "kept")
    assert sorted(path.stem for path in (tmp_path / "kept").iterdir()) == [
        "movielens-1m-a-head-3-steps",
        "movielens-1m-popularity",
    ]
    found = receipts.read(tmp_path / "kept", "movielens-1m-a-head-3-steps")
    assert (found.made_from["row"], found.made_from["kind"]) == ("A head, 3 steps", "lists")
    with pytest.raises(UserError, match="two rows would be called small-popularity"):
        ladder.keep({"head": "Popularity!"}, (), "small", tmp_path / "other")
    (_, gain), _ = next(row[1:] for row in ladder.rows(0) if row[0] == "head")
    assert found.metrics["ndcg@10"].values == pytest.approx(gain, abs=1e-6)


@pytest.mark.parametrize(
    "change", [lambda rows: rows.pop(), lambda rows: rows[0].update(target="no item")]
)
def test_lists_of_others_are_refused(ladder, tmp_path, change):
    with pytest.raises(UserError, match="lists of other users or test items"):
        ladder.evaluated("lists", lists_of(ladder, tmp_path, change))
    with pytest.raises(UserError, match="holds no evaluation.json"):
        ladder.evaluated("lists", tmp_path / "none")
