"""Batches of prompts in the shapes that programs are compiled for."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int, Int32

from ilm_jax.decoding.config import Buckets
from ilm_jax.decoding.trie import Trie
from ilm_jax.errors import UserError

# NumPy's on the way in, JAX's inside of programs.
Values = Any
PAD_ROW = {
    "lengths": 1,
    "word_ids": -1,
    "slot_entity": -1,
    "slot_query": -1,
    "entities": -1,
    "excluded": -1,
}


class Prompts(NamedTuple):
    """Right-padded prompts; what is not there is None.

    Attributes:
      tokens: ids; anything valid at slots and behind the end.
      lengths: positions of each prompt.
      rows: number of each row, which its random draws depend on.
      slot_entity, slot_query, entities: as `PromptConverter.prompts` gives them.
      excluded, catalogue: as `beam_search` takes them.
      word_ids: as `PromptConverter.prompts` gives them.
    """

    tokens: Int32[Values, "batch length"]
    lengths: Int32[Values, " batch"]
    rows: Int32[Values, " batch"]
    slot_entity: Int32[Values, "batch length"] | None = None
    slot_query: Int32[Values, "batch length"] | None = None
    entities: Int32[Values, "batch entities"] | None = None
    excluded: Int32[Values, "batch excluded"] | None = None
    catalogue: Int32[Values, " batch"] | None = None
    word_ids: Int32[Values, "batch length"] | None = None


def align(batch: Mapping[str, np.ndarray | jax.Array]) -> Prompts:
    """Prompts with their padding, wherever it was, on the right.

    Args:
      batch: "tokens" [batch, length] and "lengths" [batch], or "mask" [batch, length] (1 at real
        tokens, which are neighbours); slots and "example_index" as `PromptConverter.prompts` gives
        them, if there are any.

    Raises:
      UserError: for a prompt without tokens.
    """
    arrays = {name: np.asarray(value) for name, value in batch.items()}
    tokens = arrays["tokens"]
    size, length = tokens.shape
    places = np.arange(length)
    if "lengths" in arrays:
        lengths, first = arrays["lengths"], np.zeros(size, np.int64)
    else:
        mask = arrays["mask"].astype(bool)
        lengths, first = mask.sum(axis=1), mask.argmax(axis=1)
    numbers = arrays.get("example_index", np.arange(size))
    empty = np.flatnonzero((lengths < 1) & (numbers >= 0))
    if len(empty):
        raise UserError(f"prompt {int(numbers[empty[0]])} has no tokens: give it at least one")
    index = np.minimum(places + first[:, None], length - 1)
    real = places < lengths[:, None]

    def shifted(name: str, fill: int) -> np.ndarray | None:
        """Rows from their first real position on, `fill` behind them."""
        if name not in arrays:
            return None
        moved = np.take_along_axis(arrays[name], index, axis=1)
        return np.where(real, moved, fill).astype(np.int32)

    moved = shifted("tokens", 0)
    assert moved is not None
    return Prompts(
        moved,
        np.maximum(lengths, 1).astype(np.int32),
        numbers.astype(np.int32),
        shifted("slot_entity", -1),
        shifted("slot_query", -1),
        arrays["entities"].astype(np.int32) if "entities" in arrays else None,
        word_ids=shifted("word_ids", -1),
    )


def pieces(
    prompts: Prompts,
    buckets: Buckets,
    excluded: Int[np.ndarray, "batch excluded"] | None = None,
    catalogue: Int[np.ndarray, " batch"] | None = None,
) -> Iterator[Prompts]:
    """The prompts in batches of the buckets' shapes, the last one filled up.

    Raises:
      UserError: for a prompt that is longer than all buckets.
    """
    longest = int(prompts.lengths.max(initial=1))
    width = buckets.length(longest)

    def fitted(array: Values) -> Values:
        """The array padded or cut to the bucket's length: 0 for tokens, else -1."""
        if array is None:
            return None
        room = max(0, width - array.shape[1])
        fill = -1 if array is not prompts.tokens else 0
        return np.pad(array, ((0, 0), (0, room)), constant_values=fill)[:, :width]

    if excluded is not None:
        # Its width is a shape too; powers of two are few.
        width_of = max(8, 1 << (max(1, excluded.shape[1]) - 1).bit_length())
        room = ((0, 0), (0, width_of - excluded.shape[1]))
        excluded = np.pad(excluded, room, constant_values=-1).astype(np.int32)
    prompts = prompts._replace(
        tokens=fitted(prompts.tokens),
        slot_entity=fitted(prompts.slot_entity),
        slot_query=fitted(prompts.slot_query),
        word_ids=fitted(prompts.word_ids),
        excluded=excluded,
        catalogue=None if catalogue is None else np.asarray(catalogue, np.int32),
    )
    size = buckets.batch(len(prompts.lengths))
    for start in range(0, len(prompts.lengths), size):
        yield _filled(prompts, slice(start, start + size), size)


def _filled(prompts: Prompts, rows: slice, size: int) -> Prompts:
    def one(name: str, array: Values) -> Values:
        """The chosen rows, filled up to `size` with rows of padding."""
        if array is None:
            return None
        array = array[rows]
        room = ((0, size - len(array)), *((0, 0),) * (array.ndim - 1))
        return np.pad(array, room, constant_values=PAD_ROW.get(name, 0))

    return Prompts(**{name: one(name, value) for name, value in prompts._asdict().items()})


def exclusions(histories: Sequence[Int[np.ndarray, " history"]]) -> Int32[np.ndarray, "batch most"]:
    """Item rows of every history side by side, -1 behind them."""
    most = max((len(history) for history in histories), default=0)
    table = np.full((len(histories), max(1, most)), -1, np.int32)
    for row, history in enumerate(histories):
        table[row, : len(history)] = history
    return table


def check_rows(
    trie: Trie,
    excluded: Int[np.ndarray, "batch excluded"] | None,
    catalogue: Int[np.ndarray, " batch"] | int | None,
) -> None:
    """Raises UserError for a catalogue that the trie lacks, or an excluded item that it lacks.

    Inside a program both would be passed over.
    """
    which = np.asarray(0 if catalogue is None else catalogue)
    wrong = which[(which < 0) | (which >= len(trie.items))]
    if wrong.size:
        last = len(trie.items) - 1
        raise UserError(f"catalogue {wrong.flat[0]}: the trie has catalogues 0 to {last}")
    if excluded is not None:
        limits = np.broadcast_to(np.asarray(trie.items)[which], len(excluded))
        beyond = np.argwhere(excluded >= limits[:, None])
        if len(beyond):
            row, column = beyond[0]
            raise UserError(
                f"prompt {row} excludes item row {excluded[row, column]}: its catalogue has "
                f"{limits[row]} items"
            )
