"""nll is what a plain float64 computation gives, and padding or repeats change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.evaluation.measures.language import (
    ExampleSums,
    LanguageAccumulator,
    example_sums,
    token_nll,
)

LOGITS = np.array(jax.random.normal(jax.random.key(0), (4, 6, 11))) * 3
TARGETS = np.random.default_rng(0).integers(0, 11, (4, 6))
WEIGHTS = np.array([[0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [1] * 6, [0] * 6], np.float32)
CONTENT = WEIGHTS * np.array([1, 0, 1, 0, 1, 0], np.float32)


def plain() -> np.ndarray:
    logits = LOGITS.astype(np.float64)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.take_along_axis(logits, TARGETS[..., None], -1)[..., 0]


def test_token_nll_equals_float64_and_stays_float32_for_bfloat16():
    np.testing.assert_allclose(token_nll(LOGITS, TARGETS), plain(), atol=1e-5)
    half = token_nll(jnp.asarray(LOGITS, jnp.bfloat16), TARGETS)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, plain(), atol=0.05)
    assert np.isfinite(token_nll(LOGITS * 1e4, TARGETS)).all()


def test_out_of_range_targets_do_not_poison_what_counts():
    targets = np.where(WEIGHTS > 0, TARGETS, -1)
    sums = example_sums(token_nll(LOGITS, targets), WEIGHTS, CONTENT)
    np.testing.assert_allclose(sums.nll, (plain() * WEIGHTS).sum(1), rtol=1e-5)
    infinite = np.where(WEIGHTS > 0, plain(), np.inf)
    assert np.isfinite(example_sums(infinite, WEIGHTS, CONTENT).nll).all()


def accumulated(batches: list[list[int]]) -> LanguageAccumulator:
    accumulator = LanguageAccumulator()
    for rows in batches:
        rows = np.array(rows)
        sums = example_sums(token_nll(LOGITS[rows], TARGETS[rows]), WEIGHTS[rows], CONTENT[rows])
        accumulator.add(np.where(rows == 3, -1, rows), sums)
    return accumulator


def test_figures_do_not_depend_on_batches_padding_or_repeats():
    """Row 3 has no target token and pads; row 0 comes twice in the second arrangement."""
    one = accumulated([[0, 1, 2, 3]]).result()
    two = accumulated([[2, 0], [1, 3], [0, 3]]).result()
    assert one.index.tolist() == two.index.tolist() == [0, 1, 2]
    assert one.nll == pytest.approx((plain() * WEIGHTS).sum() / WEIGHTS.sum(), rel=1e-6)
    content = (plain() * CONTENT).sum() / CONTENT.sum()
    assert one.nll_content == pytest.approx(content, rel=1e-6)
    assert (two.nll, two.nll_content) == pytest.approx((one.nll, one.nll_content), rel=1e-6)
    interval = one.interval(content=True)
    assert interval.mean == pytest.approx(content) and interval.low < content < interval.high


def test_bits_per_byte():
    result = accumulated([[0, 1, 2]]).result()
    bits = (plain() * WEIGHTS).sum() / np.log(2) / 60
    assert result.bits_per_byte(np.array([10, 20, 30])) == pytest.approx(bits, rel=1e-6)


def test_uniform_logits_cost_log_vocabulary():
    nll = token_nll(np.zeros((1, 3, 11)), TARGETS[:1, :3])
    np.testing.assert_allclose(nll, np.log(11), rtol=1e-6)


def test_nothing_and_infinite_are_refused():
    with pytest.raises(ValueError, match="no example"):
        LanguageAccumulator().result()
    one = np.ones(1)
    with pytest.raises(UserError, match="example 5 is not finite"):
        LanguageAccumulator().add(np.array([5]), ExampleSums(one * np.inf, one, one, one))
