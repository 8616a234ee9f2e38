"""int8 frozen weights: a trained model's perplexity hardly moves, at half of bfloat16's bytes."""

import jax
import numpy as np
import pytest

from ilm_jax.checkpoints import converting
from ilm_jax.checkpoints.checkpoints import InitFrom
from ilm_jax.checkpoints.loading import load_sources
from ilm_jax.data.sources import toy
from ilm_jax.data.tokenizers.own import OwnTokenizer
from ilm_jax.models.decoder import DecoderConfig
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.sharding.freezing import bytes_each, trainable_table
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import describe_variables, nested
from ilm_jax.training.optimizers import OptimizerConfig
from tests.training.test_stage_two_leaves_the_lm_alone import trainer

ROWS, LENGTH = 16, 48
ONE = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))
LM = dict(num_layers=2, embed_dim=64, num_heads=4, num_kv_heads=2, mlp_dim=160)


class Texts:
    """Rows of item texts of the toy world, each from its beginning."""

    def __init__(self, ids):
        self.ids = ids

    def rows(self, indices):
        tokens = np.stack([self.ids[int(i) % len(self.ids)] for i in indices])
        ones = np.ones_like(tokens)
        weights = (tokens[:, 1:] != 0).astype(np.float32)
        weights = np.pad(weights, ((0, 0), (0, 1)))
        return {
            "tokens": tokens,
            "targets": np.roll(tokens, -1, axis=1),
            "loss_weights": weights,
            "content_weights": weights,
            "segment_ids": (tokens != 0).astype(np.int32),
            "positions": ones.cumsum(1) - 1,
            "entities": ones[:, :1] * 0,
            "slot_entity": -ones,
            "slot_query": -ones,
        }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(bfloat16 checkpoint of a decoder trained on item texts, its configuration, other texts)."""
    folder = tmp_path_factory.mktemp("int8")
    texts = toy.make_world(0).texts[:320]
    tokenizer = OwnTokenizer.train(texts, vocab_size=512)
    ids = np.zeros((len(texts), LENGTH), np.int32)
    for row, text in zip(ids, texts, strict=True):
        found = [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id][:LENGTH]
        row[: len(found)] = found
    config = DecoderConfig(vocab_size=tokenizer.vocab_size, **LM)
    run = trainer(folder / "run", LanguageModelling(config), total_steps=120, batch_size=ROWS)
    run.sources = {"prompt": Texts(ids[64:])}
    run.optimizer = OptimizerConfig(learning_rate=0.01)
    run.partitioner = ONE
    run.fit()
    converting.to_frozen(str(folder / "run"), str(folder / "bf16"), "bfloat16")
    return folder / "bf16", config, Texts(ids[:64]).rows(np.arange(64))


def perplexity(trained, **changes):
    """(of unseen texts, loaded parameters)."""
    folder, config, batch = trained
    half = {"dtype": "bfloat16", "param_dtype": "bfloat16"}
    objective = LanguageModelling(DecoderConfig(**{**config.__dict__, **half, **changes}))
    variables = describe_variables(objective)
    sources = [InitFrom(str(folder))]
    params, _ = load_sources(objective, variables, sources, (), ONE, jax.random.key(0))
    sums = objective.loss(nested(params), "prompt", batch, np.zeros((1, 1), np.float32), None)
    return float(np.exp(sums["loss"].total / sums["loss"].weight)), params


@pytest.mark.slow
def test_perplexity_stays_within_one_percent_of_bfloat16(trained):
    half, before = perplexity(trained)
    small, after = perplexity(trained, quantized=True)
    vocabulary = trained[1].vocab_size
    assert half < 0.2 * vocabulary  # it has learnt something that rounding could spoil
    print(f"perplexity {half:.5f} in bfloat16, {small:.5f} in int8")
    assert abs(small / half - 1) < 0.01
    assert small != half
    kernels = {p: x for p, x in after.items() if p.endswith("kernel_int8")}
    assert kernels and all(x.dtype == np.int8 for x in kernels.values())
    assert not any(path.endswith("/kernel") for path in after)
    # The projections take one byte and their scales; embeddings and norms stay.
    scales = {p: x for p, x in after.items() if p.endswith("/scale") and x.dtype == np.float32}
    assert bytes_each(kernels | scales) < 1.1
    assert bytes_each(before) == 2.0
    assert trainable_table({}, after).splitlines()[-1].split()[-1] == f"{bytes_each(after):.2f}"
