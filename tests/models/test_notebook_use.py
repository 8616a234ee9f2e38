"""The model in a notebook: no gin, no trainer, no data pipeline."""

import numpy as np


def test_fifteen_lines_read_an_item():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from ilm_jax.models.decoder import Decoder, DecoderConfig
    from ilm_jax.models.ilm import ItemLanguageModel
    from ilm_jax.models.qformer import QFormerConfig
    from ilm_jax.models.readers import QFormerReader

    sizes = dict(vocab_size=100, num_layers=2, embed_dim=32, num_heads=4, mlp_dim=64)
    reader = QFormerReader(QFormerConfig(cf_dim=16, num_queries=2, **sizes))
    model = ItemLanguageModel(reader.build(32), Decoder(DecoderConfig(**sizes)))
    tokens = jnp.array([[7, 0, 0, 9]])  # "the <item> is", with two soft tokens for the item
    slot_entity, slot_query = jnp.array([[-1, 0, 0, -1]]), jnp.array([[-1, 0, 1, -1]])
    vectors = jax.random.normal(jax.random.key(0), (1, 1, 16))  # one item's CF vector
    batch = (tokens, jnp.arange(4)[None], tokens * 0 + 1, slot_entity, slot_query, vectors)
    params = nn.unbox(jax.jit(model.init)(jax.random.key(1), *batch))
    hidden = jax.jit(model.apply)(params, *batch)
    logits = model.apply(params, hidden, method="logits")

    assert logits.shape == (1, 4, 100) and np.isfinite(logits).all()
    assert set(params["params"]) == {"qformer", "adaptor", "lm"}
