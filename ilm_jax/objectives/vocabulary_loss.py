"""Cross-entropy over a vocabulary and its gradient, without the logits of all tokens.

With logits s_iv of token i and word v, V words, label y_i, smoothing e and z-loss z (Chowdhery et
al. 2022, arXiv 2204.02311, section 5),

    lse_i = log sum_v exp s_iv
    loss_i = lse_i - (1 - e) s_i,y_i - e / V sum_v s_iv + z lse_i^2
    d loss_i / d s_iv = (1 + 2 z lse_i) exp(s_iv - lse_i) - (1 - e) [v = y_i] - e / V

What is trained on is a weighted total, so a token's gradient is known as soon as its logits are:
one walk makes the logits of a block of tokens, their part of the loss and their part of the
gradients, and drops them. No logit is made twice, and none is kept. What does not train (the table
of a frozen language model) gets no gradient, and no product for it is in the program.

On a mesh each device has its rows and its words, split as all the logits would have been; maxima,
sums and gradients are joined over the devices that share them.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Float32, Int, PyTree

from ilm_jax.models.attention import soft_cap
from ilm_jax.models.layers import constrain, mesh_spec, readout_rows
from ilm_jax.models.output_layer import OutputLayer

# Of the logits that a device holds at once.
BLOCK_BYTES = 64 * 2**20

# Of hidden states, table and bias.
Trains = tuple[bool, bool, bool]
Gradients = tuple[Array | None, Array | None, Array | None]


class TokenLosses(NamedTuple):
    """Results of `vocabulary_loss`.

    Attributes:
      total: sum of the weighted losses; its gradient comes with its value.
      each: loss of every token in nats, unweighted; a gradient through these costs a second walk.
    """

    total: Float32[Array, ""]
    each: Float32[Array, "batch length"]


@dataclasses.dataclass(frozen=True)
class _Loss:
    """What is known when a program is traced."""

    vocab: int
    scale: float
    softcap: float | None
    label_smoothing: float
    z_loss: float
    block: int | None


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
    vocab = output.table.shape[0]
    loss = _Loss(vocab, output.scale, output.softcap, label_smoothing, z_loss, block)
    dtype = jnp.dtype(output.dtype)
    hidden = constrain(hidden.astype(dtype), readout_rows(labels.size, vocab), "length", None)
    table = output.table.astype(dtype)
    weights = jax.lax.stop_gradient(weights.astype(jnp.float32))
    total, each = _losses(loss, hidden, table, output.bias, labels, weights)
    return TokenLosses(total, constrain(each, "batch", "length"))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _losses(
    loss: _Loss, hidden: Array, table: Array, bias: Array | None, labels: Array, weights: Array
) -> tuple[Array, Array]:
    nothing = (False, False, False)
    total, each, _ = _on_mesh(loss, nothing, hidden, table, bias, labels, weights)
    return total, each


def _forward(loss: _Loss, *leaves: Any) -> tuple[tuple[Array, Array], Any]:
    values: Any = tuple(None if leaf is None else leaf.value for leaf in leaves)
    trains: Any = tuple(leaf is not None and leaf.perturbed for leaf in leaves[:3])
    total, each, gradients = _on_mesh(loss, trains, *values)
    return (total, each), (gradients, values)


def _backward(loss: _Loss, kept: Any, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    gradients, values = kept
    of_total, of_each = cotangents
    if isinstance(of_total, SymbolicZero):
        of_total = jnp.float32(0)
    found = jax.tree.map(lambda x: (of_total * x).astype(x.dtype), gradients)
    if not isinstance(of_each, SymbolicZero):
        trains: Any = tuple(x is not None for x in gradients)
        hidden, table, bias, labels, _ = values
        more = _on_mesh(loss, trains, hidden, table, bias, labels, of_each)[2]
        found = jax.tree.map(jnp.add, found, more)
    return (*found, None, None)


_losses.defvjp(_forward, _backward, symbolic_zeros=True)


def _on_mesh(
    loss: _Loss,
    trains: Trains,
    hidden: Array,
    table: Array,
    bias: Array | None,
    labels: Array,
    weights: Array,
) -> tuple[Array, Array, Gradients]:
    """(total, loss of each token, gradients of the total where they are wanted)."""
    name = readout_rows(labels.size, loss.vocab)
    spec = mesh_spec((labels.shape[0], loss.vocab), (name, "vocab"))
    if spec is None:
        return _walk(loss, trains, (), (), hidden, table, bias, labels, weights)
    rows, words = (() if axes is None else axes for axes in spec)
    row, word, whole = PartitionSpec(rows or None), PartitionSpec(words or None), PartitionSpec()
    wanted = tuple(part if on else None for part, on in zip((row, word, word), trains, strict=True))
    return jax.shard_map(
        functools.partial(_walk, loss, trains, rows, words),
        in_specs=(row, word, None if bias is None else word, row, row),
        out_specs=(whole, row, wanted),
        check_vma=False,
    )(hidden, table, bias, labels, weights)


def _walk(
    loss: _Loss,
    trains: Trains,
    rows: str | tuple[str, ...],
    words: str | tuple[str, ...],
    hidden: Array,
    table: Array,
    bias: Array | None,
    labels: Array,
    weights: Array,
) -> tuple[Array, Array, Gradients]:
    """`_on_mesh` for a device's rows and words, which are split over these axes of the mesh."""
    count = labels.size
    most = loss.block or max(1, BLOCK_BYTES // (4 * table.shape[0]))
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
        each, of_hidden, *sums = _block(loss, trains, words, table, bias, *xs)
        return jax.tree.map(jnp.add, carry, sums), (each, of_hidden)

    zeros = [
        jnp.zeros(x.shape, jnp.float32) if x is not None and on else None
        for x, on in zip((table, bias), trains[1:], strict=True)
    ]
    xs = tuple(blocks(x) for x in (hidden, labels, weights))
    if steps == 1:  # adds nothing to zeros as large as the table
        each, of_hidden, *sums = _block(loss, trains, words, table, bias, *(x[0] for x in xs))
        by_token = jax.tree.map(lambda x: x[None], (each, of_hidden))
    else:
        sums, by_token = jax.lax.scan(body, [jnp.float32(0), *zeros], xs)
    each, of_hidden = jax.tree.map(whole, by_token)
    total, of_table, of_bias = jax.tree.map(functools.partial(_joined, axes=rows), sums)
    of_table = None if of_table is None else of_table.astype(table.dtype)
    of_bias = None if bias is None or of_bias is None else of_bias.astype(bias.dtype)
    return total, each, (of_hidden, of_table, of_bias)


def _block(
    loss: _Loss,
    trains: Trains,
    words: str | tuple[str, ...],
    table: Float[Array, "words embed"],
    bias: Float[Array, " words"] | None,
    hidden: Float[Array, "block embed"],
    labels: Int[Array, " block"],
    weights: Float32[Array, " block"],
) -> tuple[Array, Array | None, Array, Array | None, Array | None]:
    """(loss of each token, gradient of hidden, total, gradients of table and bias) of a block."""
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    logits = product("td,vd->tv", hidden, table) * loss.scale
    if bias is not None:
        logits = logits + bias.astype(jnp.float32)
    if loss.softcap is not None:
        logits = soft_cap(logits, loss.softcap)
    first = (jax.lax.axis_index(words) if words else 0) * table.shape[0]
    label = jnp.arange(table.shape[0]) == labels[:, None] - first
    top = _joined(logits.max(-1), words, jax.lax.pmax)
    lse = jnp.log(_joined(jnp.exp(logits - top[:, None]).sum(-1), words)) + top
    spread = loss.label_smoothing / loss.vocab
    chosen = (1 - loss.label_smoothing) * jnp.where(label, logits, 0).sum(-1)
    chosen = chosen + spread * logits.sum(-1) if spread else chosen
    each = lse - _joined(chosen, words)
    each = each + loss.z_loss * lse**2 if loss.z_loss else each
    total = jnp.where(weights != 0, weights * each, 0).sum()

    step = jnp.exp(logits - lse[:, None])
    step = step * (1 + 2 * loss.z_loss * lse[:, None]) if loss.z_loss else step
    step = step - jnp.where(label, 1 - loss.label_smoothing, 0) - spread
    if loss.softcap is not None:
        step = step * (1 - (logits / loss.softcap) ** 2)
    step = jnp.where((weights != 0)[:, None], weights[:, None] * step, 0)
    of_bias = step.sum(0) if trains[2] else None
    step = (step * loss.scale).astype(table.dtype)
    of_hidden = of_table = None
    if trains[0]:
        of_hidden = _joined(product("tv,vd->td", step, table), words).astype(hidden.dtype)
    if trains[1]:
        of_table = product("tv,td->vd", step, hidden)
    return each, of_hidden, total, of_table, of_bias


def _joined(x: Array, axes: str | tuple[str, ...], by: Any = jax.lax.psum) -> Array:
    return by(x, axes) if axes else x
