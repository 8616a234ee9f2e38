"""Writes GGUF files as llama.cpp's converter does, from the tensors of a published folder.

Names are those that the package `gguf` maps; what its converter changes of values is written here
as it does there: rows of queries and keys in pairs (Llama, Mistral), 1 added to norms (Gemma).
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gguf
import numpy as np

ARCHITECTURES = {"mistral": "llama", "gemma3_text": "gemma3"}
Choose = Callable[[str, np.ndarray], gguf.GGMLQuantizationType]


def plain(name: str, value: np.ndarray) -> gguf.GGMLQuantizationType:
    """Everything as float32."""
    del name, value
    return gguf.GGMLQuantizationType.F32


def paired(rows: np.ndarray, heads: int) -> np.ndarray:
    """The order of a rotation's halves in which llama.cpp keeps queries and keys."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def write(
    path: pathlib.Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    *,
    choose: Choose = plain,
    vocabulary: Mapping[str, Any] | None = None,
    further: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes the file.

    Args:
      path: of the file.
      config: config.json.
      tensors: under the folder's names.
      choose: how a tensor is quantised.
      vocabulary: {key behind "tokenizer.ggml.": value}.
      further: metadata {key behind the architecture: value}.
    """
    kind = config["model_type"]
    arch = ARCHITECTURES.get(kind, kind)
    writer = gguf.GGUFWriter(str(path), arch)
    heads, layers = config["num_attention_heads"], config["num_hidden_layers"]
    keys = config.get("num_key_value_heads") or heads
    writer.add_name("a small model")
    writer.add_license("mit")
    writer.add_context_length(config.get("max_position_embeddings", 64))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(keys)
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    if config.get("head_dim"):
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if config.get("sliding_window"):
        writer.add_sliding_window(config["sliding_window"])
    for name, value in (further or {}).items():
        add(writer, f"{arch}.{name}", value)
    for name, value in (vocabulary or {}).items():
        add(writer, f"tokenizer.ggml.{name}", value)
    names = gguf.get_tensor_name_map(_arch(arch), layers)
    for name, value in tensors.items():
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias")) or name
        if kind in ("llama", "mistral") and ("q_proj" in name or "k_proj" in name):
            value = paired(value, heads if "q_proj" in name else keys)
        if kind.startswith("gemma") and name.endswith("norm.weight"):
            value = value + 1
        chosen = choose(name, value)
        data = gguf.quants.quantize(np.ascontiguousarray(value, np.float32), chosen)
        writer.add_tensor(theirs, data, raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _arch(name: str) -> Any:
    return next(arch for arch, text in gguf.MODEL_ARCH_NAMES.items() if text == name)


def add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, Sequence):
        writer.add_array(key, value)
    else:
        raise TypeError(f"{key}: {value!r}")
