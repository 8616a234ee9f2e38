"""Slips in the networks: masks, positions, scales, norms."""

from tests.planted import Fault

_QFORMER = "tests/models/test_qformer.py"
_ATTENTION = "tests/models/test_attention.py"
_DECODER = "tests/models/test_decoder.py"
_T5 = "tests/models/test_t5.py"
_LAYERS = "tests/models/test_layers.py"
_WORDS = "tests/models/test_t5_words_and_dropout.py"
_ENCODERS = "tests/models/test_sequential_encoders.py"

FAULTS = (
    Fault(
        "a frozen weight costs the product of its gradient",
        "ilm_jax/models/products.py",
        "x.value if weight.perturbed else None",
        "x.value",
        "tests/models/test_products.py",
    ),
    Fault(
        "a caption sees its next token",
        "ilm_jax/models/qformer.py",
        "(column < count) | (column <= row)",
        "(column < count) | (column <= row + 1)",
        f"{_QFORMER} -k captions",
    ),
    Fault(
        "queries read the caption",
        "ilm_jax/models/qformer.py",
        "(column < count) | (column <= row)",
        "(column < count) | (column <= row) | (row < count)",
        f"{_QFORMER} -k captions",
    ),
    Fault(
        "contrastive texts see the queries",
        "ilm_jax/models/qformer.py",
        " & (is_query[:, None] == is_query)",
        "",
        f"{_QFORMER} -k features",
    ),
    Fault(
        "queries read padding",
        "ilm_jax/models/qformer.py",
        "(text != self.config.pad_id)",
        "(text != -1)",
        f"{_QFORMER} -k padding",
    ),
    Fault(
        "matching adds the queries up",
        "ilm_jax/models/qformer.py",
        "jnp.mean(self.match_head(queries).astype(jnp.float32), axis=-2)",
        "jnp.sum(self.match_head(queries).astype(jnp.float32), axis=-2)",
        "tests/parity/test_qformer.py tests/models/test_qformer.py -k 'match'",
    ),
    Fault(
        "temperatures of all kinds are one",
        "ilm_jax/models/qformer_layers.py",
        "jnp.exp(logs[kind])",
        'jnp.exp(logs["item_text"])',
        f"{_QFORMER} -k temperature",
    ),
    Fault(
        "cross-attention in the odd layers",
        "ilm_jax/models/qformer_layers.py",
        "QFormerLayer(self.config, j == 0,",
        "QFormerLayer(self.config, j == 1,",
        "tests/parity/test_qformer.py",
    ),
    Fault(
        "scores are divided by the width itself",
        "ilm_jax/models/attention.py",
        "(dim**-0.5 if scale is None",
        "(dim**-1.0 if scale is None",
        _ATTENTION,
    ),
    Fault(
        "heads of a group are apart",
        "ilm_jax/models/attention.py",
        "query.reshape(batch, length, kv_heads, heads // kv_heads, dim)",
        "query.reshape(batch, length, heads // kv_heads, kv_heads, dim).swapaxes(2, 3)",
        _ATTENTION,
    ),
    Fault(
        "scores are made in the queries' type",
        "ilm_jax/models/attention.py",
        "grouped, key, preferred_element_type=jnp.float32)",
        "grouped, key)",
        f"{_DECODER} -k float32",
    ),
    Fault(
        "a window sees one token more",
        "ilm_jax/models/attention.py",
        "jnp.ones((length, length), bool), 1 - window)",
        "jnp.ones((length, length), bool), -window)",
        f"{_DECODER} -k window",
    ),
    Fault(
        "a cached window sees one token more",
        "ilm_jax/models/attention.py",
        "keys[:, None, :] < window",
        "keys[:, None, :] <= window",
        f"{_DECODER} -k 'ragged or continuations'",
    ),
    Fault(
        "packed examples see each other",
        "ilm_jax/models/attention.py",
        "causal[None] & (segment_ids[:, :, None] == segment_ids[:, None, :])",
        "causal[None] & (segment_ids[:, :, None] > 0)",
        f"{_DECODER} -k packed",
    ),
    Fault(
        "rotary wavelengths go by the whole width",
        "ilm_jax/models/rope.py",
        "jnp.arange(half, dtype=jnp.float32) / half)",
        "jnp.arange(half, dtype=jnp.float32) / (2 * half))",
        "tests/parity/test_decoders.py tests/models/test_attention.py",
    ),
    Fault(
        "Llama 3's fast and slow frequencies change places",
        "ilm_jax/models/rope.py",
        "share * frequencies + (1 - share) * slow",
        "share * slow + (1 - share) * frequencies",
        "tests/parity/test_decoders.py",
    ),
    Fault(
        "words are not scaled where soft tokens are not",
        "ilm_jax/models/decoder.py",
        "if self.config.scale_embeddings:",
        "if not self.config.scale_embeddings:",
        "tests/parity/test_decoders.py",
    ),
    Fault(
        "the encoder reads the targets",
        "ilm_jax/models/t5.py",
        "inputs = embeddings, segment_ids, real & ~told",
        "inputs = embeddings, segment_ids, real",
        f"{_T5} -k targets",
    ),
    Fault(
        "the encoder's places leave out the last input",
        "ilm_jax/data/streams/converters.py",
        "np.arange(self.inputs_length + 1, dtype=np.int32), (rows",
        "np.arange(self.inputs_length - 1, dtype=np.int32), (rows",
        "tests/data/test_converters.py -k encoder",
    ),
    Fault(
        "a position counts as ahead of itself",
        "ilm_jax/models/t5_positions.py",
        "count * (ahead > 0)",
        "count * (ahead >= 0)",
        "tests/parity/test_t5.py",
    ),
    Fault(
        "the decoder's distances look ahead",
        "ilm_jax/models/t5_positions.py",
        "jnp.maximum(-ahead, 0)",
        "jnp.maximum(ahead, 0)",
        "tests/parity/test_t5.py",
    ),
    Fault(
        "the last far bucket is missing",
        "ilm_jax/models/t5_positions.py",
        "np.minimum(far, buckets - 1)",
        "np.minimum(far, buckets - 2)",
        f"{_T5} -k buckets",
    ),
    Fault(
        "tied T5 logits are not scaled",
        "ilm_jax/models/t5.py",
        "token_subset) * self.config.embed_dim**-0.5",
        "token_subset)",
        "tests/parity/test_t5.py",
    ),
    Fault(
        "epsilon outside of the root",
        "ilm_jax/models/layers.py",
        "x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.epsilon)\n"
        "        scale = scale.astype",
        "x = x / (jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True)) + self.epsilon)\n"
        "        scale = scale.astype",
        _LAYERS,
    ),
    Fault(
        "LayerNorm divides by n - 1",
        "ilm_jax/models/layers.py",
        "x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.epsilon)\n"
        "        x = x * scale",
        "x = x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) / (x.shape[-1] - 1)"
        " + self.epsilon)\n        x = x * scale",
        _LAYERS,
    ),
    Fault(
        "LoRA is not divided by its rank",
        "ilm_jax/models/layers.py",
        "y = y + update * (self.lora_alpha / self.lora_rank)",
        "y = y + update * self.lora_alpha",
        f"{_LAYERS} -k lora",
    ),
    Fault(
        "dropout does not scale what it keeps",
        "ilm_jax/models/dropout.py",
        "x / jnp.asarray(1 - self.rate, x.dtype)",
        "x",
        "tests/models/test_dropout.py",
    ),
    Fault(
        "the first entity's slot holds a word",
        "ilm_jax/models/ilm.py",
        "jnp.where((slot_entity >= 0)[..., None], placed, words)",
        "jnp.where((slot_entity > 0)[..., None], placed, words)",
        "tests/models/test_ilm.py",
    ),
    Fault(
        "soft tokens are laid out queries first",
        "ilm_jax/models/ilm.py",
        "jnp.maximum(slot_entity, 0) * queries + jnp.maximum(slot_query, 0)",
        "jnp.maximum(slot_query, 0) * soft.shape[1] // queries + jnp.maximum(slot_entity, 0)",
        "tests/models/test_ilm.py",
    ),
    Fault(
        "an absent entity is the table's first row",
        "ilm_jax/models/ilm.py",
        "jnp.where((entities >= 0)[..., None], rows, 0)",
        "rows",
        "tests/models/test_ilm.py",
    ),
    Fault(
        "sequences of a row read each other",
        "ilm_jax/models/sasrec.py",
        "causal_attention(query, key, value, segment_ids,",
        "causal_attention(query, key, value, 0 * segment_ids + 1,",
        f"{_ENCODERS} -k shares_the_row",
    ),
    Fault(
        "a state runs into the next sequence",
        "ilm_jax/models/gru4rec.py",
        "(positions == 0) | (segment_ids == 0)",
        "segment_ids == 0",
        f"{_ENCODERS} -k shares_the_row",
    ),
    Fault(
        "what the decoder is given has words too",
        "ilm_jax/models/t5.py",
        "jnp.where((word_ids >= 0)[..., None], words, 0)",
        "words",
        f"{_WORDS} -k vectors_of_words",
    ),
    Fault(
        "the end of a prompt is of no word",
        "ilm_jax/models/t5.py",
        "self.with_words(end, jnp.zeros((1, 1), jnp.int32))",
        "end",
        f"{_WORDS} -k vectors_of_words",
    ),
    Fault(
        "the feed-forward's update is not dropped",
        "ilm_jax/models/t5_layers.py",
        'drop(T5MLP(cfg, off, name="mlp")(normed), off)',
        'T5MLP(cfg, off, name="mlp")(normed)',
        f"{_WORDS} -k where_t5_has_it",
    ),
    Fault(
        "every number below the largest piece is drawn anew",
        "ilm_jax/models/number_rows.py",
        "table.at[jnp.array(self.ids, jnp.int32)]",
        "table.at[jnp.arange(len(self.ids))]",
        "tests/training/test_openp5.py -k alone",
    ),
)
