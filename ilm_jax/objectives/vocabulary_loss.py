"""Cross-entropy over a vocabulary and its gradient, without the logits of all tokens.

With logits s_iv of token i and word v, V words, label y_i, smoothing e and z-loss z (Chowdhery et
al. 2022, arXiv 2204.02311, section 5),

    lse_i = log sum_v exp s_iv
    loss_i = lse_i - (1 - e) s_i,y_i - e / V sum_v s_iv + z lse_i^2
    d loss_i / d s_iv = (1 + 2 z lse_i) exp(s_iv - lse_i) - (1 - e) [v = y_i] - e / V

What is trained on is a weighted total, so a token's gradient is known as soon as its logits are:
one walk makes the logits of a block of tokens, their part of the loss and their part of the
gradients, and drops them. No logit is made twice, and none is kept. What does not train (the table
of a frozen language model) gets no gradient, and no product for it is in the program. Words that
stand beside the table (`OutputLayer.new`) take part in the sums, and have a gradient of their own.

On a mesh each device has its rows and its words, split as all the logits would have been; maxima,
sums and gradients are joined over the devices that share them. Words beside the table are on all.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Float32, Int, PyTree

from ilm_jax.models.layers import constrain, mesh_spec, readout_rows
from ilm_jax.models.output_layer import OutputLayer
from ilm_jax.objectives.vocabulary_block import Axes, Terms, Trains, block_loss, joined

# Of the logits that a device holds at once.
BLOCK_BYTES = 64 * 2**20

# Of hidden states, table, bias and the words beside the table.
Gradients = tuple[Array | None, Array | None, Array | None, Array | None]


class TokenLosses(NamedTuple):
    """Results of `vocabulary_loss`.

    Attributes:
      total: sum of the weighted losses; its gradient comes with its value.
      each: loss of every token in nats, unweighted; a gradient through these costs a second walk.
    """

    total: Float32[Array, ""]
    each: Float32[Array, "batch length"]


def vocabulary_loss(
    hidden: Float[Array, "batch length embed"],
    output: OutputLayer,
    labels: Int[Array, "batch length"],
    weights: Float[Array, "batch length"],
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    block: int | None = None,
) -> TokenLosses:
    """Cross-entropy of each token with its label, and the weighted sum; see this module's header.

    Args:
      hidden: states whose next token is predicted.
      output: the layer that gives their logits.
      labels: ids of the vocabulary, where the weight is not 0.
      weights: of the tokens; no gradient flows into them, and 0 silences a loss that is not finite.
      label_smoothing: e above.
      z_loss: z above.
      block: tokens that a device takes at once; chosen from BLOCK_BYTES if None.
    """
    vocab, new = output.table.shape[0], output.new
    words = vocab
    if new is not None:  # in the place of what the table has under their ids
        first, behind = output.first, output.first + new.shape[0]
        words = min(vocab, first) + new.shape[0] + max(0, vocab - behind)
    how = (output.scale, output.softcap, label_smoothing, z_loss, block)
    terms = Terms(vocab, words, output.first, *how)
    dtype = jnp.dtype(output.dtype)
    hidden = constrain(hidden.astype(dtype), readout_rows(labels.size, vocab), "length", None)
    table = output.table.astype(dtype)
    new = None if new is None else new.astype(dtype)
    weights = jax.lax.stop_gradient(weights.astype(jnp.float32))
    total, each = _losses(terms, hidden, table, output.bias, new, labels, weights)
    return TokenLosses(total, constrain(each, "batch", "length"))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _losses(
    terms: Terms,
    hidden: Array,
    table: Array,
    bias: Array | None,
    new: Array | None,
    labels: Array,
    weights: Array,
) -> tuple[Array, Array]:
    nothing = (False, False, False, False)
    total, each, _ = _on_mesh(terms, nothing, hidden, table, bias, new, labels, weights)
    return total, each


def _forward(
    terms: Terms, *leaves: CustomVJPPrimal | None
) -> tuple[tuple[Array, Array], tuple[Gradients, PyTree[Array]]]:
    values: PyTree[Array] = tuple(None if leaf is None else leaf.value for leaf in leaves)
    trains = tuple(leaf is not None and leaf.perturbed for leaf in leaves[:4])
    total, each, gradients = _on_mesh(terms, trains, *values)
    return (total, each), (gradients, values)


def _backward(
    terms: Terms,
    kept: tuple[Gradients, PyTree[Array]],
    cotangents: tuple[Array | SymbolicZero, Array | SymbolicZero],
) -> tuple[Array | None, ...]:
    gradients, values = kept
    of_total, of_each = cotangents
    if isinstance(of_total, SymbolicZero):
        of_total = jnp.float32(0)
    found = jax.tree.map(lambda x: (of_total * x).astype(x.dtype), gradients)
    if not isinstance(of_each, SymbolicZero):
        trains = tuple(x is not None for x in gradients)
        hidden, table, bias, new, labels, _ = values
        more = _on_mesh(terms, trains, hidden, table, bias, new, labels, of_each)[2]
        found = jax.tree.map(jnp.add, found, more)
    return (*found, None, None)


_losses.defvjp(_forward, _backward, symbolic_zeros=True)


def _on_mesh(
    terms: Terms,
    trains: Trains,
    hidden: Array,
    table: Array,
    bias: Array | None,
    new: Array | None,
    labels: Array,
    weights: Array,
) -> tuple[Array, Array, Gradients]:
    """(total, loss of each token, gradients of the total where they are wanted)."""
    name = readout_rows(labels.size, terms.vocab)
    spec = mesh_spec((labels.shape[0], terms.vocab), (name, "vocab"))
    if spec is None:
        return _walk(terms, trains, (), (), hidden, table, bias, new, labels, weights)
    rows, words = (() if axes is None else axes for axes in spec)
    row, word, whole = PartitionSpec(rows or None), PartitionSpec(words or None), PartitionSpec()
    parts = (row, word, word, whole)
    wanted = tuple(part if on else None for part, on in zip(parts, trains, strict=True))
    return jax.shard_map(
        functools.partial(_walk, terms, trains, rows, words),
        in_specs=(
            row,
            word,
            None if bias is None else word,
            None if new is None else whole,
            row,
            row,
        ),
        out_specs=(whole, row, wanted),
        check_vma=False,
    )(hidden, table, bias, new, labels, weights)


def _walk(
    terms: Terms,
    trains: Trains,
    rows: Axes,
    words: Axes,
    hidden: Array,
    table: Array,
    bias: Array | None,
    new: Array | None,
    labels: Array,
    weights: Array,
) -> tuple[Array, Array, Gradients]:
    """`_on_mesh` for a device's rows and words, which are split over these axes of the mesh."""
    count = labels.size
    held = (table, bias, new)
    width = table.shape[0] + (0 if new is None else new.shape[0])
    most = terms.block or max(1, BLOCK_BYTES // (4 * width))
    steps = max(1, math.ceil(count / most))
    size = math.ceil(count / steps)

    def blocks(x: Array) -> Array:
        """Positions [batch, length, ...] in blocks [steps, size, ...], filled up with zeros."""
        x = x.reshape(count, *x.shape[2:])
        x = jnp.pad(x, ((0, steps * size - count), *((0, 0),) * (x.ndim - 1)))
        return x.reshape(steps, size, *x.shape[1:])

    def whole(x: Array) -> Array:
        """The inverse of `blocks`."""
        return x.reshape(-1, *x.shape[2:])[:count].reshape(*labels.shape, *x.shape[2:])

    def body(carry: PyTree[Array], xs: PyTree[Array]) -> tuple[PyTree[Array], PyTree[Array]]:
        """One block's losses and gradients; gradients of the weights are added up."""
        each, of_hidden, *sums = block_loss(terms, trains, words, held, *xs)
        return jax.tree.map(jnp.add, carry, sums), (each, of_hidden)

    zeros = [
        jnp.zeros(x.shape, jnp.float32) if x is not None and on else None
        for x, on in zip(held, trains[1:], strict=True)
    ]
    xs = tuple(blocks(x) for x in (hidden, labels, weights))
    if steps == 1:  # adds nothing to zeros as large as the table
        each, of_hidden, *sums = block_loss(terms, trains, words, held, *(x[0] for x in xs))
        by_token = jax.tree.map(lambda x: x[None], (each, of_hidden))
    else:
        sums, by_token = jax.lax.scan(body, [jnp.float32(0), *zeros], xs)
    each, of_hidden = jax.tree.map(whole, by_token)
    total, *found = jax.tree.map(functools.partial(joined, axes=rows), sums)
    of_table, of_bias, of_new = (
        None if x is None or of is None else of.astype(x.dtype)
        for x, of in zip(held, found, strict=True)
    )
    return total, each, (of_hidden, of_table, of_bias, of_new)
