"""The exact GELU and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np

from ilm_jax.models.activations import gelu

X = jnp.linspace(-8, 8, 4001)


def test_it_is_the_exact_gelu_in_value_and_gradient():
    def plain(x):
        return jax.nn.gelu(x, approximate=False)

    np.testing.assert_allclose(gelu(X), plain(X), atol=1e-6)
    got, want = (jax.vmap(jax.grad(f))(X) for f in (gelu, plain))
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_nothing_but_its_argument_is_kept_for_its_gradient():
    _, pull = jax.vjp(gelu, X)
    kept = [leaf for leaf in jax.tree.leaves(pull) if leaf.size == X.size]
    assert len(kept) == 1 and (kept[0] == X).all()


def test_low_precision_is_rounded_once():
    low = X.astype(jnp.bfloat16)
    want = gelu(low.astype(jnp.float32)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(gelu(low), want)
