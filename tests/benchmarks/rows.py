"""Full rows of prompts for benchmarks of steps: soft tokens first, then words, targets in a run."""

import numpy as np


def prompt_rows(
    rows: int,
    length: int,
    told: slice,
    vocab: int,
    *,
    entities: int,
    slots: int = 0,
    queries: int = 1,
) -> dict[str, np.ndarray]:
    """A batch of random tokens, as `PromptConverter` lays one out.

    Args:
      rows, length: of the batch.
      told: places whose next token is a target.
      vocab: ids to draw from.
      entities: rows of the table to draw from.
      slots, queries: items at the row's start, and soft tokens of each.
    """
    rng, at = np.random.default_rng(0), np.arange(length)
    whole, slot = np.ones((rows, 1), np.int32), at < slots * queries
    weights = np.zeros((rows, length), np.float32)
    weights[:, told] = 1
    ids = rng.integers(6, vocab, (2, rows, length)).astype(np.int32)
    return {
        "tokens": ids[0],
        "targets": ids[1],
        "loss_weights": weights,
        "content_weights": weights,
        "positions": at.astype(np.int32) * whole,
        "segment_ids": np.ones_like(ids[0]),
        "entities": rng.integers(0, entities, (rows, max(1, slots))).astype(np.int32),
        "slot_entity": np.where(slot, at // queries, -1).astype(np.int32) * whole,
        "slot_query": np.where(slot, at % queries, -1).astype(np.int32) * whole,
    }
