"""Matrix products are counted exactly, scans multiplied out."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from ilm_jax.models.counting import count_dot_flops, count_dots
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner

X, W = jnp.ones((3, 4)), jnp.ones((4, 5))
STACK = jnp.ones((7, 4, 4))


def scanned(x, ws):
    body = jax.checkpoint(lambda c, w: (jnp.tanh(c @ w), None))
    return jax.lax.scan(body, x, ws)[0].sum()


def test_one_product_is_two_flops_per_multiplication_also_inside_jit():
    jaxpr = jax.make_jaxpr(jax.jit(lambda x, w: x @ w))(X, W)
    assert (count_dots(jaxpr), count_dot_flops(jaxpr)) == (1, 2 * 3 * 4 * 5)


def test_batch_dimensions_count_once():
    q, k = jnp.ones((2, 3, 4, 5, 6)), jnp.ones((2, 7, 4, 6))
    jaxpr = jax.make_jaxpr(lambda q, k: jnp.einsum("bskgd,btkd->bkgst", q, k))(q, k)
    assert count_dot_flops(jaxpr) == 2 * (2 * 4) * (5 * 3) * 7 * 6


def test_scans_are_multiplied_out_and_recomputation_counts():
    one = 2 * 3 * 4 * 4
    assert count_dot_flops(jax.make_jaxpr(scanned)(X, STACK)) == 7 * one
    # Forward, forward again, and the gradients of both factors.
    both = jax.make_jaxpr(jax.grad(scanned, argnums=(0, 1)))(X, STACK)
    assert count_dot_flops(both) == 7 * 4 * one
    assert count_dots(jax.make_jaxpr(jax.grad(scanned))(X, STACK)) == 7 * 3


def test_custom_derivatives_count_when_they_are_run():
    @jax.custom_vjp
    def f(x, w):
        return x @ w

    f.defvjp(lambda x, w: (x @ w, (x, w)), lambda r, t: (t @ r[1].T, r[0].T @ t))
    assert count_dots(jax.make_jaxpr(f)(X, W)) == 1
    grad = jax.grad(lambda x, w: f(x, w).sum(), argnums=(0, 1))
    assert count_dots(jax.make_jaxpr(grad)(X, W)) == 3


def test_the_dearest_branch_counts():
    def f(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ STACK[0] @ STACK[1], lambda x: x, x)

    assert count_dots(jax.make_jaxpr(f)(X)) == 2


def test_a_while_loop_is_refused_only_if_it_has_products():
    def loop(body):
        return jax.make_jaxpr(lambda x: jax.lax.while_loop(lambda c: c[0, 0] < 9, body, x))(X)

    assert count_dots(loop(lambda c: c + 1)) == 0
    with pytest.raises(ValueError, match="while loop"):
        count_dots(loop(lambda c: c @ STACK[0]))


def test_shard_map_counts_all_shards():
    with Partitioner(MeshConfig(data=8)).context():
        rows = PartitionSpec("data")
        f = jax.shard_map(lambda x, w: x @ w, in_specs=(rows, PartitionSpec()), out_specs=rows)
        assert count_dot_flops(jax.make_jaxpr(f)(jnp.ones((8, 4)), W)) == 2 * 8 * 4 * 5


def test_what_is_not_counted_is_refused():
    image, kernel = jnp.ones((1, 1, 8)), jnp.ones((1, 1, 3))
    jaxpr = jax.make_jaxpr(lambda x, k: jax.lax.conv(x, k, (1,), "SAME"))(image, kernel)
    with pytest.raises(ValueError, match="conv_general_dilated"):
        count_dot_flops(jaxpr)
