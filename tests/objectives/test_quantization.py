"""An RQ-VAE's gradients go straight through the choice of codes; unused entries start anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.models.residual_quantizer import lloyd, nearest, revived
from ilm_jax.objectives.quantization import TOP, ResidualQuantization
from tests.models.small import flat

OBJECTIVE = ResidualQuantization(6, (4, 5), width=3, hidden=(8,), restart_every=10)
X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
BATCH = {"items": jnp.arange(40)}


@pytest.fixture(scope="module")
def params():
    import flax.linen as nn

    return nn.unbox(OBJECTIVE.init(jax.random.key(0)))


def at(params):
    return OBJECTIVE.model.bind({"params": params[TOP]})


def test_the_loss_is_its_formula(params):
    sums = OBJECTIVE.loss(params, "item", BATCH, jnp.asarray(X), None)
    model, books = at(params), [params[TOP]["codebook_00"], params[TOP]["codebook_01"]]
    z = np.asarray(model.encode(X))
    residual, total, misses = z, 0, 0.0
    for book in map(np.asarray, books):
        codes = np.square(residual[:, None] - book[None]).sum(-1).argmin(1)
        misses += np.square(residual - book[codes]).sum()
        residual, total = residual - book[codes], total + book[codes]
    back = np.asarray(model.decode(total))
    expected = np.square(X - back).sum() + 1.25 * misses
    assert float(sums["loss"].total) == pytest.approx(expected, rel=1e-4)
    assert float(sums["loss"].weight) == 40


def test_gradients_go_straight_through_the_codes(params):
    """The encoder learns from the reconstruction as if the sum of entries were its output."""
    model, x = at(params), jnp.asarray(X)
    z = model.encode(x)
    entries = model.quantise(z).entries.sum(0)

    def through(z):
        return jnp.square(x - model.decode(z)).sum()

    straight = jax.grad(through)(entries)

    def encoded(encoder):
        tree = {"params": {**params[TOP], **encoder}}
        back, _ = OBJECTIVE.model.apply(tree, x)
        return jnp.square(x - back).sum()

    encoder = {name: leaf for name, leaf in params[TOP].items() if name.startswith("encoder")}

    def surrogate(encoder):
        tree = {"params": {**params[TOP], **encoder}}
        return (OBJECTIVE.model.apply(tree, x, method="encode") * straight).sum()

    got, want = flat(jax.grad(encoded)(encoder)), flat(jax.grad(surrogate)(encoder))
    for path, gradient in got.items():
        np.testing.assert_allclose(gradient, want[path], rtol=1e-3, atol=1e-4, err_msg=path)
    assert any(np.abs(g).max() > 0 for g in got.values())
    # The reconstruction teaches codebooks nothing: they follow what they quantise.
    books = {name: leaf for name, leaf in params[TOP].items() if name.startswith("codebook")}

    def of_books(books):
        back, _ = OBJECTIVE.model.apply({"params": {**params[TOP], **books}}, x)
        return jnp.square(x - back).sum()

    assert not any(np.abs(g).max() for g in jax.grad(of_books)(books).values())


def test_codebooks_start_at_what_they_quantise(params):
    started = OBJECTIVE.data_start(params, jnp.asarray(X))
    assert set(started) == {f"{TOP}/codebook_00", f"{TOP}/codebook_01"}
    new = {TOP: {**params[TOP], **{path.split("/")[1]: x for path, x in started.items()}}}

    def missed(params):
        found = at(params).quantise(at(params).encode(X))
        return float(jnp.square(found.residuals[-1] - found.entries[-1]).sum())

    assert missed(new) < 0.6 * missed(params)


def test_entries_that_no_item_takes_start_anew_when_it_is_time(params):
    far = {TOP: {**params[TOP], "codebook_00": params[TOP]["codebook_00"].at[2:].set(1e4)}}
    used = {int(k) for k in nearest(at(far).encode(X), far[TOP]["codebook_00"])}
    assert used <= {0, 1}
    same = OBJECTIVE.after_step(far, jnp.int32(9), jnp.asarray(X))
    assert np.array_equal(same[f"{TOP}/codebook_00"], far[TOP]["codebook_00"])
    anew = OBJECTIVE.after_step(far, jnp.int32(10), jnp.asarray(X))[f"{TOP}/codebook_00"]
    used_now = {int(k) for k in nearest(at(far).encode(X), anew)}
    assert used_now == {0, 1, 2, 3}
    kept = np.array(sorted(used))
    assert np.array_equal(np.asarray(anew)[kept], np.asarray(far[TOP]["codebook_00"])[kept])


def test_centroids_of_fewer_vectors_than_there_are_entries():
    z = jnp.asarray(X[:3])
    book = lloyd(z, 5)
    assert book.shape == (5, 6) and np.isfinite(book).all()
    found = np.asarray(z - book[nearest(z, book)])
    assert np.square(found).sum() < 1e-2 * np.square(X[:3]).sum()
    assert revived(z, book).shape == (5, 6)
