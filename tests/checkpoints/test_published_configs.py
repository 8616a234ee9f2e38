"""config.json of published models, as several versions of transformers write it, is one model."""

import functools
import json

import pytest

from ilm_jax.checkpoints.published import families
from ilm_jax.checkpoints.published.configs import differing
from ilm_jax.checkpoints.published.sources import describe, open_source
from ilm_jax.errors import UserError
from tests.checkpoints.published import LLAMA, T5, publish
from tests.parity.make_configs import GOLDEN, PUBLISHED


@functools.cache
def written():
    return json.loads(GOLDEN.read_text())


def config(found):
    return families.find(found["model_type"]).config(found)


@pytest.mark.parametrize("model", PUBLISHED)
def test_whoever_writes_it_it_is_the_same_model(model):
    published = config(PUBLISHED[model])
    forms = [(version, form) for version in written() for form in written()[version].get(model, [])]
    assert len({version for version, _ in forms}) >= 2
    for version, form in forms:
        assert not differing(describe(config(form))[1], describe(published)[1]), version


def test_what_changes_nothing_is_let_through_and_told(tmp_path):
    more = {"is_llama_config": True, "transformers.js_config": {"dtype": "q4"}, "unk_token_id": 0}
    publish(tmp_path, LLAMA)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | more | {"use_cache": True}))
    (note,) = open_source(str(tmp_path)).notes
    told = "options that change nothing here: is_llama_config, transformers.js_config, unk_token_id"
    assert note.endswith(told)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (LLAMA | {"rope_interleaved": True}, "rope_interleaved=True: only False or None is built"),
        (LLAMA | {"add_cross_attention": True}, "add_cross_attention=True: only False"),
        (LLAMA | {"is_encoder_decoder": True}, "is_encoder_decoder=True: only False"),
        (LLAMA | {"pruned_heads": {"0": [1]}}, "pruned_heads="),
        (LLAMA | {"mlp_bias": True}, "mlp_bias=True: only False"),
        (LLAMA | {"quantization_config": {"bits": 4}}, "quantised in a way that is not read; take"),
        (LLAMA | {"embedding_multiplier": 12.0}, "unknown options embedding_multiplier"),
        (T5 | {"num_experts": 8}, "unknown options num_experts"),
        (T5 | {"tie_encoder_decoder": True}, "tie_encoder_decoder=True: only False"),
        (
            {**LLAMA, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
            | {"use_mrope": True},
            "use_mrope=True: only False",
        ),
    ],
)
def test_what_would_compute_another_thing_is_refused(found, message):
    with pytest.raises(UserError, match=message):
        config(found)
