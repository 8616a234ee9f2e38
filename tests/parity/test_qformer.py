"""The Q-Former computes what transformers' Blip2QFormerModel does, and starts from BERT's weights.

Sizes, names and left-over tensors are those of whole BLIP-2 models as transformers saves them.
"""

import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from ilm_jax.checkpoints.published.families import qformer as families
from ilm_jax.checkpoints.published.hugging_face import SafetensorsFolder
from ilm_jax.checkpoints.published.sources import from_family
from ilm_jax.checkpoints.whole import read_params
from ilm_jax.errors import UserError
from ilm_jax.models.encoder import Bert
from ilm_jax.models.layers import unit
from ilm_jax.models.qformer import QFormer
from tests.marks import slow_but_for
from tests.parity.folder import GOLDENS, close, close_gradients, golden, read_config
from tests.parity.make_qformer import CASES, IMAGES, reference
from tests.parity.make_qformer import TEXT as WORDS

BERT = GOLDENS / "bert_masked_lm"
TEXT = jnp.array(WORDS)
PLAIN_AND_TEXT = ("qformer_every_layer_plain", "qformer_every_second_text")
TEXT_CASES = [name for name, (_, with_text) in CASES.items() if with_text]


def sizes(folder, **changes):
    """The Q-Former that a BLIP-2 holds, on vectors of width 6."""
    config = families.blip2_qformer.config(read_config(folder))
    return dataclasses.replace(config, cf_dim=6, scan_layers=True, **changes)


def opened(folder, target):
    family = families.family_for(read_config(folder), target)
    return from_family(SafetensorsFolder(folder), family, target, "qformer")


def stage_one_shapes(config):
    vectors, text = jnp.zeros((1, config.cf_dim)), jnp.ones((1, 3), jnp.int32)
    init = QFormer(config).init
    shapes = jax.eval_shape(lambda: init(jax.random.key(0), vectors, text, method="init_all"))
    return flatten_dict(nn.unbox(shapes)["params"], sep="/")


def load(found, config):
    """Parameters of what a folder holds, and the paths of what it lacks."""
    entries = {name.removeprefix("qformer/"): entry for name, entry in found.entries.items()}
    one_by_one = stage_one_shapes(dataclasses.replace(config, scan_layers=False))
    shapes = stage_one_shapes(config)
    fresh = set(one_by_one) - set(entries)
    stacked = {re.sub(r"layer_\d+", "*", name) for name in fresh}
    there = {p: s for p, s in shapes.items() if re.sub(r"layers/sub_\d+", "*", p) not in stacked}
    return read_params(entries, unflatten_dict(there, sep="/"), found.where), fresh


@pytest.mark.parametrize("live", [False, True], ids=["golden", "live"])
@pytest.mark.parametrize("name", slow_but_for(CASES, *PLAIN_AND_TEXT))
def test_outputs_and_gradients_equal_the_reference(name, live):
    folder, want = golden(name)
    if live:
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
        want = reference(folder)
    config = sizes(folder)
    params, _ = load(opened(folder, config), config)
    text = TEXT if name in TEXT_CASES else None

    @jax.jit
    def run(params):
        model = QFormer(config).bind({"params": params})
        queries, words = model.read_tokens(IMAGES, text)
        both = queries if words is None else jnp.concatenate([queries, words], axis=1)
        return (both * want["weights"]).sum(), (queries, words)

    (_, (queries, words)), grads = jax.value_and_grad(run, has_aux=True)(params)
    close(queries, want["query_hidden"])
    close_gradients(grads["queries"]["embedding"], want["gradient"])
    if text is not None:
        close(words, want["text_hidden"])


@pytest.mark.parametrize("name", slow_but_for(TEXT_CASES, "qformer_every_second_text"))
def test_heads_of_stage_one_equal_the_retrieval_model(name):
    folder, want = golden(name)
    config = sizes(folder)
    params, _ = load(opened(folder, config), config)
    model = QFormer(config).bind({"params": params})
    close(unit(model.query_projection(model.read_tokens(IMAGES)[0])), want["entity_features"])
    close(model.text_features(TEXT), want["text_features"])
    queries, _ = model.read_tokens(IMAGES, TEXT)
    close(model.match_head(queries).mean(1), want["match_logits"])


@pytest.mark.parametrize("name", CASES)
def test_a_whole_blip2_has_no_surprise(name):
    folder, _ = golden(name)
    config = sizes(folder)
    found = opened(folder, config)
    assert found.left_over == []
    _, fresh = load(found, config)
    patterns = [*families.FRESH_AFTER_BLIP2]
    if name not in TEXT_CASES:
        patterns += [
            r"^qformer/text_embedding/",
            r"/text_mlp(_norm)?/",
            r"^qformer/(match_head|(text|query)_projection)/",
        ]
    assert {p for p in fresh if not any(re.search(x, f"qformer/{p}") for x in patterns)} == set()


def test_the_way_into_the_language_model_is_the_adaptors():
    folder, want = golden("qformer_every_second_plain")
    found = from_family(SafetensorsFolder(folder), families.blip2_adaptor, sizes(folder), "adaptor")
    assert found.left_over == []
    kernel, bias = (found.entries[f"adaptor/{name}"].read() for name in ("kernel", "bias"))
    close(want["query_hidden"] @ kernel + bias, want["soft_tokens"])


def test_a_narrower_reader_leaves_the_image_keys_and_takes_the_first_layers():
    folder, _ = golden("qformer_every_second_text")
    config = sizes(folder, token_dim=None, num_layers=2, max_text_length=7)
    found = opened(folder, config)
    assert found.left_over == []
    params, fresh = load(found, config)
    assert {name for name in fresh if "cross_attention" in name} == {
        f"layer_00/cross_attention/{part}/{leaf}"
        for part in ("key", "value")
        for leaf in ("kernel", "bias")
    }
    assert params["text_embedding"]["position"]["embedding"].shape == (7, 16)


def test_the_text_branch_from_bert_is_that_bert_and_queries_share_its_blocks():
    found = read_config(BERT)
    config = families.bert_into_qformer.config(found)
    config = dataclasses.replace(config, cf_dim=6, scan_layers=True)
    source = opened(BERT, config)
    assert source.left_over == []
    params, fresh = load(source, config)
    patterns = families.FRESH_AFTER_BERT
    assert {p for p in fresh if not any(re.search(x, f"qformer/{p}") for x in patterns)} == set()
    table = params["text_embedding"]["token"]["embedding"]
    assert table.shape[0] == config.dec_id + 1 and not table[config.dec_id].any()
    layer = params["layers"]["sub_0"]
    np.testing.assert_array_equal(
        layer["query_mlp"]["up"]["kernel"], layer["text_mlp"]["up"]["kernel"]
    )
    _, want = golden("bert_masked_lm")
    model = QFormer(config).bind({"params": params})
    tokens = np.array([[2, 7, 30, 11, 5, 9, 3], [2, 19, 4, 3, 0, 0, 0]])
    visible = (tokens != 0)[:, None, :]
    _, hidden = model._encode(None, tokens, visible, True)
    close(hidden, want["hidden"][:2])


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"num_heads": 8}, "num_heads=8"),
        ({"num_queries": 8}, "num_queries=8"),
        ({"cross_attention_period": 1}, "cross_attention_period=1"),
        ({"num_layers": 6}, "num_layers=6"),
        ({"max_text_length": 13}, "max_text_length=13"),
        ({"norm_eps": 1e-6}, "norm_eps"),
        ({"vocab_size": 50}, "50 ids"),
    ],
)
def test_sizes_that_would_load_and_mean_another_model_are_refused(changes, named):
    folder, _ = golden("qformer_every_second_text")
    with pytest.raises(UserError, match=named):
        families.family_for(read_config(folder), sizes(folder, **changes))


def test_other_models_are_refused():
    with pytest.raises(UserError, match="'llama'"):
        families.family_for({"model_type": "llama"}, sizes(golden("qformer_every_layer_text")[0]))


def test_bert_module_and_qformer_agree_on_names_they_share():
    config = families.bert.FAMILY.config(read_config(BERT))
    shapes = jax.eval_shape(Bert(config).init, jax.random.key(0), TEXT, TEXT != 0)
    ours = flatten_dict(nn.unbox(shapes)["params"], sep="/")
    target = families.bert_into_qformer.config(read_config(BERT))
    target = dataclasses.replace(target, cf_dim=6, scan_layers=True)
    theirs = stage_one_shapes(target)
    shared = {p for p in ours if "/attention" in p}
    assert shared and shared <= set(theirs)
