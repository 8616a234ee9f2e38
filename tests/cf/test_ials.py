"""iALS minimises the paper's objective: checked against a plain dense NumPy solve."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.cf import ials

USERS, ITEMS = 37, 29
CONFIG = ials.IALSConfig(dim=5, alpha=0.3, regularisation=0.02, nu=0.7, epochs=1, seed=3)


def pairs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Lengths from 1 to 25, a repeated pair, and cold rows on both sides."""
    draw = np.random.default_rng(seed)
    users, items = [0], [1]
    for user in range(USERS - 1):
        met = draw.choice(ITEMS - 2, size=1 + user % 25, replace=False)
        users += [user] * len(met)
        items += list(met)
    order = draw.permutation(len(users))
    return np.array(users + users[:2])[[*order, 0]], np.array(items + items[:2])[[*order, 0]]


def dense_side(observed: np.ndarray, other: np.ndarray, config: ials.IALSConfig) -> np.ndarray:
    """One side by the normal equations in float64, a row at a time, every pair spelled out."""
    solved = np.zeros((len(observed), config.dim))
    for row, flags in enumerate(observed):
        weights = flags + config.alpha
        ridge = config.regularisation * (flags.sum() + config.alpha * len(other)) ** config.nu
        matrix = (other * weights[:, None]).T @ other + ridge * np.eye(config.dim)
        solved[row] = np.linalg.solve(matrix, other.T @ flags)
    return solved


def test_one_epoch_equals_a_plain_numpy_solve():
    users, items = pairs()
    observed = np.zeros((USERS, ITEMS))
    observed[users, items] = 1.0
    first = ials.fit(users, items, USERS, ITEMS, CONFIG)
    expected_item = dense_side(observed.T, first.user.astype(np.float64), CONFIG)
    np.testing.assert_allclose(first.item, expected_item, atol=2e-5)

    side = ials.make_side(users, items, USERS, ITEMS, CONFIG.dim)
    user = ials.solve_side(side, jnp.asarray(first.item), CONFIG)
    expected_user = dense_side(observed, first.item.astype(np.float64), CONFIG)
    np.testing.assert_allclose(user, expected_user, atol=2e-5)


def test_solution_of_a_side_has_zero_gradient():
    """The block solve is the minimum of `objective`, not of something near it."""
    users, items = pairs()
    fitted = ials.fit(users, items, USERS, ITEMS, CONFIG)
    direction = np.random.default_rng(1).normal(size=fitted.item.shape)
    step = 1e-3
    values = []
    for sign in (-step, 0.0, step):
        moved = ials.Factors(fitted.user, (fitted.item + sign * direction).astype(np.float64))
        values.append(ials.objective(moved, users, items, CONFIG))
    slope = (values[2] - values[0]) / (2 * step)
    curvature = (values[2] - 2 * values[1] + values[0]) / step**2
    assert abs(slope) < 1e-4 * curvature


def test_objective_never_rises():
    users, items = pairs()
    values = []
    config = ials.IALSConfig(dim=5, alpha=0.1, regularisation=0.003, epochs=6)

    def record(epoch, user, item):
        factors = ials.Factors(np.array(user), np.array(item))
        values.append(ials.objective(factors, users, items, config))

    ials.fit(users, items, USERS, ITEMS, config, on_epoch=record)
    assert len(values) == 6
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(values))


def test_rows_without_interactions_are_zero():
    users, items = pairs()
    fitted = ials.fit(users, items, USERS, ITEMS, CONFIG)
    met_users, met_items = np.isin(range(USERS), users), np.isin(range(ITEMS), items)
    assert not met_users.all() and not met_items.all()
    assert not fitted.user[~met_users].any() and not fitted.item[~met_items].any()
    assert fitted.user[met_users].any(axis=1).all() and fitted.item[met_items].any(axis=1).all()


def test_same_seed_same_bits_and_order_of_pairs_does_not_matter():
    users, items = pairs()
    order = np.random.default_rng(5).permutation(len(users))
    one = ials.fit(users, items, USERS, ITEMS, CONFIG)
    two = ials.fit(users[order], items[order], USERS, ITEMS, CONFIG)
    assert one.item.tobytes() == two.item.tobytes() and one.user.tobytes() == two.user.tobytes()
    other = ials.fit(users, items, USERS, ITEMS, ials.IALSConfig(dim=5, seed=4, epochs=1))
    assert one.item.tobytes() != other.item.tobytes()


def test_small_blocks_give_the_same_solution(monkeypatch):
    users, items = pairs()
    whole = ials.fit(users, items, USERS, ITEMS, CONFIG)
    monkeypatch.setattr(ials, "_GATHERED_FLOATS", 5 * 32 * 3)
    parts = ials.fit(users, items, USERS, ITEMS, CONFIG)
    np.testing.assert_allclose(parts.item, whole.item, atol=1e-6)


def test_fold_in_gives_a_fitted_users_next_solution():
    users, items = pairs()
    fitted = ials.fit(users, items, USERS, ITEMS, CONFIG)
    side = ials.make_side(users, items, USERS, ITEMS, CONFIG.dim)
    solved = np.array(ials.solve_side(side, jnp.asarray(fitted.item), CONFIG))
    histories = [np.unique(items[users == user]) for user in (4, 30)] + [np.zeros(0, np.int32)]
    folded = ials.fold_in(histories, fitted.item, CONFIG)
    np.testing.assert_allclose(folded[:2], solved[[4, 30]], atol=1e-6)
    assert not folded[2].any()


def test_bad_pairs_and_settings_are_refused():
    one = np.array([0])
    with pytest.raises(ValueError, match="item row outside"):
        ials.fit(one, np.array([7]), 1, 7)
    with pytest.raises(ValueError, match="no pairs"):
        ials.fit(one[:0], one[:0], 1, 1)
    with pytest.raises(ValueError, match="positive"):
        ials.IALSConfig(alpha=0.0)
