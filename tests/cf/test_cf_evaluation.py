"""Full-catalogue ranks: training items masked, ties against the target, blocks without effect."""

import numpy as np
import pytest

from ilm_jax.cf import evaluation
from ilm_jax.cf.ials import IALSConfig
from ilm_jax.cf.popularity import popularity_scorer
from ilm_jax.cli import fit_cf
from ilm_jax.data.catalogue.splits import TEST, TRAIN, VALID
from ilm_jax.metrics.ranking import rank_of_target
from ilm_jax.runs.fitting import fit_method


@pytest.mark.parametrize("fold", [VALID, TEST])
def test_ranks_equal_the_readable_definition(fold, monkeypatch, two_tastes):
    splits = two_tastes()
    items = splits.catalogue.num_items
    # Few distinct scores, so that ties are everywhere.
    scores = np.random.default_rng(0).integers(0, 5, (splits.catalogue.num_users, items))
    scores = scores.astype(np.float32)
    monkeypatch.setattr(evaluation, "_SCORES", 7 * items)  # blocks of 7, the last one ragged
    result = evaluation.evaluate(lambda users: scores[users], splits, fold)
    of = splits.valid_target if fold == VALID else splits.test_target
    expected = [
        rank_of_target(scores[user], pair[1], pair[0])
        for user in range(splits.catalogue.num_users)
        if (pair := of(user))
    ]
    assert result.ranks.tolist() == expected
    among_all = [
        rank_of_target(scores[user], pair[1], [])
        for user in range(splits.catalogue.num_users)
        if (pair := of(user))
    ]
    whole = evaluation.evaluate(lambda users: scores[users], splits, fold, exclude_seen=False)
    assert whole.ranks.tolist() == among_all != expected
    assert len(result.users) == splits.catalogue.num_users - 1


def test_history_is_masked_and_ties_count_against_the_target():
    scores = np.array([[9.0, 1.0, 1.0, 0.0]], np.float32)
    ranks = evaluation.target_ranks(scores, np.array([1]), np.array([[0, 4]]))
    assert ranks.tolist() == [2]
    # A repeated target stays a candidate.
    assert evaluation.target_ranks(scores, np.array([0]), np.array([[0, 4]])).tolist() == [1]


def test_nan_scores_are_refused(two_tastes):
    splits = two_tastes()
    shape = (splits.catalogue.num_users, splits.catalogue.num_items)
    scores = np.full(shape, np.nan, np.float32)
    with pytest.raises(ValueError, match="NaN"):
        evaluation.evaluate(lambda users: scores[users], splits)
    with pytest.raises(ValueError, match="validation or the test"):
        evaluation.evaluate(lambda users: scores[users], splits, TRAIN)


def test_cf_beats_popularity_where_users_have_tastes(two_tastes):
    splits = two_tastes(users=200, items=60)
    config = IALSConfig(dim=4, alpha=0.1, regularisation=0.01, epochs=8)
    cf, popular = fit_cf.measure(splits, fit_method(splits, config))
    assert cf.recall(20).mean() > popular.recall(20).mean()
    table = fit_cf.results_table(cf, popular)
    assert "popularity below CF" in table and max(map(len, table.split("\n"))) <= 120


def test_popularity_scores_every_user_alike():
    score = popularity_scorer(np.array([3, 0, 5]))
    assert score(np.array([4, 1])).tolist() == [[3.0, 0.0, 5.0]] * 2
