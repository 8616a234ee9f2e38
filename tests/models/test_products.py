"""Products with weights on a CPU: values, gradients and the number of products are jnp's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.models import products
from ilm_jax.models.counting import count_dots

SHAPES = {"wider": ((2, 5, 3), (3, 7)), "narrower": ((2, 5, 7), (7, 3)), "rows": ((5, 4), (4, 4))}


def draw(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def evaluated(function, x, weight):
    """(product, gradients of a mixture of it)."""

    def scalar(x, weight):
        y = function(x, weight)
        return (y.astype(jnp.float32) * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum(), y

    (_, y), gradients = jax.jit(jax.value_and_grad(scalar, (0, 1), has_aux=True))(x, weight)
    return y, *gradients


@pytest.mark.parametrize("left, right", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 1e-5), (jnp.bfloat16, 0.1)])
def test_values_and_gradients_are_those_of_the_plain_product(left, right, dtype, tolerance):
    x, weight = draw(*left, dtype=dtype), draw(*right, seed=1, dtype=dtype)
    got, want = (evaluated(f, x, weight) for f in (products.product, jnp.dot))
    for g, w in zip(got, want, strict=True):
        assert g.dtype == w.dtype and g.shape == w.shape
        np.testing.assert_allclose(
            g.astype(jnp.float32), w.astype(jnp.float32), atol=tolerance, rtol=tolerance
        )


@pytest.mark.parametrize("trains, dots", [((0,), 2), ((1,), 2), ((0, 1), 3)])
def test_what_does_not_train_costs_no_product_in_a_scan_too(trains, dots):
    x, weights = draw(5, 4), draw(3, 4, 4, seed=1)

    def loss(x, weights):
        return jax.lax.scan(lambda y, w: (products.product(y, w), None), x, weights)[0].sum()

    # In a scan the state's gradient is needed where the weights alone train too.
    found = count_dots(jax.make_jaxpr(jax.grad(loss, trains))(x, weights))
    assert found == 3 * (3 if trains == (1,) else dots)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_bias_has_the_gradient_of_a_plain_sum(dtype):
    y, bias = draw(2, 5, 3, dtype=dtype), draw(3, seed=1, dtype=dtype)
    got, want = (evaluated(f, y, bias) for f in (products.add_bias, jnp.add))
    for g, w in zip(got, want, strict=True):
        assert g.dtype == w.dtype and g.shape == w.shape
        g, w = g.astype(jnp.float32), w.astype(jnp.float32)
        np.testing.assert_allclose(g, w, rtol=1e-6 if dtype == jnp.float32 else 0.02, atol=1e-6)


def test_a_bias_that_does_not_train_costs_nothing():
    y, bias = draw(5, 4), draw(4, seed=1)

    def loss(y, bias):
        return products.add_bias(y, bias).sum()

    assert count_dots(jax.make_jaxpr(jax.grad(loss, 0))(y, bias)) == 0
    assert count_dots(jax.make_jaxpr(jax.grad(loss, 1))(y, bias)) == 1


def test_a_bias_of_several_dimensions_has_the_gradient_of_a_plain_sum_in_a_scan_too():
    y, biases = draw(4, 2, 3, 5), draw(6, 3, 5, seed=1)

    def loss(add):
        def body(y, bias):
            return jnp.sin(add(y, bias)), None

        return jax.jit(jax.grad(lambda y, b: jax.lax.scan(body, y, b)[0].sum(), (0, 1)))(y, biases)

    for got, want in zip(loss(products.add_bias), loss(jnp.add), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_sums_of_many_bfloat16_rows_do_not_stop_growing():
    assert products.column_sums(jnp.ones((4096, 2), jnp.bfloat16)).tolist() == [4096, 4096]


def test_other_devices_get_the_plain_product(monkeypatch):
    monkeypatch.setattr(products, "platform", lambda: "tpu")
    x, weight = draw(5, 4), draw(4, 6, seed=1)
    assert str(jax.make_jaxpr(products.product)(x, weight)) == str(
        jax.make_jaxpr(jnp.dot)(x, weight)
    )
    programs = [
        str(jax.make_jaxpr(jax.grad(lambda y, b, f=f: f(y, b).sum(), (0, 1)))(x, weight[0, :4]))
        for f in (products.add_bias, jnp.add)
    ]
    assert programs[0] == programs[1]
