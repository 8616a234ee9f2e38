"""Training through a frozen decoder computes none of its weight gradients, and all else."""

import math

import jax
import jax.numpy as jnp
import pytest

from ilm_jax.models.counting import count_dot_flops, count_dots
from ilm_jax.models.decoder import Decoder
from ilm_jax.models.ilm import ItemLanguageModel
from ilm_jax.models.readers import MLPSoftTokens, QFormerReader
from tests.models.small import decoder_config, flat, init, qformer_config

ROWS, LENGTH = 2, 8
ONES = jnp.ones((ROWS, LENGTH), jnp.int32)
POSITIONS = jnp.broadcast_to(jnp.arange(LENGTH), ONES.shape)
BATCH = (ONES, POSITIONS, ONES, ONES * 0, ONES * 0, jnp.ones((ROWS, 1, 6)))


def traced_gradient(model, params, trains):
    """The program of the gradient with respect to the top-level names in `trains`."""

    def loss(trainable, frozen):
        bound = model.bind({"params": trainable | frozen})
        return jax.nn.logsumexp(bound.logits(bound(*BATCH)), -1).sum()

    trainable = {top: tree for top, tree in params.items() if top in trains}
    frozen = {top: tree for top, tree in params.items() if top not in trains}
    return jax.make_jaxpr(jax.grad(loss))(trainable, frozen)


QFORMER = qformer_config(num_layers=2)
READERS = {
    "qformer": lambda lm: ItemLanguageModel(QFormerReader(QFORMER).build(32), lm),
    "mlp": lambda lm: ItemLanguageModel(MLPSoftTokens(QFORMER, 16, 32), lm),
}
CASES = [
    ("qformer", dict(scan_layers=scan, remat=remat, tie_embeddings=scan))
    for scan in (True, False)
    for remat in ("none", "full", "minimal")
] + [("mlp", {})]


@pytest.mark.parametrize("reader, changes", CASES)
def test_frozen_training_is_full_training_minus_exactly_the_weight_gradients(reader, changes):
    config = decoder_config(**changes)
    model = READERS[reader](Decoder(config))
    params = init(model, *BATCH)
    full = traced_gradient(model, params, set(params))
    frozen = traced_gradient(model, params, set(params) - {"lm"})
    # Every matrix gets its gradient from one product, a stack from one per layer; the lookup's is
    # a scatter.
    output = "embedding/embedding" if config.tie_embeddings else "head/embedding"
    matrices = {
        path: leaf.shape
        for path, leaf in flat(params["lm"]).items()
        if path.endswith("kernel") or path == output
    }
    dots = sum(shape[0] if len(shape) == 3 else 1 for shape in matrices.values())
    assert dots == 7 * config.num_layers + 1
    flops = sum(2 * ROWS * LENGTH * math.prod(shape) for shape in matrices.values())
    if config.remat == "minimal":
        # The sum over values is made again only as the factor of the weight gradient after it.
        dots += config.num_layers
        flops += config.num_layers * 2 * ROWS * LENGTH**2 * config.num_heads * config.head_width
    assert count_dots(full) - count_dots(frozen) == dots
    assert count_dot_flops(full) - count_dot_flops(frozen) == flops
