"""iALS minimises the paper's objective: checked against a plain dense NumPy solve."""

import dataclasses
import itertools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh

from ilm_jax.cf import ials, ials_blocks, ials_rows, ials_solve
from ilm_jax.cf.early_stopping import EarlyStopping
from ilm_jax.cf.ials_rows import conjugate_gradients
from ilm_jax.cf.interactions import Interactions

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


def next_users(users: np.ndarray, items: np.ndarray, item: np.ndarray) -> np.ndarray:
    """All user rows solved against fixed items."""
    histories = Interactions.from_pairs(users, items, USERS, ITEMS)
    return ials.fold_in(histories, item, CONFIG)


def test_one_epoch_equals_a_plain_numpy_solve():
    users, items = pairs()
    observed = np.zeros((USERS, ITEMS))
    observed[users, items] = 1.0
    first = ials.fit(users, items, USERS, ITEMS, CONFIG)
    expected_item = dense_side(observed.T, first.user.astype(np.float64), CONFIG)
    np.testing.assert_allclose(first.item, expected_item, atol=2e-5)

    user = next_users(users, items, first.item)
    expected_user = dense_side(observed, first.item.astype(np.float64), CONFIG)
    np.testing.assert_allclose(user, expected_user, atol=2e-5)


@pytest.mark.parametrize("stddev", [0.1, 2.0])
def test_the_first_epoch_starts_from_items_of_the_seed_and_the_stated_size(stddev):
    """N(0, (init_stddev / sqrt(dim))^2), zero where nobody met the item; then users are solved."""
    users, items = pairs()
    config = dataclasses.replace(CONFIG, init_stddev=stddev)
    observed = np.zeros((USERS, ITEMS))
    observed[users, items] = 1.0
    start = np.asarray(jax.random.normal(jax.random.key(config.seed), (ITEMS, config.dim)))
    start = start * stddev / np.sqrt(config.dim) * (observed.sum(0) > 0)[:, None]
    expected = dense_side(observed, start.astype(np.float64), config)
    got = ials.fit(users, items, USERS, ITEMS, config)
    np.testing.assert_allclose(got.user, expected, rtol=2e-3, atol=2e-4)


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


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_small_blocks_give_the_same_solution(solver, monkeypatch):
    """Those of conjugate gradients are solved side by side, as many as there are cores."""
    users, items = pairs()
    config, made = dataclasses.replace(CONFIG, solver=solver), []
    block = ials_blocks.Blocks.__getitem__
    monkeypatch.setattr(
        ials_blocks.Blocks, "__getitem__", lambda self, at: made.append(at) or block(self, at)
    )
    whole = ials.fit(users, items, USERS, ITEMS, config)
    few = len(made)
    for bound in ("GATHERED_FLOATS", "PARTED_FLOATS"):
        monkeypatch.setattr(ials, bound, 5 * 32 * 3)
    parts = ials.fit(users, items, USERS, ITEMS, config)
    assert len(made) - few > few
    np.testing.assert_allclose(parts.item, whole.item, atol=1e-6)


def test_small_parts_and_pieces_give_the_same_solution(monkeypatch):
    """On a CPU conjugate gradients read a few rows at a time, and a long row in pieces."""
    users, items = pairs()
    config = dataclasses.replace(CONFIG, solver="cg")
    whole = ials.fit(users, items, USERS, ITEMS, config)
    monkeypatch.setattr(ials_rows, "CACHED_FLOATS", 5 * 32)
    monkeypatch.setattr(ials_rows, "PIECE_FLOATS", 5 * 4)
    ials_solve._block_solver.cache_clear()
    parts = ials.fit(users, items, USERS, ITEMS, config)
    ials_solve._block_solver.cache_clear()
    np.testing.assert_allclose(parts.item, whole.item, atol=1e-5)
    assert ials_rows._pieces(32, 5) == 8 and ials_rows._pieces(12, 5) == 4


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_as_many_devices_as_threads_do_not_wait_for_ever(solver):
    """jaxlib's LAPACK waits for threads that the other devices' LAPACK waits in."""
    code = f"""
import jax, numpy as np
from ilm_jax.cf import ials
users, items = np.divmod(np.arange(80_000), 10)
items = (items * 37 + users) % 500
config = ials.IALSConfig(dim=32, epochs=3, solver={solver!r})
ials.fit(users, items, 8_000, 500, config, mesh=jax.make_mesh((len(jax.devices()),), "data"))
"""
    flags = f"--xla_force_host_platform_device_count={max(2, os.cpu_count() or 1)}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, "-W", "ignore", "-c", code]
    subprocess.run(command, env=environment, check=True, timeout=120)


def test_fold_in_gives_a_fitted_users_next_solution():
    users, items = pairs()
    fitted = ials.fit(users, items, USERS, ITEMS, CONFIG)
    solved = next_users(users, items, fitted.item)
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
    with pytest.raises(ValueError, match="alpha=0.0: give a finite number, above 0"):
        ials.IALSConfig(alpha=0.0)


def eight() -> Mesh:
    return Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "tensor"))


@pytest.mark.parametrize(
    ("solver", "gather"),
    [
        ("cholesky", "rows"),
        ("cg", "whole"),
        pytest.param("cholesky", "whole", marks=pytest.mark.slow),
        pytest.param("cg", "rows", marks=pytest.mark.slow),
    ],
)
def test_eight_devices_give_the_same_factors(gather, solver):
    users, items = pairs()
    config = ials.IALSConfig(dim=5, epochs=4, solver=solver, gather=gather, alpha=0.2)
    one = ials.fit(users, items, USERS, ITEMS, config)
    many = ials.fit(users, items, USERS, ITEMS, config, mesh=eight())
    np.testing.assert_allclose(many.user, one.user, atol=1e-4)
    np.testing.assert_allclose(many.item, one.item, atol=1e-4)


def test_tables_and_solutions_are_split_over_all_devices():
    users, items = pairs()
    train = Interactions.from_pairs(users, items, USERS, ITEMS)
    turned = train.transposed()
    line = ials.flat_mesh(eight())
    rows, others = (ials_blocks.Placement.deal(x.lengths, 8) for x in (train, turned))
    assert rows.size >= USERS and rows.slots == 5
    table = ials.place(line, others.stack(np.ones((ITEMS, 5), np.float32)))
    assert {shard.data.shape for shard in table.addressable_shards} == {(4, 5)}
    side = ials_blocks.make_side(train, rows, others, 5)
    assert all(len(b.slots[0]) == ials_blocks.padded_rows(len(b.slots[0])) for b in side.blocks)
    for gather in ("rows", "whole"):
        config = ials.IALSConfig(dim=5, gather=gather)
        start = ials.place(line, np.zeros((rows.size, 5), np.float32))
        solved = config.solve(line, config.placed(line, side), table, start)
        assert {shard.data.shape for shard in solved.addressable_shards} == {(5, 5)}


def test_what_is_exchanged_at_once_is_bounded():
    train = Interactions.from_pairs(*pairs(), USERS, ITEMS)
    rows, others = (ials_blocks.Placement.deal(x.lengths, 1) for x in (train, train.transposed()))
    bound = 8 * 5 * 5  # one short row of five numbers, for each of eight devices
    together = {}
    for copies in (1, 8):
        side = ials_blocks.make_side(train, rows, others, 5, copies, bound)
        together[copies] = max(block.partners.shape[1] for block in side.blocks)
    assert together[8] == 1 < together[1]


@pytest.mark.parametrize(("steps", "pieces"), [(1, 1), (2, 1), (3, 1), (3, 3)])
def test_steps_of_conjugate_gradients_are_hestenes_and_stiefels(steps, pieces):
    """On the matrix itself, in float64: nothing that a step leaves out is missed."""
    rng = np.random.default_rng(0)
    met, start = rng.normal(size=(4, 9, 6)), rng.normal(size=(4, 6))
    other, ridge = rng.normal(size=(20, 6)), rng.uniform(0.1, 2.0, size=4)
    gram = 0.3 * other.T @ other
    spare = rng.normal(size=(int(pieces > 1), 9 // pieces, 6))  # of an earlier part: nobody's
    read = np.concatenate([met.reshape(4 * pieces, 9 // pieces, 6), spare])
    given = (np.float32(x) for x in (read, gram, ridge, start))
    found = conjugate_gradients(*given, steps, pieces)
    for row in range(4):
        matrix = met[row].T @ met[row] + gram + ridge[row] * np.eye(6)
        x = start[row]
        residual = direction = met[row].sum(0) - matrix @ x
        for _ in range(steps):
            image = matrix @ direction
            length = residual @ residual / (direction @ image)
            x, new = x + length * direction, residual - length * image
            direction = new + (new @ new) / (residual @ residual) * direction
            residual = new
        np.testing.assert_allclose(found[row], x, rtol=2e-5, atol=2e-5)


def test_enough_conjugate_gradients_give_the_exact_solution():
    users, items = pairs()
    exact = ials.fit(users, items, USERS, ITEMS, CONFIG)
    cg = ials.IALSConfig(
        dim=5, alpha=0.3, regularisation=0.02, nu=0.7, epochs=1, seed=3, solver="cg", cg_steps=12
    )
    near = ials.fit(users, items, USERS, ITEMS, cg)
    np.testing.assert_allclose(near.item, exact.item, atol=2e-5)
    few = ials.fit(users, items, USERS, ITEMS, dataclasses.replace(cg, cg_steps=1))
    assert np.abs(few.item - exact.item).max() > 1e-3


def test_a_few_steps_from_the_last_solution_reach_the_same_minimum():
    users, items = pairs()
    config = ials.IALSConfig(dim=5, alpha=0.1, regularisation=0.01, epochs=60)
    exact = ials.fit(users, items, USERS, ITEMS, config)
    warm = ials.fit(users, items, USERS, ITEMS, dataclasses.replace(config, solver="cg"))
    values = [ials.objective(f, users, items, config) for f in (exact, warm)]
    assert values[1] == pytest.approx(values[0], rel=2e-3)


def test_bfloat16_inputs_stay_near_float32():
    users, items = pairs()
    half = ials.fit(users, items, USERS, ITEMS, dataclasses.replace(CONFIG, dtype="bfloat16"))
    full = ials.fit(users, items, USERS, ITEMS, CONFIG)
    assert half.item.dtype == np.float32
    difference = np.abs(half.item - full.item).max()
    assert 0 < difference < 0.02 * np.abs(full.item).max()


@given(st.integers(1, 10**6))
def test_padded_lengths_waste_at_most_half(longest):
    length = ials_blocks.padded_length(longest)
    assert longest <= length <= max(4, 1.5 * longest)


def test_rows_are_dealt_evenly():
    lengths = np.random.default_rng(0).integers(0, 100, 41)
    placement = ials_blocks.Placement.deal(lengths, 4)
    assert len(set(placement.position.tolist())) == 41
    loads = np.bincount(placement.position // placement.slots, weights=lengths, minlength=4)
    assert loads.max() - loads.min() <= lengths.max()


def test_early_stopping_keeps_the_best_epoch():
    users, items = pairs()
    figures = iter([1.0, 3.0, 2.0, 2.5, 9.0])
    seen = []

    def measure(user, item):
        seen.append(item)
        return next(figures)

    stop = EarlyStopping(measure, patience=2)
    config = dataclasses.replace(CONFIG, epochs=20)
    ials.fit(users, items, USERS, ITEMS, config, on_epoch=stop)
    assert len(seen) == 4 and stop.epoch == 2 and stop.value == 3.0
    np.testing.assert_array_equal(stop.item, seen[1])
    short = ials.fit(users, items, USERS, ITEMS, dataclasses.replace(CONFIG, epochs=2))
    np.testing.assert_array_equal(stop.item, short.item)


def test_duplicates_count_once_and_wrong_histories_are_refused():
    users, items = pairs()
    twice = ials.fit(np.tile(users, 2), np.tile(items, 2), USERS, ITEMS, CONFIG)
    once = ials.fit(users, items, USERS, ITEMS, CONFIG)
    assert twice.item.tobytes() == once.item.tobytes()
    with pytest.raises(ValueError, match="outside"):
        ials.fold_in([np.array([ITEMS])], once.item, CONFIG)
    with pytest.raises(ValueError, match="solver"):
        ials.IALSConfig(solver="qr")
    with pytest.raises(ValueError, match="bfloat16"):
        ials.IALSConfig(dtype="float16")
