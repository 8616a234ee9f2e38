"""The encoder computes what transformers' BertModel does, and refuses what it has no part for."""

import dataclasses

import flax.linen as nn
import jax
import pytest

from ilm_jax.checkpoints.published import families
from ilm_jax.checkpoints.published.hugging_face import SafetensorsFolder
from ilm_jax.checkpoints.published.sources import from_family
from ilm_jax.checkpoints.whole import read_params
from ilm_jax.errors import UserError
from ilm_jax.models.encoder import Bert
from tests.parity.folder import close, close_gradients, golden, read_config
from tests.parity.make_bert import CASES, TOKENS, reference

FAMILY = families.find("bert")


def opened(folder, scan=True):
    config = dataclasses.replace(FAMILY.config(read_config(folder)), scan_layers=scan)
    return config, from_family(SafetensorsFolder(folder), FAMILY, config, "lm")


def load(folder, scan):
    config, found = opened(folder, scan)
    entries = {name.removeprefix("lm/"): entry for name, entry in found.entries.items()}
    init = lambda: Bert(config).init(jax.random.key(0), TOKENS, TOKENS != 0)["params"]  # noqa: E731
    return config, read_params(entries, nn.unbox(jax.eval_shape(init)))


def run(folder, weights, scan):
    config, params = load(folder, scan)
    model = Bert(config).bind({"params": params})

    @jax.jit
    @jax.value_and_grad
    def loss(words):
        return (model.encode(words, TOKENS != 0) * weights).sum()

    words = model.embedding(TOKENS)
    return model(TOKENS, TOKENS != 0), loss(words)[1]


@pytest.mark.parametrize("live", [False, True], ids=["golden", "live"])
@pytest.mark.parametrize("name, scan", list(zip(CASES, (True, False), strict=True)))
def test_hidden_states_and_gradients_equal_the_reference(name, scan, live):
    folder, want = golden(name)
    if live:
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
        want = reference(folder)
    hidden, gradient = run(folder, want["weights"], scan)
    close(hidden, want["hidden"])
    close_gradients(gradient, want["gradient"])


@pytest.mark.parametrize("name", CASES)
def test_every_tensor_is_used_or_listed_and_every_entry_has_one(name):
    _, found = opened(golden(name)[0])
    assert found.left_over == [] and found.lacking == {}
    assert len(found.entries) > 30


@pytest.mark.parametrize(
    "change, named",
    [
        ({"hidden_act": "gelu_new"}, "hidden_act='gelu_new'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder"),
        ({"embedding_size": 8}, "embedding_size"),
        ({"hidden_size": None}, "hidden_size"),
        ({"attention_probs_dropout_prob": 0.3}, "attention_probs_dropout_prob"),
    ],
)
def test_options_without_a_part_are_refused_by_name(change, named):
    folder, _ = golden("bert_plain")
    with pytest.raises(UserError, match=named):
        FAMILY.config(read_config(folder) | change)
