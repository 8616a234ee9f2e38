"""A config.json that says one setting twice says one value, or is refused with both names."""

import json

import pytest

from ilm_jax.checkpoints.published import families
from ilm_jax.checkpoints.published.sources import open_source
from ilm_jax.errors import UserError
from ilm_jax.strict_json import parse_object
from tests.checkpoints.published import LLAMA, T5, publish

GEMMA3 = {
    "model_type": "gemma3_text",
    "vocab_size": 64,
    "num_hidden_layers": 4,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
SEEING = {"model_type": "gemma3", "text_config": {k: v for k, v in GEMMA3.items()}}
QWEN = {**LLAMA, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
LINEAR = {"rope_type": "linear", "factor": 2.0}
LAYERS = ["sliding_attention", "full_attention"]


def config(found):
    return families.find(found["model_type"]).config(found)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (LLAMA | {"rope_parameters": {"rope_theta": 1e4}}, "rope_theta=5000.0 and rope_param"),
        (LLAMA | {"rope_scaling": {**LINEAR, "rope_theta": 1e4}}, "rope_theta=5000.0 and rope_sc"),
        (LLAMA | {"rope_scaling": LINEAR, "rope_parameters": {"rope_type": "default"}}, "two thi"),
        (LLAMA | {"rope_scaling": LINEAR | {"type": "llama3"}}, "rope_type='linear' and type="),
        (
            SEEING
            | {"tie_word_embeddings": True, "text_config": GEMMA3 | {"tie_word_embeddings": False}},
            "tie_word_embeddings",
        ),
        (SEEING | {"num_hidden_layers": 3}, "num_hidden_layers=3 and text_config.num_hidden"),
        (SEEING | {"rms_norm_eps": 1e-5}, "rms_norm_eps outside of text_config"),
        (GEMMA3 | {"hidden_act": "silu", "hidden_activation": "gelu_pytorch_tanh"}, "hidden_act"),
        (GEMMA3 | {"sliding_window_pattern": 2, "_sliding_window_pattern": 3}, "sliding_window_p"),
        (
            GEMMA3
            | {"rope_theta": 1e6, "rope_parameters": {"full_attention": {"rope_theta": 1e4}}},
            "rope_parameters.full_attention.rope_theta",
        ),
        (GEMMA3 | {"layer_types": LAYERS}, "num_hidden_layers=4, and layer_types are of 2"),
        (QWEN | {"layer_types": ["sliding_attention"] * 3}, "sliding_attention and no window"),
        (T5 | {"is_gated_act": False}, "is_gated_act=False and is_gated_act .of feed_forward_pro"),
        (T5 | {"dense_act_fn": "relu"}, "dense_act_fn='relu'"),
        (T5 | {"scale_decoder_outputs": True}, "tie_word_embeddings=false and scale_decoder"),
        (T5 | {"eos_token_id": [1, 2]}, r"eos_token_id=\[1, 2\]: it is one id"),
        (T5 | {"decoder_start_token_id": 64}, "decoder_start_token_id=64: it is one id"),
        (LLAMA | {"num_hidden_layers": -1}, "num_hidden_layers=-1: it is a whole number above 0"),
        (LLAMA | {"hidden_size": True}, "hidden_size=True: it is a whole number"),
        (LLAMA | {"tie_word_embeddings": "false"}, "tie_word_embeddings='false': it is true or f"),
        (LLAMA | {"rms_norm_eps": 0}, "rms_norm_eps=0: it is a number above 0"),
    ],
)
def test_two_spellings_that_differ_are_refused(found, message):
    with pytest.raises(UserError, match=message):
        config(found)


@pytest.mark.parametrize(
    ("found", "plain"),
    [
        (LLAMA | {"rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"}}, LLAMA),
        (
            LLAMA | {"rope_scaling": LINEAR, "rope_parameters": LINEAR},
            LLAMA | {"rope_scaling": LINEAR},
        ),
        (LLAMA | {"rope_scaling": None}, LLAMA),
        (GEMMA3 | {"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"}, GEMMA3),
        # What the default of layer_types was counted with stays in files that state them.
        (
            GEMMA3 | {"_sliding_window_pattern": 6, "layer_types": LAYERS * 2},
            GEMMA3 | {"layer_types": LAYERS * 2},
        ),
        (
            QWEN
            | {
                "use_sliding_window": True,
                "max_window_layers": 28,
                "layer_types": ["sliding_attention"] * 3,
            },
            QWEN | {"use_sliding_window": True, "layer_types": ["sliding_attention"] * 3},
        ),
        (
            SEEING
            | {"tie_word_embeddings": True, "text_config": GEMMA3 | {"tie_word_embeddings": True}},
            SEEING,
        ),
        (T5 | {"is_gated_act": True, "dense_act_fn": "gelu_new", "eos_token_id": [1]}, T5),
    ],
)
def test_two_spellings_that_agree_are_one(found, plain):
    assert config(found) == config(plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "bfloat16"}, "torch_dtype='float32' and dtype='bfloat16'"),
        ({"architectures": ["MistralForCausalLM"]}, "'llama' and architectures 'MistralForCausal"),
        ({"model_type": ["llama"]}, "model_type=.'llama'.: it is a name"),
        ({"num_hidden_layers": 10**9}, "says 1000000000 layers, and there are 30 tensors"),
    ],
)
def test_what_every_config_may_say_twice_is_compared(tmp_path, change, message):
    publish(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | change))
    with pytest.raises(UserError, match=message):
        open_source(str(tmp_path))


def test_one_key_twice_is_one_only_if_equal(tmp_path):
    publish(tmp_path)
    text = json.dumps(LLAMA)
    (tmp_path / "config.json").write_text(f'{{"rope_theta": 1e4, {text[1:]}')
    with pytest.raises(UserError, match='"rope_theta" twice, 10000.0 and 5000.0'):
        open_source(str(tmp_path))
    (tmp_path / "config.json").write_text(f'{{"rope_theta": 5000.0, {text[1:]}')
    assert open_source(str(tmp_path)).config.rope_theta == 5000.0
    with pytest.raises(UserError, match='"a" twice, true and 1'):
        parse_object('{"a": true, "a": 1}', "it")
