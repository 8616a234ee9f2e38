"""A block of tokens of `vocabulary_loss`: its logits, losses and gradients, on one device.

The formulas are in that module's header.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from ilm_jax.models.attention import soft_cap
from ilm_jax.models.output_layer import NEVER
from ilm_jax.models.platforms import platform
from ilm_jax.models.products import column_sums

Axes = str | tuple[str, ...]
# Which of hidden states, table, bias and the words beside the table train.
Trains = tuple[bool, ...]

_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


@dataclasses.dataclass(frozen=True)
class Terms:
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


class Part(NamedTuple):
    """Some words of a block.

    Attributes:
      logits: of each token.
      label: index of each token's label among these words; outside of them if it is none.
      axes: of the mesh, which share the words.
      gaps: whether some logits are NEVER, because their words are beside the table.
    """

    logits: Float32[Array, "block words"]
    label: Int[Array, " block"]
    axes: Axes
    gaps: bool


def block_loss(
    terms: Terms,
    trains: Trains,
    words: Axes,
    held: tuple[Array, Array | None, Array | None],
    hidden: Float[Array, "block embed"],
    labels: Int[Array, " block"],
    weights: Float32[Array, " block"],
) -> tuple[Array, Array | None, Array, Array | None, Array | None, Array | None]:
    """(loss of each token, gradient of hidden, total, gradients of what is held) of a block."""
    table, _, new = held
    parts = _parts(terms, words, held, hidden, labels)
    each, lse = _values(terms, parts)
    total = jnp.where(weights != 0, weights * each, 0).sum()
    steps = [_step(terms, part, lse, weights) for part in parts]
    of_bias = column_sums(steps[0]) if trains[2] else None
    steps = [(step * terms.scale).astype(table.dtype) for step in steps]
    of_hidden = of_table = of_new = None
    if trains[0]:
        of_hidden = joined(_product("tv,vd->td", steps[0], table), words)
        if new is not None:
            of_hidden = of_hidden + _product("tv,vd->td", steps[1], new)
        of_hidden = of_hidden.astype(hidden.dtype)
    if trains[1]:
        of_table = _product("tv,td->vd", steps[0], hidden)
    if trains[3]:
        of_new = _product("tv,td->vd", steps[1], hidden)
    return each, of_hidden, total, of_table, of_bias, of_new


def _parts(
    terms: Terms,
    words: Axes,
    held: tuple[Array, Array | None, Array | None],
    hidden: Float[Array, "block embed"],
    labels: Int[Array, " block"],
) -> list[Part]:
    """The device's words of the table, and those beside it, if there are any."""
    table, bias, new = held
    logits = _product("td,vd->tv", hidden, table) * terms.scale
    if bias is not None:
        logits = logits + bias.astype(jnp.float32)
    if terms.softcap is not None:
        logits = soft_cap(logits, terms.softcap)
    first = (jax.lax.axis_index(words) if words else 0) * table.shape[0]
    if new is None:
        return [Part(logits, labels - first, words, False)]
    place = jnp.arange(table.shape[0]) + first - terms.first
    logits = jnp.where((place >= 0) & (place < new.shape[0]), NEVER, logits)
    said = labels - terms.first
    is_new = (said >= 0) & (said < new.shape[0])
    beside = _product("td,vd->tv", hidden, new) * terms.scale
    if terms.softcap is not None:
        beside = soft_cap(beside, terms.softcap)
    label = jnp.where(is_new, -1, labels - first)
    return [Part(logits, label, words, True), Part(beside, said, (), False)]


def _values(terms: Terms, parts: list[Part]) -> tuple[Array, Array]:
    """(loss, log of the sum of the exponentials) of each token."""
    spread = terms.label_smoothing / terms.words

    def said(part: Part) -> Array:
        """What the loss is smaller by, of some words."""
        chosen = (1 - terms.label_smoothing) * _at_label(part)
        if not spread:
            return chosen
        logits = jnp.where(part.logits == NEVER, 0, part.logits) if part.gaps else part.logits
        return chosen + spread * logits.sum(-1)

    tops = [joined(part.logits.max(-1), part.axes, jax.lax.pmax) for part in parts]
    top = functools.reduce(jnp.maximum, tops)
    sums = [joined(jnp.exp(part.logits - top[:, None]).sum(-1), part.axes) for part in parts]
    lse = jnp.log(functools.reduce(jnp.add, sums)) + top
    chosen = [joined(said(part), part.axes) for part in parts]
    each = lse - functools.reduce(jnp.add, chosen)
    return each + terms.z_loss * lse**2 if terms.z_loss else each, lse


def _at_label(part: Part) -> Float32[Array, " block"]:
    """The logit of each token's label; 0 where that is none of the words."""
    logits, words = part.logits, part.logits.shape[1]
    if platform() != "cpu":  # the gather below is measured on CPUs alone
        return jnp.where(_is_label(part), logits, 0).sum(-1)
    found = jnp.take_along_axis(logits, part.label[:, None], axis=1, mode="clip")[:, 0]
    return jnp.where((part.label >= 0) & (part.label < words), found, 0)


def _is_label(part: Part) -> Bool[Array, "block words"]:
    """True at each token's label."""
    return jnp.arange(part.logits.shape[1]) == part.label[:, None]


def _step(terms: Terms, part: Part, lse: Array, weights: Array) -> Array:
    """Gradient of the weighted losses with respect to a part's inner products and bias."""
    logits = part.logits
    step = jnp.exp(logits - lse[:, None])
    step = step * (1 + 2 * terms.z_loss * lse[:, None]) if terms.z_loss else step
    step = step - jnp.where(_is_label(part), 1 - terms.label_smoothing, 0)
    if terms.label_smoothing:
        spread = terms.label_smoothing / terms.words
        step = step - (jnp.where(logits == NEVER, 0, spread) if part.gaps else spread)
    if terms.softcap is not None:
        step = step * (1 - (logits / terms.softcap) ** 2)
    return jnp.where((weights != 0)[:, None], weights[:, None] * step, 0)


def joined(
    x: Array,
    axes: Axes,
    by: Callable[[Array, Axes], Array] = jax.lax.psum,
) -> Array:
    """`x` brought together over these axes of the mesh; itself where there are none."""
    return by(x, axes) if axes else x
