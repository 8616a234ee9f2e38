"""Ranking losses equal plain NumPy, and their gradients the finite differences of that."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.objectives import ranking
from tests.marks import slow_but_for

BATCH, DRAWN, NEGATIVES = 5, 8, 40
LOG_EXPECTED = np.log(np.linspace(0.05, 2.0, DRAWN))


def scores(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    valid = draw.random((BATCH, DRAWN)) < 0.8
    valid[:, :2] = True
    valid[4] = False  # a row without any negative
    return draw.normal(size=BATCH), 1.5 * draw.normal(size=(BATCH, DRAWN)), valid


def estimated(rank: str, count: float, drawn: float, negatives: float) -> float:
    return 1 + count if rank == "sampled" else 1 + negatives * count / max(drawn, 1)


def discount(rank: float, cutoff: float | None) -> float:
    return 1 / np.log2(1 + rank) if cutoff is None or rank <= cutoff else 0.0


def row_bpr(s, t, weights=None):
    return np.mean(np.log1p(np.exp(t - s))), None


def row_warp(s, t, rank, weight=None):
    """(loss, what its gradient holds constant)."""
    if weight is None:
        above = t[t > s - 1]
        k = estimated(rank, len(above), len(t), NEGATIVES) - 1
        # Harmonic numbers between whole k by their integral.
        x = (np.arange(200_000) + 0.5) / 200_000
        weight = (np.mean((1 - x**k) / (1 - x)), t > s - 1)
    phi, violates = weight
    return phi * np.mean(1 - s + t[violates]) if violates.any() else 0.0, weight


def row_lambdarank(s, t, rank, cutoff, weight=None):
    if weight is None:
        own = discount(estimated(rank, np.sum(t >= s), len(t), NEGATIVES), cutoff)
        weight = np.zeros(len(t))
        for j, score in enumerate(t):
            above = np.sum(t > score)
            if rank != "sampled":
                above = above * (NEGATIVES - 1) / max(len(t) - 1, 1)
            weight[j] = abs(own - discount(1 + above + (s > score), cutoff))
    return np.mean(weight * np.log1p(np.exp(t - s))), weight


CASES = {
    "bpr": (lambda x: ranking.bpr(x), lambda s, t, w: row_bpr(s, t, w)),
    "warp": (
        lambda x: ranking.warp(x, "corrected"),
        lambda s, t, w: row_warp(s, t, "corrected", w),
    ),
    "warp uncorrected": (
        lambda x: ranking.warp(x, "sampled"),
        lambda s, t, w: row_warp(s, t, "sampled", w),
    ),
    "lambdarank": (
        lambda x: ranking.lambdarank(x, "corrected", None),
        lambda s, t, w: row_lambdarank(s, t, "corrected", None, w),
    ),
    "lambdarank at 5": (
        lambda x: ranking.lambdarank(x, "corrected", 5),
        lambda s, t, w: row_lambdarank(s, t, "corrected", 5, w),
    ),
    "lambdarank uncorrected at 3": (
        lambda x: ranking.lambdarank(x, "sampled", 3),
        lambda s, t, w: row_lambdarank(s, t, "sampled", 3, w),
    ),
}


def scored(s, t, valid) -> ranking.Scored:
    as_jax = (jnp.asarray(x, jnp.float32) for x in (s, t))
    return ranking.Scored(*as_jax, jnp.asarray(valid), float(NEGATIVES))


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_and_gradient_equal_the_definition(name, seed):
    loss, row = CASES[name]
    s, t, valid = scores(seed)
    expected = [row(s[i], t[i][valid[i]], None) for i in range(4)]
    found = np.asarray(loss(scored(s, t, valid)))
    np.testing.assert_allclose(found[:4], [value for value, _ in expected], rtol=2e-4, atol=1e-6)
    assert found[4] == 0.0

    gradient = jax.grad(lambda s, t: loss(scored(s, t, valid)).sum(), (0, 1))(
        jnp.asarray(s, jnp.float32), jnp.asarray(t, jnp.float32)
    )
    step = 1e-5
    for i in range(4):
        constant, mine = expected[i][1], np.flatnonzero(valid[i])

        def value(ds, dt, i=i, constant=constant, mine=mine):
            return row(s[i] + ds, t[i][mine] + dt, constant)[0]

        zero = np.zeros(len(mine))
        slope = (value(step, zero) - value(-step, zero)) / (2 * step)
        assert float(gradient[0][i]) == pytest.approx(slope, rel=2e-3, abs=1e-5)
        for j, column in enumerate(mine):
            one = step * np.eye(len(mine))[j]
            slope = (value(0, one) - value(0, -one)) / (2 * step)
            assert float(gradient[1][i, column]) == pytest.approx(slope, rel=2e-3, abs=1e-5)
    assert not np.asarray(gradient[1])[~valid].any()


def test_sampled_softmax_and_its_gradient_equal_the_definition():
    s, t, valid = scores()

    def row(s, t, log_expected):
        return np.log(np.exp(s) + np.sum(np.exp(t - log_expected))) - s

    def loss(s, t):
        return ranking.sampled_softmax(scored(s, t, valid), jnp.asarray(LOG_EXPECTED, jnp.float32))

    found = np.asarray(loss(s, t))
    gradient = jax.grad(lambda s, t: loss(s, t).sum(), (0, 1))(
        jnp.asarray(s, jnp.float32), jnp.asarray(t, jnp.float32)
    )
    assert found[4] == pytest.approx(0.0, abs=1e-6)
    for i in range(4):
        mine, step = np.flatnonzero(valid[i]), 1e-5
        logs = LOG_EXPECTED[mine]
        assert found[i] == pytest.approx(row(s[i], t[i][mine], logs), rel=1e-5)
        slope = (row(s[i] + step, t[i][mine], logs) - row(s[i] - step, t[i][mine], logs)) / 2 / step
        assert float(gradient[0][i]) == pytest.approx(slope, rel=2e-3, abs=1e-5)
        for j, column in enumerate(mine):
            one = step * np.eye(len(mine))[j]
            up, down = (row(s[i], t[i][mine] + sign * one, logs) for sign in (1, -1))
            assert float(gradient[1][i, column]) == pytest.approx(
                (up - down) / (2 * step), rel=2e-3, abs=1e-5
            )


def test_logq_makes_the_sampled_partition_right_on_average():
    draw = np.random.default_rng(0)
    all_scores = draw.normal(size=60)
    chance = draw.dirichlet(np.ones(60))
    log_expected = np.log(chance * 15)
    totals = []
    for _ in range(4000):
        chosen = draw.choice(60, 15, p=chance)
        totals.append(np.exp(all_scores[chosen] - log_expected[chosen]).sum())
    error = np.std(totals) / np.sqrt(len(totals))
    assert abs(np.mean(totals) - np.exp(all_scores).sum()) < 4 * error


def test_with_every_negative_corrected_ranks_are_full_ranks():
    draw = np.random.default_rng(3)
    s, t = draw.normal(size=(6,)), draw.normal(size=(6, NEGATIVES))
    x = ranking.Scored(jnp.asarray(s), jnp.asarray(t), jnp.ones(t.shape, bool), float(NEGATIVES))
    found = np.asarray(ranking.lambda_weights(x, "corrected", 5))
    for i in range(6):
        everything = np.append(t[i], s[i])
        rank = [1 + np.sum(everything > score) for score in everything]
        gain = np.array([discount(r, 5) for r in rank])
        np.testing.assert_allclose(found[i], np.abs(gain[-1] - gain[:-1]), atol=1e-6)


def test_a_candidates_rank_is_unbiased_or_its_nth_part_too_low_with_replacement(monkeypatch):
    """Over every sample of 3 of 4 negatives; D(r) = r, and a positive that is last, show r_j."""
    monkeypatch.setattr(ranking, "ndcg_discount", lambda rank, _: rank)
    draws = {
        1.0: np.array(list(itertools.permutations(range(4), 3))),
        1 - 1 / 4: np.array(list(itertools.product(range(4), repeat=3))),
    }
    for share, drawn in draws.items():
        s, valid = jnp.full(len(drawn), -9.0), jnp.ones(drawn.shape, bool)
        x = ranking.Scored(s, jnp.asarray(-drawn, jnp.float32), valid, 4.0)
        ranks = 5.0 - np.asarray(ranking.lambda_weights(x))
        for above in range(4):
            mean = ranks[:, 0][drawn[:, 0] == above].mean()
            assert mean == pytest.approx(1 + share * above)


@pytest.mark.parametrize("cutoff", slow_but_for([10, 50, 100], 10))
def test_with_every_negative_the_positive_at_the_cutoff_is_weighed(cutoff):
    """Row by row N = m negatives, from 20 to 4000; the positive stands at rank K of them."""
    sizes = np.arange(20, 4001)
    sizes = sizes[(sizes >= cutoff) & ((sizes < 300) | (sizes % 21 == 0) | (sizes % 37 == 0))]
    s = np.full(len(sizes), 0.5 - cutoff, np.float32)
    t = np.broadcast_to(-np.arange(1.0, 4001, dtype=np.float32), (len(sizes), 4000))
    valid = np.arange(4000) < sizes[:, None]
    x = ranking.Scored(*map(jnp.asarray, (s, t, valid)), jnp.asarray(sizes, jnp.float32))
    found = np.asarray(ranking.lambda_weights(x, "corrected", cutoff))
    rank = np.append(np.arange(1, cutoff), np.arange(cutoff + 1, 4002))
    expected = abs(discount(cutoff, cutoff) - np.where(rank <= cutoff, 1 / np.log2(1 + rank), 0))
    difference = np.where(valid, found - expected, 0)
    np.testing.assert_allclose(difference, np.zeros_like(difference), atol=1e-6)


@pytest.mark.parametrize(("drawn", "cutoff"), [(30, 10), (7, 10), (900, 10), (700, 3)])
def test_counts_above_are_exact_up_to_the_cutoff(drawn, cutoff):
    draw = np.random.default_rng(0)
    values = draw.integers(0, 2 * drawn, (20, drawn)).astype(np.float32)
    expected = (values[:, None, :] > values[:, :, None]).sum(2)
    found = np.asarray(ranking._count_above(jnp.asarray(values), cutoff))
    near = expected < cutoff
    np.testing.assert_array_equal(found[near], expected[near])
    assert (found[~near] >= cutoff).all()
    exact = np.asarray(ranking._count_above(jnp.asarray(values), None))
    np.testing.assert_array_equal(exact, expected)


def test_a_negative_that_ties_with_the_positive_stands_above_it():
    x = ranking.Scored(
        jnp.array([1.0]), jnp.array([[1.0, 0.0, 5.0]]), jnp.array([[True, True, False]]), 2.0
    )
    assert ranking.violates(x, None).tolist() == [[True, False, False]]
    # The positive is second; the one that ties is first, the other third.
    discount = 1 / np.log2([2, 3, 4])
    got = np.asarray(ranking.lambda_weights(x))[0, :2]
    np.testing.assert_allclose(
        got, [discount[0] - discount[1], discount[1] - discount[2]], rtol=1e-5
    )


def test_a_negative_at_the_margin_itself_does_not_violate_it():
    scores = jnp.array([[0.0, 0.25, -0.25]])
    x = ranking.Scored(jnp.array([1.0]), scores, jnp.ones((1, 3), bool), 3.0)
    assert ranking.violates(x, 1.0).tolist() == [[False, True, False]]
    # One violator of three, of which one was drawn: Phi(1) = 1, and its gap is a quarter.
    np.testing.assert_allclose(ranking.warp(x), [0.25], rtol=1e-5)
