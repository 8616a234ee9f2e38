"""Small folders as Hugging Face publishes them, with random weights, and models that read them."""

import json
import pathlib
from typing import Any

import numpy as np

from ilm_jax.interop import families
from ilm_jax.interop.hugging_face import Tensor, write_folder

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


def weights(config: dict[str, Any], dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Random tensors under the published names, shaped as `torch.nn.Linear` stores them."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    keys = width // heads * config["num_key_value_heads"]
    shapes = {
        "q_proj": (width, width), "k_proj": (keys, width), "v_proj": (keys, width),
        "o_proj": (width, width), "gate_proj": (config["intermediate_size"], width),
        "up_proj": (config["intermediate_size"], width),
        "down_proj": (width, config["intermediate_size"]),
        "embed_tokens": (config["vocab_size"], width), "lm_head": (config["vocab_size"], width),
    }  # fmt: skip
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
