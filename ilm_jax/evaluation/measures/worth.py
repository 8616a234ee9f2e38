"""The worth of a model's vectors: nll with another item's vectors, less nll with the item's own.

nll alone does not say it: soft tokens that are the same for every item already lower it, by the
task and the texts' style. Measured on the same texts and tokens, in nats per token; 0: what a
prompt says of its items is not used, below 0: it misleads.
"""

import collections
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from ilm_jax.data.examples.prompts import ITEM_SLOT, USER_SLOT
from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.streams.feed import Feed
from ilm_jax.metrics.texts import NOT_AVAILABLE

_KINDS = {ITEM_SLOT: "item", USER_SLOT: "user"}
NO_VECTORS = f"{NOT_AVAILABLE} (no prompt holds a vector of an item or a user)"
NO_OTHER = f"{NOT_AVAILABLE} (the prompts hold vectors of one item alone: there is no other)"


class Partners(NamedTuple):
    """For each row of the table, the row that takes its place.

    Attributes:
      rows: for each row of the embedding table another one, itself where it is in no prompt; None
        where nobody can stand in.
      reason: why that is.
    """

    rows: Int32[np.ndarray, " capacity"] | None
    reason: str = ""


def partners(feed: Feed, numbers: Int[np.ndarray, " chosen"], capacity: int) -> Partners:
    """Lets the items (and the users) of these examples trade places, by a fixed draw.

    Each stands for one other of its kind and catalogue, wherever it is in a prompt, so a history
    stays one. None is its own partner, but where it is alone of its kind.

    Args:
      feed: of prompts.
      numbers: of the examples.
      capacity: rows of the embedding table.
    """
    converter = feed.converter
    assert isinstance(converter, PromptConverter)
    found: dict[str, set[int]] = collections.defaultdict(set)
    for example in feed.examples(np.asarray(numbers)):
        if example is None or not len(example["slots"]):
            continue
        if (example["targets"] < 0).any():  # an answer that begins with an item
            found[f"{example['catalogue']}/item"].add(int(example["target_item"]))
        kinds = example["inputs"][example["inputs"] < 0]
        for kind, row in zip(kinds.tolist(), example["slots"].tolist(), strict=True):
            found[f"{example['catalogue']}/{_KINDS[kind]}"].add(row)
    if not found or converter.entity_rows is None:
        return Partners(None, NO_VECTORS)
    rows = np.arange(capacity, dtype=np.int32)
    for block in sorted(found):
        own = converter.entity_rows(block, np.array(sorted(found[block])))
        round_ = np.random.Generator(np.random.Philox(0)).permutation(own)
        rows[round_] = np.roll(round_, 1)
    if all(len(those) == 1 for those in found.values()):
        return Partners(None, NO_OTHER)
    return Partners(rows)
