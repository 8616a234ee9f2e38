"""`--gin_file=models/qformer_bert.gin --gin.BERT_FROM=FOLDER`: stage 1 starts from that BERT."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from ilm_jax.cf.ials import IALSConfig
from ilm_jax.checkpoints.loading import load_sources
from ilm_jax.checkpoints.published import families
from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.sources import toy
from ilm_jax.data.sources.prepare import catalogue_dir
from ilm_jax.errors import UserError
from ilm_jax.runs import gin_config
from ilm_jax.runs.fitting import fit_method
from ilm_jax.runs.run import Run
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import describe_variables
from tests.data.published_tokenizers import folder, published
from tests.data.small_catalogue import small_catalogue

WIDTH, LAYERS = 16, 3
SIZES = {"num_layers": 2, "num_queries": 2, "embed_dim": WIDTH, "num_heads": 2, "mlp_dim": 24}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A folder with a BERT tokenizer, config.json and random weights under the usual names."""
    root = tmp_path_factory.mktemp("bert") / "folder"
    shutil.copytree(folder() / "bert", root)
    config = {
        "model_type": "bert",
        "vocab_size": published("bert").vocab_size,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 64,
        "hidden_act": "gelu",
    }
    (root / "config.json").write_text(json.dumps(config))
    shapes = {
        "word_embeddings.weight": (config["vocab_size"], WIDTH),
        "position_embeddings.weight": (64, WIDTH),
        "token_type_embeddings.weight": (2, WIDTH),
    }
    rng, tensors = np.random.default_rng(0), {}
    for rule in families.find("bert").rules(families.find("bert").config(config)).values():
        wide = "intermediate" in rule.source
        out = 24 if wide else WIDTH
        ins = 24 if rule.source.endswith(".output.dense.weight") else WIDTH
        ins = WIDTH if "attention" in rule.source else ins
        shape = (out, ins) if rule.transposed else (out,)
        shape = shapes.get(rule.source.removeprefix("embeddings."), shape)
        for name in filter(None, (rule.source, rule.plus_row)):
            size = shapes.get(name.removeprefix("embeddings."), shape)
            tensors[name] = rng.normal(0, 0.1, size).astype(np.float32)
    save_file(tensors, root / "model.safetensors")
    return root


def load(run):
    """What the trainer does before its first step."""
    objective = run.sized_objective
    return load_sources(
        objective,
        describe_variables(objective),
        run.trainer.init,
        run.trainer.allow_fresh,
        Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1])),
        jax.random.key(0),
    )


@pytest.mark.slow
def test_the_recipe_starts_from_bert_with_its_tokenizer(bert, tmp_path):
    catalogue = small_catalogue(items=80, users=60)
    catalogue.save(catalogue_dir("toy", tmp_path / "cache"), {"builder": toy.VERSION})
    fit_method(make_splits(catalogue), IALSConfig(dim=4, epochs=1)).save(
        tmp_path / "cf.safetensors"
    )
    bindings = [
        f"BERT_FROM={bert}",
        f"CACHE_DIR={tmp_path / 'cache'}",
        "MODEL_DIR=/none",
        f"CF_TABLE={tmp_path / 'cf.safetensors'}",
        *[f"qformer.QFormerConfig.{name}={value}" for name, value in SIZES.items()],
    ]
    files = ["tiny/stage1.gin", "models/qformer_bert.gin"]
    with pytest.raises(UserError, match="qformer/text_head"):
        load(gin_config.build(Run, files, bindings))
    run = gin_config.build(Run, files, [*bindings, "FRESH_TOO=^qformer/text_head/"])
    assert run.tokenizer.fingerprint == published("bert").fingerprint
    words = published("bert").vocab_size
    assert run.sized_objective.qformer.dec_id == words
    params, report = load(run)
    assert params["qformer/text_embedding/token/embedding"].shape == (words + 1, WIDTH)
    assert f"from {bert}" in report
