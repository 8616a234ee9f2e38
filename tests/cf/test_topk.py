"""Streaming lists equal a dense sort; blocks have no effect; training items never appear."""

import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.topk import best_items, list_metrics, top_k

USERS, ITEMS, K = 23, 70, 7


@pytest.fixture
def seen():
    draw = np.random.default_rng(1)
    lengths = draw.integers(0, 40, USERS)
    lengths[3] = ITEMS - 2  # only two candidates are left
    users = np.repeat(np.arange(USERS), lengths)
    items = np.concatenate([draw.choice(ITEMS, n, replace=False) for n in lengths])
    return Interactions.from_pairs(users, items, USERS, ITEMS)


def vectors(step: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    user, item = draw.normal(size=(USERS, 4)), draw.normal(size=(ITEMS, 4))
    if step:  # coarse scores: ties everywhere
        user, item = np.round(user / step) * step, np.round(item / step) * step
    return user.astype(np.float32), item.astype(np.float32)


@pytest.mark.parametrize(
    ("step", "user_block", "item_block"), [(0, 64, 128), (0, 5, 16), (1, 64, 128), (1, 7, 11)]
)
def test_lists_equal_a_dense_sort(seen, step, user_block, item_block):
    user, item = vectors(step)
    found = best_items(user, item, seen, K, user_block=user_block, item_block=item_block)
    for row in range(USERS):
        scores = (user[row] @ item.T).astype(np.float64)
        scores[seen.of(row)] = -np.inf
        expected = np.argsort(-scores, kind="stable")[:K]
        expected = np.where(np.isfinite(scores[expected]), expected, -1)
        assert found[row].tolist() == expected.tolist()
    assert (found[3] == -1).sum() == K - 2


@pytest.mark.parametrize("columns", [300, 1000, 4099])
def test_top_k_by_groups_is_exact_with_ties(columns):
    scores = np.random.default_rng(0).integers(0, 50, (9, columns)).astype(np.float32)
    values, place = top_k(jnp.asarray(scores), 5, group=4)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(place, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, expected, axis=1))


def test_metrics_of_several_targets_equal_their_definitions():
    held = Interactions.from_pairs(np.array([0, 0, 0, 1, 2]), np.array([4, 5, 6, 1, 9]), 4, 10)
    lists = np.array([[5, 0, 4], [0, 2, 1], [1, 2, 3], [1, 2, 3]], np.int32)
    users, recall, ndcg = list_metrics(lists, held, 3)
    assert users.tolist() == [0, 1, 2]
    assert recall.tolist() == [2 / 3, 1.0, 0.0]
    ideal = 1 + 1 / np.log2(3) + 0.5
    np.testing.assert_allclose(ndcg, [(1 + 0.5) / ideal, 0.5, 0.0])
    # A list cut to one: one hit is all that can be had.
    assert list_metrics(lists, held, 1)[1].tolist() == [1.0, 0.0, 0.0]


def test_sizes_that_do_not_fit_and_bad_vectors_are_refused(seen):
    user, item = vectors()
    with pytest.raises(ValueError, match="one split"):
        best_items(user[:-1], item, seen, K)
    with pytest.raises(ValueError, match="finite"):
        best_items(np.full_like(user, np.nan), item, seen, K)
    with pytest.raises(ValueError, match="shorter|lists"):
        list_metrics(np.zeros((USERS, 3), np.int32), seen, 5)
    with pytest.raises(ValueError, match="k=0 of"):
        best_items(user, item, seen, 0)


def test_no_users_get_no_lists():
    nobody = Interactions(np.zeros(1, np.int64), np.zeros(0, np.int32), ITEMS)
    user, item = vectors()
    assert best_items(user[:0], item, nobody, K).shape == (0, K)
