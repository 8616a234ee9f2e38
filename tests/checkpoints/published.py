"""Small folders as Hugging Face publishes them, with random weights, and models that read them."""

import json
import pathlib
from typing import Any

import numpy as np

from ilm_jax.checkpoints.published import families
from ilm_jax.checkpoints.published.hugging_face import Tensor, write_folder

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 64,
    "num_hidden_layers": 3,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}


T5: dict[str, Any] = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "vocab_size": 64,
    "num_layers": 2,
    "d_model": 32,
    "d_ff": 48,
    "num_heads": 4,
    "d_kv": 8,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}


def _llama_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width, heads, vocab = (config[n] for n in ("hidden_size", "num_attention_heads", "vocab_size"))
    keys, mlp = width // heads * config["num_key_value_heads"], config["intermediate_size"]
    return {
        "q_proj": (width, width),
        "k_proj": (keys, width),
        "v_proj": (keys, width),
        "o_proj": (width, width),
        "gate_proj": (mlp, width),
        "up_proj": (mlp, width),
        "down_proj": (width, mlp),
        "embed_tokens": (vocab, width),
        "lm_head": (vocab, width),
    }


def _t5_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width, mlp, heads, vocab = (config[n] for n in ("d_model", "d_ff", "num_heads", "vocab_size"))
    inner = heads * config["d_kv"]
    return {
        **dict.fromkeys("qkv", (inner, width)),
        "o": (width, inner),
        "wo": (width, mlp),
        **dict.fromkeys(("wi", "wi_0", "wi_1"), (mlp, width)),
        **dict.fromkeys(("shared", "lm_head"), (vocab, width)),
        "relative_attention_bias": (32, heads),
    }


def weights(config: dict[str, Any], dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Random tensors under the published names, shaped as `torch.nn.Linear` stores them."""
    t5 = config["model_type"] == "t5"
    shapes = _t5_shapes(config) if t5 else _llama_shapes(config)
    width = config["d_model" if t5 else "hidden_size"]
    family = families.find(config["model_type"])
    rng = np.random.default_rng(0)
    tensors = {}
    for rule in family.rules(family.config(config)).values():
        shape = shapes.get(rule.source.split(".")[-2], (width,))
        around = 1.0 if len(shape) == 1 else 0.0
        tensors[rule.source] = (around + 0.15 * rng.normal(size=shape)).astype(dtype)
    return tensors


def publish(
    folder: pathlib.Path,
    config: dict[str, Any] = LLAMA,
    tensors: dict[str, np.ndarray] | None = None,
    shard_bytes: int = 20_000,
) -> dict[str, np.ndarray]:
    """Writes the folder (in several shards) and returns its tensors."""
    tensors = weights(config) if tensors is None else tensors
    lazy = {n: Tensor(x.shape, x.dtype, lambda x=x: x) for n, x in tensors.items()}
    write_folder(folder, lazy, config, shard_bytes=shard_bytes)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Nobody"}))
    return tensors
