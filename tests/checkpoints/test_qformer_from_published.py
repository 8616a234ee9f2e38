"""Stage 1 starts from a folder of BERT or BLIP-2, on a mesh, through the recipe's own words."""

import dataclasses
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ilm_jax.checkpoints.checkpoints import InitFrom
from ilm_jax.checkpoints.loading import load_sources
from ilm_jax.checkpoints.published.families.qformer import (
    FRESH_AFTER_BERT,
    FRESH_AFTER_BLIP2,
    blip2_qformer,
)
from ilm_jax.errors import UserError
from ilm_jax.models.qformer import QFormerConfig
from ilm_jax.objectives.alignment import Alignment
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import describe_variables
from tests.parity.folder import GOLDENS

BERT = GOLDENS / "bert_masked_lm"
BLIP2 = GOLDENS / "qformer_every_second_text"
ONE, SPLIT = MeshConfig(1, 1, 1), MeshConfig(1, 4, 2)
RECIPE = pathlib.Path(__file__).parents[2] / "gin" / "models" / "qformer_bert.gin"
# The sizes of the small BERT; 37 words, and [DEC] after them.
SIZES = QFormerConfig(
    cf_dim=6,
    vocab_size=38,
    num_layers=2,
    num_queries=3,
    embed_dim=16,
    num_heads=4,
    mlp_dim=24,
    max_text_length=8,
    projection_dim=8,
    norm_eps=1e-5,
    dec_id=37,
)


def load(folder, config=SIZES, allow_fresh=FRESH_AFTER_BERT, mesh=SPLIT):
    devices = tuple(jax.devices()[: mesh.data * mesh.fsdp * mesh.tensor])
    objective = Alignment(config)
    source = InitFrom(str(folder), ("^qformer/",), top="qformer")
    return load_sources(
        objective,
        describe_variables(objective),
        [source],
        allow_fresh,
        Partitioner(mesh, devices=devices),
        jax.random.key(0),
    )


def test_bert_gives_the_text_branch_and_the_queries_blocks():
    params, report = load(BERT)
    tensors = load_file(BERT / "model.safetensors")
    layer = "bert.encoder.layer.1"
    want = tensors[f"{layer}.intermediate.dense.weight"].T
    for branch in ("text_mlp", "query_mlp"):
        got = np.asarray(params[f"qformer/layers/sub_1/{branch}/up/kernel"])[0]
        np.testing.assert_array_equal(got, want)
    table = np.asarray(params["qformer/text_embedding/token/embedding"])
    np.testing.assert_array_equal(table[:37], tensors["bert.embeddings.word_embeddings.weight"])
    assert not table[37].any()
    positions = tensors["bert.embeddings.position_embeddings.weight"][:8]
    positions = positions + tensors["bert.embeddings.token_type_embeddings.weight"][:1]
    np.testing.assert_array_equal(
        np.asarray(params["qformer/text_embedding/position/embedding"]), positions
    )
    fresh = [path for path in params if any(re.search(p, path) for p in FRESH_AFTER_BERT)]
    assert f"fresh {len(fresh)}" in report and "qformer/queries/embedding" in fresh
    assert f"restored {len(params) - len(fresh)} from {BERT}" in report


def test_the_recipe_lets_start_fresh_what_the_library_says():
    text = RECIPE.read_text()
    named = re.findall(r'^    "(.+)",$', text, re.M)
    assert tuple(named) == FRESH_AFTER_BERT


def test_a_bert_without_its_head_needs_leave(tmp_path):
    folder = tmp_path / "bare"
    shutil.copytree(BERT, folder)
    tensors = load_file(BERT / "model.safetensors")
    bare = {name: array for name, array in tensors.items() if not name.startswith("cls.")}
    save_file(bare, folder / "model.safetensors")
    with pytest.raises(UserError, match="qformer/text_head"):
        load(folder)
    params, _ = load(folder, allow_fresh=(*FRESH_AFTER_BERT, "^qformer/text_head/"))
    assert np.asarray(params["qformer/text_head/dense/kernel"]).std() > 0


def test_another_bert_than_the_recipes_is_refused_before_it_is_read():
    with pytest.raises(UserError, match="num_heads=2"):
        load(BERT, dataclasses.replace(SIZES, num_heads=2))
    with pytest.raises(UserError, match="64 ids"):
        load(BERT, dataclasses.replace(SIZES, vocab_size=64))


def test_a_tensor_that_nothing_reads_is_named(tmp_path):
    folder = tmp_path / "more"
    shutil.copytree(BERT, folder)
    tensors = load_file(BERT / "model.safetensors")
    save_file(tensors | {"bert.surprise": np.ones(2, np.float32)}, folder / "model.safetensors")
    with pytest.raises(UserError, match="unused 1 .*surprise"):
        load(folder)


def test_blip2_gives_its_own_queries_and_cross_attention():
    found = json.loads((BLIP2 / "config.json").read_text())
    config = dataclasses.replace(blip2_qformer.config(found), cf_dim=6, scan_layers=True)
    params, report = load(BLIP2, config, FRESH_AFTER_BLIP2, ONE)
    tensors = load_file(BLIP2 / "model.safetensors")
    np.testing.assert_array_equal(
        np.asarray(params["qformer/queries/embedding"]), tensors["query_tokens"][0]
    )
    got = np.asarray(params["qformer/layers/sub_0/cross_attention/key/kernel"])
    assert got.shape == (2, 20, 16)
    name = "qformer.encoder.layer.2.crossattention.attention.key.weight"
    np.testing.assert_array_equal(got[1], tensors[name].T)
    assert "restored" in report
    narrow = dataclasses.replace(config, token_dim=None)
    with pytest.raises(UserError, match="cross_attention/key"):
        load(BLIP2, narrow, FRESH_AFTER_BLIP2, ONE)
