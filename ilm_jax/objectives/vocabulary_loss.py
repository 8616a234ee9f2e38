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

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Float32, Int, PyTree

from ilm_jax.models.attention import soft_cap
from ilm_jax.models.layers import constrain, mesh_spec, readout_rows
from ilm_jax.models.output_layer import NEVER, OutputLayer

# Of the logits that a device holds at once.
BLOCK_BYTES = 64 * 2**20

_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)

# Of hidden states, table, bias and the words beside the table.
Trains = tuple[bool, ...]
Gradients = tuple[Array | None, Array | None, Array | None, Array | None]
Axes = str | tuple[str, ...]
# Logits of some words, True at each token's label, and the axes of the mesh that share the words.
Part = tuple[Array, Array, Axes]


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
    """What is known when a program is traced.

    `vocab` is of the table; the words beside it have ids from `first` on, and all words that can
    be said are `words`.
    """

    vocab: int
    words: int
    first: int
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
    vocab, new = output.table.shape[0], output.new
    words = vocab
    if new is not None:  # in the place of what the table has under their ids
        first, behind = output.first, output.first + new.shape[0]
        words = min(vocab, first) + new.shape[0] + max(0, vocab - behind)
    how = (output.scale, output.softcap, label_smoothing, z_loss, block)
    loss = _Loss(vocab, words, output.first, *how)
    dtype = jnp.dtype(output.dtype)
    hidden = constrain(hidden.astype(dtype), readout_rows(labels.size, vocab), "length", None)
    table = output.table.astype(dtype)
    new = None if new is None else new.astype(dtype)
    weights = jax.lax.stop_gradient(weights.astype(jnp.float32))
    total, each = _losses(loss, hidden, table, output.bias, new, labels, weights)
    return TokenLosses(total, constrain(each, "batch", "length"))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _losses(
    loss: _Loss,
    hidden: Array,
    table: Array,
    bias: Array | None,
    new: Array | None,
    labels: Array,
    weights: Array,
) -> tuple[Array, Array]:
    nothing = (False, False, False, False)
    total, each, _ = _on_mesh(loss, nothing, hidden, table, bias, new, labels, weights)
    return total, each


def _forward(
    loss: _Loss, *leaves: CustomVJPPrimal | None
) -> tuple[tuple[Array, Array], tuple[Gradients, PyTree[Array]]]:
    values: PyTree[Array] = tuple(None if leaf is None else leaf.value for leaf in leaves)
    trains = tuple(leaf is not None and leaf.perturbed for leaf in leaves[:4])
    total, each, gradients = _on_mesh(loss, trains, *values)
    return (total, each), (gradients, values)


def _backward(
    loss: _Loss,
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
        more = _on_mesh(loss, trains, hidden, table, bias, new, labels, of_each)[2]
        found = jax.tree.map(jnp.add, found, more)
    return (*found, None, None)


_losses.defvjp(_forward, _backward, symbolic_zeros=True)


def _on_mesh(
    loss: _Loss,
    trains: Trains,
    hidden: Array,
    table: Array,
    bias: Array | None,
    new: Array | None,
    labels: Array,
    weights: Array,
) -> tuple[Array, Array, Gradients]:
    """(total, loss of each token, gradients of the total where they are wanted)."""
    name = readout_rows(labels.size, loss.vocab)
    spec = mesh_spec((labels.shape[0], loss.vocab), (name, "vocab"))
    if spec is None:
        return _walk(loss, trains, (), (), hidden, table, bias, new, labels, weights)
    rows, words = (() if axes is None else axes for axes in spec)
    row, word, whole = PartitionSpec(rows or None), PartitionSpec(words or None), PartitionSpec()
    parts = (row, word, word, whole)
    wanted = tuple(part if on else None for part, on in zip(parts, trains, strict=True))
    return jax.shard_map(
        functools.partial(_walk, loss, trains, rows, words),
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
    loss: _Loss,
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
    most = loss.block or max(1, BLOCK_BYTES // (4 * width))
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
        each, of_hidden, *sums = _block(loss, trains, words, held, *xs)
        return jax.tree.map(jnp.add, carry, sums), (each, of_hidden)

    zeros = [
        jnp.zeros(x.shape, jnp.float32) if x is not None and on else None
        for x, on in zip(held, trains[1:], strict=True)
    ]
    xs = tuple(blocks(x) for x in (hidden, labels, weights))
    if steps == 1:  # adds nothing to zeros as large as the table
        each, of_hidden, *sums = _block(loss, trains, words, held, *(x[0] for x in xs))
        by_token = jax.tree.map(lambda x: x[None], (each, of_hidden))
    else:
        sums, by_token = jax.lax.scan(body, [jnp.float32(0), *zeros], xs)
    each, of_hidden = jax.tree.map(whole, by_token)
    total, *found = jax.tree.map(functools.partial(_joined, axes=rows), sums)
    of_table, of_bias, of_new = (
        None if x is None or of is None else of.astype(x.dtype)
        for x, of in zip(held, found, strict=True)
    )
    return total, each, (of_hidden, of_table, of_bias, of_new)


def _block(
    loss: _Loss,
    trains: Trains,
    words: Axes,
    held: tuple[Array, Array | None, Array | None],
    hidden: Float[Array, "block embed"],
    labels: Int[Array, " block"],
    weights: Float32[Array, " block"],
) -> tuple[Array, Array | None, Array, Array | None, Array | None, Array | None]:
    """(loss of each token, gradient of hidden, total, gradients of what is held) of a block."""
    table, _, new = held
    parts = _parts(loss, words, held, hidden, labels)
    each, lse = _values(loss, parts)
    total = jnp.where(weights != 0, weights * each, 0).sum()
    steps = [_step(loss, part, lse, weights) for part in parts]
    of_bias = steps[0].sum(0) if trains[2] else None
    steps = [(step * loss.scale).astype(table.dtype) for step in steps]
    of_hidden = of_table = of_new = None
    if trains[0]:
        of_hidden = _joined(_product("tv,vd->td", steps[0], table), words)
        if new is not None:
            of_hidden = of_hidden + _product("tv,vd->td", steps[1], new)
        of_hidden = of_hidden.astype(hidden.dtype)
    if trains[1]:
        of_table = _product("tv,td->vd", steps[0], hidden)
    if trains[3]:
        of_new = _product("tv,td->vd", steps[1], hidden)
    return each, of_hidden, total, of_table, of_bias, of_new


def _parts(
    loss: _Loss,
    words: Axes,
    held: tuple[Array, Array | None, Array | None],
    hidden: Float[Array, "block embed"],
    labels: Int[Array, " block"],
) -> list[Part]:
    """The device's words of the table, and those beside it, if there are any."""
    table, bias, new = held
    logits = _product("td,vd->tv", hidden, table) * loss.scale
    if bias is not None:
        logits = logits + bias.astype(jnp.float32)
    if loss.softcap is not None:
        logits = soft_cap(logits, loss.softcap)
    first = (jax.lax.axis_index(words) if words else 0) * table.shape[0]
    label = jnp.arange(table.shape[0]) == labels[:, None] - first
    if new is None:
        return [(logits, label, words)]
    place = jnp.arange(table.shape[0]) + first - loss.first
    hidden_word = (place >= 0) & (place < new.shape[0])
    logits, label = jnp.where(hidden_word, NEVER, logits), label & ~hidden_word
    beside = _product("td,vd->tv", hidden, new) * loss.scale
    if loss.softcap is not None:
        beside = soft_cap(beside, loss.softcap)
    said = jnp.arange(new.shape[0]) == labels[:, None] - loss.first
    return [(logits, label, words), (beside, said, ())]


def _values(loss: _Loss, parts: list[Part]) -> tuple[Array, Array]:
    """(loss, log of the sum of the exponentials) of each token."""
    spread = loss.label_smoothing / loss.words

    def said(logits: Array, label: Array) -> Array:
        """What the loss is smaller by, of some words."""
        chosen = (1 - loss.label_smoothing) * jnp.where(label, logits, 0).sum(-1)
        if not spread:
            return chosen
        return chosen + spread * jnp.where(logits == NEVER, 0, logits).sum(-1)

    tops = [_joined(logits.max(-1), words, jax.lax.pmax) for logits, _, words in parts]
    top = functools.reduce(jnp.maximum, tops)
    sums = [_joined(jnp.exp(logits - top[:, None]).sum(-1), words) for logits, _, words in parts]
    lse = jnp.log(functools.reduce(jnp.add, sums)) + top
    chosen = [_joined(said(logits, label), words) for logits, label, words in parts]
    each = lse - functools.reduce(jnp.add, chosen)
    return each + loss.z_loss * lse**2 if loss.z_loss else each, lse


def _step(loss: _Loss, part: Part, lse: Array, weights: Array) -> Array:
    """Gradient of the weighted losses with respect to a part's inner products and bias."""
    logits, label, _ = part
    step = jnp.exp(logits - lse[:, None])
    step = step * (1 + 2 * loss.z_loss * lse[:, None]) if loss.z_loss else step
    step = step - jnp.where(label, 1 - loss.label_smoothing, 0)
    if loss.label_smoothing:
        step = step - jnp.where(logits == NEVER, 0, loss.label_smoothing / loss.words)
    if loss.softcap is not None:
        step = step * (1 - (logits / loss.softcap) ** 2)
    return jnp.where((weights != 0)[:, None], weights[:, None] * step, 0)


def _joined(
    x: Array,
    axes: str | tuple[str, ...],
    by: Callable[[Array, str | tuple[str, ...]], Array] = jax.lax.psum,
) -> Array:
    return by(x, axes) if axes else x
