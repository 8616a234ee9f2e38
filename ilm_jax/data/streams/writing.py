"""Fitted examples into the arrays of a batch, all rows at once."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from ilm_jax.data.examples.prompts import ITEM_SLOT
from ilm_jax.data.streams.fitting import Row
from ilm_jax.data.streams.local_rows import Entities, before

Batch = dict[str, np.ndarray]
Numbers = Int[np.ndarray, " rows"]


def write_inputs(
    batch: Batch, laid: Sequence[Row], *, opening: int, num_queries: int, pad: int
) -> tuple[Numbers, Entities]:
    """Writes tokens, slot_entity and slot_query of inputs, their slots widened.

    Args:
      batch: rows of padding.
      laid: what each row holds.
      opening: positions in front of them.
      num_queries: positions that a slot takes.
      pad: id that stands there.

    Returns:
      Positions that each row's inputs take, and their entities.
    """
    fitted = [row.fitted for row in laid]
    rows = np.repeat(np.arange(len(fitted)), [len(row.inputs) for row in fitted])
    inputs = _joined([row.inputs for row in fitted])
    is_slot = inputs < 0
    width = np.where(is_slot, num_queries, 1)
    number = before(is_slot, rows)  # of slots in front of a token in its row

    wide = np.repeat(np.arange(len(inputs)), width)  # the token that each position is of
    query = np.arange(len(wide)) - (np.cumsum(width) - width)[wide]
    at = rows[wide], opening + before(width, rows)[wide] + query
    batch["tokens"][at] = np.where(is_slot, pad, inputs)[wide]
    batch["slot_entity"][at] = np.where(is_slot, number, -1)[wide]
    batch["slot_query"][at] = np.where(is_slot[wide], query, -1)
    entities = Entities(
        rows[is_slot], number[is_slot], inputs[is_slot], _joined([row.slots for row in fitted])
    )
    return np.bincount(rows[wide], minlength=len(fitted)), entities


def write_answers(batch: Batch, laid: Sequence[Row], read: Numbers) -> Entities:
    """Writes an answer behind each row's inputs, and its labels one place in front of it.

    Args:
      batch: rows that hold their inputs.
      laid: what each row holds.
      read: places in front of the answers.

    Returns:
      The answers' entities.
    """
    answers = [row.answer for row in laid]
    length = np.array([len(answer.tokens) for answer in answers], int)
    slots = np.array([len(row.fitted.slots) for row in laid], int)
    rows = np.repeat(np.arange(len(laid)), length)
    tokens = _joined([answer.tokens for answer in answers])
    query = _joined([answer.query for answer in answers])
    content = _joined([answer.content for answer in answers])
    place = read[rows] + before(np.ones_like(rows), rows)
    # With nothing in front of a row's first token, nothing predicts it.
    label = place > 0
    at = rows[label], place[label] - 1
    batch["targets"][at] = tokens[label]
    batch["loss_weights"][at] = query[label] < 0
    batch["content_weights"][at] = content[label]
    shown = place < (read + length)[rows] - 1  # a row ends in front of its last label
    at = rows[shown], place[shown]
    batch["tokens"][at] = tokens[shown]
    batch["slot_query"][at] = query[shown]
    batch["slot_entity"][at] = np.where(query >= 0, slots[rows], -1)[shown]
    holding = np.flatnonzero([answer.slots for answer in answers])
    items = np.array([laid[int(row)].item for row in holding], int)
    return Entities(holding, slots[holding], np.full(len(holding), ITEM_SLOT), items)


def number_places(batch: Batch, ends: Numbers) -> None:
    """Writes positions and segment_ids of rows that end there."""
    places = np.arange(batch["tokens"].shape[1], dtype=np.int32)
    there = places < ends[:, None]
    batch["positions"] = np.where(there, places, 0)
    batch["segment_ids"] = there.astype(np.int32)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int32), *parts])
