"""Sampled candidates: fixed in a file, and their corrected metrics come near the catalogue's."""

import numpy as np
import pytest

from ilm_jax.cf import item_knn
from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.sampled_metrics import Candidates, corrected_metric, mixing_distribution, rank_grid
from ilm_jax.errors import UserError
from ilm_jax.evaluation.metrics import ndcg

ITEMS = 2000


def ndcg_at(k: int):
    return lambda ranks: ndcg(ranks, k)


@pytest.mark.parametrize("drawn", [100, 500])
def test_the_estimate_is_near_the_truth_where_the_raw_figure_is_far(drawn):
    draw = np.random.default_rng(0)
    share = draw.beta(0.35, 3.0, 5000)
    ranks = 1 + np.floor(share * (ITEMS - 1))
    violators = draw.binomial(drawn, (ranks - 1) / (ITEMS - 1))
    for k in (50, 100):
        truth = ndcg(ranks, k).mean()
        found = corrected_metric(ndcg_at(k), violators, drawn, ITEMS - 1, samples=60)
        assert found.raw.mean > 1.3 * truth
        assert abs(found.estimate - truth) < (0.15 if drawn == 100 else 0.06) * truth
        assert abs(found.estimate - truth) < 0.25 * abs(found.raw.mean - truth)
        assert found.low < found.estimate < found.high
    assert f"of {drawn} candidates" in str(found) and found.resolution == (ITEMS - 1) / drawn


def test_the_mixing_distribution_explains_the_counts():
    draw = np.random.default_rng(1)
    grid = rank_grid(ITEMS - 1)
    chances = (grid - 1) / (ITEMS - 1)
    violators = draw.binomial(50, draw.choice([0.01, 0.4], 20_000))
    histogram = np.bincount(violators, minlength=51).astype(float)[None]
    found = mixing_distribution(histogram, 50, chances, steps=2000)[0]
    assert found.sum() == pytest.approx(1) and (found >= 0).all()
    assert found[chances < 0.1].sum() == pytest.approx(0.5, abs=0.02)
    assert found @ chances == pytest.approx(0.205, abs=0.005)


def test_candidates_are_uniform_over_what_a_user_never_met(tmp_path):
    seen = Interactions.from_pairs(np.array([0, 0, 0, 1]), np.array([0, 3, 9, 5]), 3, 10)
    users, targets = np.array([0, 1, 2]), np.array([4, 0, 2])
    drawn = Candidates.draw(seen, users, targets, 6000, seed=0, fingerprint="x")
    assert drawn.population.tolist() == [6, 8, 9]
    for row in range(3):
        allowed = sorted(set(range(10)) - {int(targets[row])} - set(seen.of(row).tolist()))
        counts = np.bincount(drawn.negatives[row], minlength=10)
        assert np.flatnonzero(counts).tolist() == allowed
        expected = 6000 / len(allowed)
        assert np.abs(counts[allowed] - expected).max() < 5 * np.sqrt(expected)
    scores = np.tile(np.arange(10, dtype=np.float32), (3, 1))
    found = drawn.violators(lambda rows: scores[rows], block=2)
    assert found.tolist() == (drawn.negatives >= targets[:, None]).sum(1).tolist()
    drawn.save(tmp_path / "c")
    again = Candidates.load(tmp_path / "c", "x")
    np.testing.assert_array_equal(again.negatives, drawn.negatives)
    with pytest.raises(UserError, match="another split"):
        Candidates.load(tmp_path / "c", "y")
    with pytest.raises(UserError, match="no file"):
        Candidates.load(tmp_path / "absent", "y")
    everything = Interactions.from_pairs(np.zeros(10, int), np.arange(10), 1, 10)
    with pytest.raises(ValueError, match="met every item"):
        Candidates.draw(everything, np.array([0]), np.array([1]), 3, 0, "x")


def test_a_score_that_is_no_number_has_no_rank():
    seen = Interactions.from_pairs(np.array([0, 1, 2]), np.array([0, 1, 2]), 3, 10)
    drawn = Candidates.draw(seen, np.arange(3), np.array([4, 5, 6]), 8, seed=0, fingerprint="x")
    scores = np.zeros((3, 10), np.float32)
    scores[1, 5] = np.nan
    with pytest.raises(ValueError, match="NaN among the scores of user row 1"):
        drawn.violators(lambda rows: scores[rows], block=2)


def test_item_knn_equals_the_dense_definition():
    draw = np.random.default_rng(0)
    dense = draw.random((30, 17)) < 0.3
    dense[:, 16] = False
    users, items = np.nonzero(dense)
    train = Interactions.from_pairs(users, items, 30, 17)
    config = item_knn.ItemKNNConfig(neighbours=4, shrinkage=2.0, rows=5)
    found = item_knn.fit(train, config)(np.arange(30))
    x = dense.astype(float)
    size = np.sqrt(x.sum(0))
    like = x.T @ x / (size[:, None] * size[None] + 2.0)
    np.fill_diagonal(like, 0)
    for row in like:
        row[np.argsort(-row)[4:]] = 0
    # Ties at the fourth neighbour may fall either way, so compare totals too.
    assert np.mean(np.isclose(found, x @ like, atol=1e-5)) > 0.9
    np.testing.assert_allclose(found.sum(1), (x @ like).sum(1), rtol=1e-4)
