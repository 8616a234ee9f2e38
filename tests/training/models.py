"""Small real objectives with random batches, for tests of steps and meshes."""

import numpy as np

from ilm_jax.models.decoder import DecoderConfig
from ilm_jax.models.qformer import QFormerConfig
from ilm_jax.models.readers import QFormerReader
from ilm_jax.objectives.alignment import Alignment
from ilm_jax.objectives.language import LanguageModelling

CF, VOCAB, ROWS, LENGTH, ENTITIES, ITEMS, TEXT = 16, 64, 16, 24, 3, 40, 12

QFORMER = QFormerConfig(
    cf_dim=CF,
    vocab_size=VOCAB,
    num_layers=2,
    num_queries=4,
    embed_dim=32,
    num_heads=4,
    mlp_dim=64,
    max_text_length=TEXT,
    projection_dim=16,
    dropout=0.0,
)
LM = DecoderConfig(
    vocab_size=VOCAB, num_layers=2, embed_dim=32, num_heads=4, num_kv_heads=2, mlp_dim=64
)
ALIGNMENT = Alignment(QFORMER)
READER = QFormerReader(QFORMER)
ILM = LanguageModelling(LM, READER)
TEXT_ONLY = LanguageModelling(LM)


def table():
    """CF vectors of 40 entities."""
    return np.random.default_rng(0).normal(size=(ITEMS, CF)).astype(np.float32)


def prompt_batch(seed=0, slots=True):
    """Rows of two slots, a prompt and six target tokens."""
    rng = np.random.default_rng(seed)
    at = np.arange(LENGTH)
    rows = np.ones((ROWS, 1), np.int32)
    in_slot = (at < 2 * QFORMER.num_queries) & slots
    return {
        "tokens": np.where(in_slot, 0, rng.integers(6, VOCAB, (ROWS, LENGTH))).astype(np.int32),
        "targets": rng.integers(6, VOCAB, (ROWS, LENGTH)).astype(np.int32),
        "loss_weights": ((at >= 17) & (at < 23)).astype(np.float32) * rows,
        "content_weights": ((at >= 19) & (at < 22)).astype(np.float32) * rows,
        "positions": (at * rows).astype(np.int32),
        "segment_ids": ((at < 23) * rows).astype(np.int32),
        "entities": rng.integers(0, ITEMS, (ROWS, ENTITIES)).astype(np.int32),
        "slot_entity": np.where(in_slot, at // QFORMER.num_queries, -1).astype(np.int32) * rows,
        "slot_query": np.where(in_slot, at % QFORMER.num_queries, -1).astype(np.int32) * rows,
    }


def alignment_batch(kind, seed=0):
    """Rows of a vector with a text, or of two vectors; some ids occur twice."""
    rng = np.random.default_rng(seed)
    batch = {"entities": rng.integers(0, ITEMS, ROWS).astype(np.int32)}
    if kind == "item_text":
        text = rng.integers(6, VOCAB, (ROWS, TEXT)).astype(np.int32)
        text[:, 0] = 4
        text[: ROWS // 2, TEXT // 2 :] = 0
        return {**batch, "text": text}
    return {**batch, "others": rng.integers(0, ITEMS, ROWS).astype(np.int32)}
