"""Decoders compute what `transformers` computes, from the same config.json, tensors and ids."""

import dataclasses
import functools
import json
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from ilm_jax.checkpoints.layout import disk_names, is_stacked
from ilm_jax.checkpoints.published import families
from ilm_jax.checkpoints.published.rules import apply
from ilm_jax.checkpoints.published.sources import open_source
from ilm_jax.errors import UserError
from ilm_jax.models.decoder import Decoder
from tests.marks import slow_but_for
from tests.parity import make_decoders
from tests.parity.folder import close, close_gradients

CASES = sorted(make_decoders.CASES)
LONG = {"gemma2_global", "gemma3", "gemma3_sees", "qwen2_window"}  # others have what they have
BATCH, LENGTH = make_decoders.SHAPE
POSITIONS = jnp.broadcast_to(jnp.arange(LENGTH), (BATCH, LENGTH))
ONES = jnp.ones((BATCH, LENGTH), jnp.int32)


@functools.cache
def stored(case):
    """{name: value} of a case in the file."""
    with np.load(make_decoders.GOLDEN) as file:
        return {n.split("/")[1]: file[n] for n in file.files if n.startswith(f"{case}/")}


def options(case):
    return json.loads(str(stored(case)["config"]))


def load(case, **changes):
    """Our module and its parameters; every tensor has an entry and every entry a tensor."""
    found = options(case)
    family = families.find(found["model_type"])
    config = dataclasses.replace(family.config(found), **changes)
    layout = json.loads(str(stored(case)["layout"]))
    tensors = make_decoders.unpack(layout, stored(case)["whole"])
    tensors = {family.rename(name): leaf for name, leaf in tensors.items()}
    rules = family.rules(config)
    assert {rule.source for rule in rules.values()} == set(tensors)
    entries = {name: apply(rule, tensors.__getitem__) for name, rule in rules.items()}
    model = Decoder(config)
    wanted = shapes(model)
    names = disk_names(wanted)
    assert {name for there in names.values() for name in there} == set(entries)
    flat = {
        path: np.stack([entries[name] for name in there])
        if is_stacked(path, names)
        else entries[path]
        for path, there in names.items()
    }
    assert {path: leaf.shape for path, leaf in flat.items()} == {
        path: leaf.shape for path, leaf in wanted.items()
    }
    return model, unflatten_dict(jax.tree.map(jnp.asarray, flat), sep="/")


def shapes(model):
    """{path: shape and dtype} of a decoder's parameters."""
    x = jnp.zeros((1, 1, model.config.embed_dim))
    at = jnp.ones((1, 1), jnp.int32)
    made = jax.eval_shape(model.init, jax.random.key(0), x, at, at)
    return flatten_dict(nn.unbox(made)["params"], sep="/")


@functools.partial(jax.jit, static_argnames="model")
def run(model, params, ids):
    """(logits, gradient with respect to the vectors of `ids`)."""
    bound = model.bind({"params": params})
    vectors = bound.embed(ids)

    def weighted(vectors):
        logits = bound.logits(bound(vectors, POSITIONS, ONES))
        return (logits * make_decoders.weights_of(logits.shape)).sum(), logits

    gradient, logits = jax.grad(weighted, has_aux=True)(vectors)
    return logits, gradient


@functools.partial(jax.jit, static_argnames="model")
def run_forward(model, params, ids):
    """Logits alone."""
    bound = model.bind({"params": params})
    return bound.logits(bound(bound.embed(ids), POSITIONS, ONES))


@functools.partial(jax.jit, static_argnames="model")
def step(model, params, ids, positions, cache):
    bound = model.bind({"params": params})
    hidden, cache = bound(bound.embed(ids), positions, jnp.ones_like(ids), cache)
    return bound.logits(hidden), cache


@pytest.mark.parametrize("case", slow_but_for(CASES, *sorted({*CASES} - LONG)))
def test_logits_and_gradients_are_the_references(case):
    logits, gradient = run(*load(case), stored(case)["ids"])
    close(logits, stored(case)["logits"])
    close_gradients(gradient, stored(case)["gradient"])


@pytest.mark.parametrize("case", ["gemma3_caps", "gemma2"])
def test_so_they_are_layer_by_layer(case):
    model, params = load(case, scan_layers=False)
    assert "layers" not in params and "layer_02" in params
    logits, gradient = run(model, params, stored(case)["ids"])
    close(logits, stored(case)["logits"])
    close_gradients(gradient, stored(case)["gradient"])


# Of every family one; those with windows read more than a window's worth before and after.
@pytest.mark.parametrize(
    "case",
    slow_but_for(
        ["llama3", "qwen2_window", "qwen3_window", "mistral", "gemma", "gemma2", "gemma3"],
        *("llama3", "mistral", "gemma2"),
    ),
)
def test_so_they_are_through_a_cache(case):
    model, params = load(case)
    ids, wanted = stored(case)["ids"], stored(case)["logits"]
    cache = model.init_cache(BATCH, LENGTH + 3)
    got, cache = step(model, params, ids[:, :7], POSITIONS[:, :7], cache)
    close(got, wanted[:, :7])
    for at in range(7, LENGTH):
        here = slice(at, at + 1)
        got, cache = step(model, params, ids[:, here], POSITIONS[:, here], cache)
        close(got, wanted[:, here])


@pytest.mark.parametrize(
    ("case", "field", "value"),
    [
        ("mistral", "sliding_window", 6),
        ("gemma3_caps", "sliding_window", 5),
        ("gemma3_caps", "rope_local_theta", 31.0),
        ("gemma3_sees", "rope_scaling", None),
        ("gemma3_caps", "query_pre_attn_scalar", None),
        ("gemma2", "layer_pattern", ("global", "local")),
        ("gemma2", "attention_softcap", 2.1),
        ("gemma2", "logits_softcap", 3.1),
        ("gemma2", "norm_offset", False),
        ("llama3", "rope_scaling", None),
        ("qwen3", "norm_eps", 1e-2),
    ],
)
def test_the_goldens_notice_a_wrong_option(case, field, value):
    """The comparison above can fail: each of these options shows in the numbers."""
    logits = run_forward(*load(case, **{field: value}), stored(case)["ids"])
    assert np.abs(logits - stored(case)["logits"]).max() > 1e-2


def test_what_a_gemma_sees_with_is_left_by_name():
    others = json.loads(str(stored("gemma3_sees")["others"]))
    assert any("vision_tower" in name for name in others) and len(others) > 10
    unused = families.find("gemma3").unused
    assert not [n for n in others if not any(re.search(pattern, n) for pattern in unused)]


@pytest.mark.parametrize(
    "name",
    [
        "model.norm.weight",
        "language_model.model.norm.weight",
        "model.language_model.norm.weight",
        "norm.weight",
    ],
)
def test_tensors_go_by_several_names(name):
    assert families.find("gemma3").rename(name) == "model.norm.weight"


@pytest.mark.parametrize(
    ("case", "change", "message"),
    [
        ("llama3", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope_type 'yarn'"),
        ("llama3", {"mlp_bias": True}, "mlp_bias=True"),
        ("llama3", {"hidden_act": "relu"}, "activation 'relu'"),
        ("llama3", {"num_experts": 8}, "unknown options num_experts"),
        ("qwen2_window", {"layer_types": ["linear_attention"] * 3}, "linear_attention"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
        ("mistral", {"rope_scaling": {"type": "linear"}}, "'linear' lacks factor"),
    ],
)
def test_options_that_are_not_built_are_refused_by_name(case, change, message):
    found = options(case) | change
    with pytest.raises(UserError, match=re.escape(message)):
        families.find(found["model_type"]).config(found)


def test_a_missing_size_is_named():
    found = {"model_type": "llama", "hidden_size": 8}
    with pytest.raises(UserError, match="lacks.*num_hidden_layers"):
        families.find("llama").config(found)


@pytest.mark.parametrize("case", CASES)
def test_live_other_words_agree_too(case):
    """With torch and transformers at hand: ids that are in no file."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    tensors = make_decoders.unpack(json.loads(str(stored(case)["layout"])), stored(case)["whole"])
    model, _ = make_decoders.build(case)
    model = make_decoders.with_tensors(model, lambda name, shape: tensors.get(name))
    ids = np.random.default_rng(1234).integers(3, 60, (BATCH, LENGTH)).astype(np.int32)
    wanted = make_decoders.compute(model, ids)
    logits, gradient = run(*load(case), ids)
    close(logits, wanted["logits"])
    close_gradients(gradient, wanted["gradient"])


@pytest.mark.parametrize("case", ["llama3", "gemma3_sees"])
def test_a_published_folder_opens_with_nothing_missing_and_nothing_left(case, tmp_path):
    tensors = make_decoders.unpack(json.loads(str(stored(case)["layout"])), stored(case)["whole"])
    others = json.loads(str(stored(case)["others"]))
    tensors |= {name: np.zeros(1, np.float32) for name in others}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(options(case)))
    opened = open_source(str(tmp_path))
    assert not opened.lacking and not opened.left_over
    model, params = load(case, scan_layers=False)
    assert opened.config == dataclasses.replace(model.config, scan_layers=True)
    flat = flatten_dict(params, sep="/")
    assert set(opened.entries) == {f"lm/{path}" for path in flat}
    for path, leaf in flat.items():
        np.testing.assert_array_equal(opened.entries[f"lm/{path}"].read(), leaf)
