"""A GGUF file's metadata of an architecture, in the terms of a config.json.

The families read that as they read published folders. Names and defaults as in llama.cpp
(src/llama-model.cpp, `load_hparams`), which fixes for some architectures what no key says: Gemma's
kinds of layers and what its queries are scaled by.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ilm_jax.errors import UserError
from ilm_jax.models.rope import RopeScaling
from ilm_jax.pretrained.gguf_file import GGUFFile

FREQUENCIES = "rope_freqs.weight"
# {key behind the architecture: option}; of all architectures.
_SIZES = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
_READ = frozenset(_SIZES) | {
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.dimension_count",
    "rope.dimension_count_swa",
    "rope.scaling.type",
    "rope.scaling.factor",
}
# Keys that change nothing of what the layers compute.
_NEUTRAL = frozenset(
    "context_length vocab_size tensor_data_layout rope.scaling.original_context_length "
    "rope.scaling.finetuned".split()
)
# Keys with the values that change nothing.
_FIXED: dict[str, tuple[object, ...]] = {
    "attention.causal": (True,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "pooling_type": (0,),
    "rope.scaling.attn_factor": (1.0,),
    "use_parallel_residual": (False,),
}
# Of Llama 3.1 and later, whose files hold their effect instead: rope_freqs.
_LLAMA_3: dict[str, Any] = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
# Of transformers, by model_type: what serves published folders asks for them.
_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
_CONTEXTS = (8192, 4096, 2048, 16384, 32768)


def config_of(file: GGUFFile) -> dict[str, Any]:
    """A config.json that describes the model of a file.

    Raises:
      UserError: for an architecture that is not built, or a setting that it does not have.
    """
    name = file.metadata.get("general.architecture")
    if name not in _ARCHITECTURES:
        raise UserError(
            f"{file.path}: architecture {name!r} is not built: there are "
            f"{', '.join(_ARCHITECTURES)}"
        )
    prefix = f"{name}."
    said = {k.removeprefix(prefix): v for k, v in file.metadata.items() if k.startswith(prefix)}
    _check_keys(said, name, file.path)
    try:
        config = _shared(file, said) | _ARCHITECTURES[name](file, said)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{file.path}: its metadata describe no {name} model ({error})") from error
    config["architectures"] = [_CLASSES[config["model_type"]]]
    for role in ("bos", "eos"):
        config[f"{role}_token_id"] = file.metadata.get(f"tokenizer.ggml.{role}_token_id")
    named = file.metadata.get("general.name")
    config["_name_or_path"] = named if isinstance(named, str) else None
    return {key: value for key, value in config.items() if value is not None}


def _check_keys(said: Mapping[str, Any], architecture: str, path: str) -> None:
    for key, value in said.items():
        if key in _FIXED and value not in _FIXED[key]:
            raise UserError(f"{path}: {architecture}.{key} = {value!r} is not built here")
    unknown = sorted(set(said) - _READ - _NEUTRAL - set(_FIXED))
    if unknown:
        raise UserError(
            f"{path}: {architecture}.{unknown[0]} (one of {len(unknown)} such keys) is not known "
            "here, and may change what the model computes: give its safetensors"
        )


def _shared(file: GGUFFile, said: Mapping[str, Any]) -> dict[str, Any]:
    """What all architectures say alike."""
    config: dict[str, Any] = {theirs: _size(said, key, file) for key, theirs in _SIZES.items()}
    heads = config["num_attention_heads"]
    config["num_key_value_heads"] = said.get("attention.head_count_kv", heads)
    usual = config["hidden_size"] // heads
    head_dim = said.get("attention.key_length", usual)
    config["head_dim"] = head_dim
    for key in ("attention.value_length", "rope.dimension_count", "rope.dimension_count_swa"):
        if said.get(key, head_dim) != head_dim:
            raise UserError(
                f"{file.path}: {key} = {said[key]!r} beside heads of {head_dim} is not built here"
            )
    if "token_embd.weight" not in file.tensors:
        raise UserError(f"{file.path} holds no token_embd.weight: is it a whole model?")
    config["vocab_size"] = file.tensors["token_embd.weight"].shape[0]
    config["rms_norm_eps"] = _decimal(said.get("attention.layer_norm_rms_epsilon", 1e-6))
    config["rope_theta"] = _decimal(said.get("rope.freq_base", 10_000.0))
    config["rope_scaling"] = _scaling(file, said, config["rope_theta"], head_dim)
    config["tie_word_embeddings"] = "output.weight" not in file.tensors
    config["max_position_embeddings"] = said.get("context_length")
    return config


def _size(said: Mapping[str, Any], key: str, file: GGUFFile) -> int:
    value = said.get(key)
    if type(value) is not int or value < 1:
        raise UserError(
            f"{file.path}: {key} is {value!r}: only models whose layers are all alike are built"
        )
    return value


def _decimal(value: float) -> float:
    """The shortest decimal of a float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _scaling(
    file: GGUFFile, said: Mapping[str, Any], theta: float, head_dim: int
) -> dict[str, Any] | None:
    kind = said.get("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise UserError(f"{file.path}: rope.scaling.type {kind!r} is not built: none, linear")
    if FREQUENCIES in file.tensors:
        return _llama3(file, theta, head_dim)
    if kind == "linear" and said.get("rope.scaling.factor", 1.0) != 1.0:
        return {"rope_type": "linear", "factor": _decimal(said["rope.scaling.factor"])}
    return None


def _llama3(file: GGUFFile, theta: float, head_dim: int) -> dict[str, Any] | None:
    """What Llama 3.1's scaling was made with, from the divisors of frequencies that it gives."""
    divisors = file.read_rows(FREQUENCIES, 0, head_dim // 2).astype(np.float32)
    if np.all(divisors == 1):
        return None
    factor = _decimal(float(divisors.max()))
    plain = theta ** (-np.arange(head_dim // 2, dtype=np.float32) / (head_dim // 2))
    for context in _CONTEXTS:
        scaling = RopeScaling("llama3", factor, **_LLAMA_3, original_length=context)
        scaled = np.asarray(scaling.of(jnp.asarray(plain)))
        if np.allclose(plain / scaled, divisors, rtol=1e-4):
            said = {"factor": factor, **_LLAMA_3, "original_max_position_embeddings": context}
            return {"rope_type": "llama3", **said}
    raise UserError(f"{file.path}: {FREQUENCIES} scales frequencies in a way that is not built")


def _llama(file: GGUFFile, said: Mapping[str, Any]) -> dict[str, Any]:
    """Llama and Mistral, which are one architecture there: with a window it is Mistral."""
    window = said.get("attention.sliding_window")
    if window:
        return {"model_type": "mistral", "sliding_window": window}
    return {"model_type": "llama", "attention_bias": "blk.0.attn_q.bias" in file.tensors}


def _qwen2(file: GGUFFile, said: Mapping[str, Any]) -> dict[str, Any]:
    return {"model_type": "qwen2"}


def _qwen3(file: GGUFFile, said: Mapping[str, Any]) -> dict[str, Any]:
    return {"model_type": "qwen3", "attention_bias": "blk.0.attn_q.bias" in file.tensors}


def _gemma(file: GGUFFile, said: Mapping[str, Any]) -> dict[str, Any]:
    return {"model_type": "gemma", "hidden_activation": "gelu_pytorch_tanh"}


def _gemma2(file: GGUFFile, said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "gemma2",
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": said.get("attention.sliding_window", 4096),
        "attn_logit_softcapping": _decimal(said.get("attn_logit_softcapping", 50.0)),
        "final_logit_softcapping": _decimal(said.get("final_logit_softcapping", 30.0)),
        "query_pre_attn_scalar": _scalar(file, said, largest=46),
    }


def _gemma3(file: GGUFFile, said: Mapping[str, Any]) -> dict[str, Any]:
    period = said.get("attention.sliding_window_pattern", 6)
    if type(period) is not int:
        raise UserError(f"{file.path}: attention.sliding_window_pattern is {period!r}, no number")
    softcap = said.get("final_logit_softcapping")
    return {
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": said.get("attention.sliding_window"),
        "sliding_window_pattern": period,
        "rope_theta": _decimal(said.get("rope.freq_base", 1_000_000.0)),
        "rope_local_base_freq": _decimal(said.get("rope.freq_base_swa", 10_000.0)),
        "final_logit_softcapping": _decimal(softcap) if softcap else None,
        "query_pre_attn_scalar": _scalar(file, said, largest=62),
    }


def _scalar(file: GGUFFile, said: Mapping[str, Any], largest: int) -> int:
    """Queries are divided by the root of a head's width; in the largest model of the shares'."""
    width, heads = _size(said, "embedding_length", file), _size(said, "attention.head_count", file)
    share = width // heads
    return share if said["block_count"] == largest else said.get("attention.key_length", share)


_ARCHITECTURES: dict[str, Callable[[GGUFFile, Mapping[str, Any]], dict[str, Any]]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
}
