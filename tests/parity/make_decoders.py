"""Makes goldens/decoders.npz: what `transformers` computes with small random decoders.

    python tests/parity/make_decoders.py

needs torch and transformers. Weights are small integers times a power of two, which a byte holds
exactly. Options are written in the older form of config.json where `old`, and in the form in which
this `transformers` writes them elsewhere.

case           covers, beside grouped query heads, norms and the gated feed-forward
llama2         as many key heads as query heads, untied output layer, 3 layers; old
llama3         one key head, llama3 scaling (kept, between and divided frequencies), theta, tied,
               head_dim not embed / heads, biases on all projections of attention
qwen2          biases on query, key, value; tied; theta, norm eps; old
qwen2_window   untied, windows from layer 1 of 3 on (a pattern that does not repeat), linear scaling
qwen3          norms over heads, head_dim not embed / heads, untied; old
qwen3_window   norms over heads, biases, windows by layer_types with a tail of one layer, tied
mistral        a window on all layers, untied; old
mistral_whole  no window, theta, head_dim, tied
gemma          embedding scale, 1 + scale, GeGLU by tanh under the name "gelu", one key head; old
gemma_heads    several key heads, head_dim not embed / heads, theta, untied
gemma2         soft caps, alternating windows (tail of one layer), norms behind, query scale; old
gemma2_global  no caps, all layers global but one, biases on attention, linear scaling
gemma3         7 layers of five local to one global with a tail, two thetas, linear scaling of the
               global ones only, norms over heads, query scale; old
gemma3_caps    capped logits, layer_types (local, global, global), theta of both in the newer form
gemma3_sees    the language model of a model with eyes: nested config, longer tensor names; old
"""

import json
import pathlib
import tempfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

GOLDEN = pathlib.Path(__file__).parent / "goldens" / "decoders.npz"
SHAPE = (2, 14)
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 0.5,
    "high_freq_factor": 1.5,
    "original_max_position_embeddings": 16,
    "rope_theta": 200.0,
}
SLIDING, FULL = "sliding_attention", "full_attention"
GEMMA3 = {"num_hidden_layers": 7, "head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 5}

# Sizes apart, config.json as published in the older form ("old"), or the options of the class.
CASES: dict[str, dict[str, Any]] = {
    "llama2": {
        "model_type": "llama",
        "old": True,
        "num_key_value_heads": 4,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-5,
    },
    "llama3": {
        "model_type": "llama",
        "num_key_value_heads": 1,
        "head_dim": 16,
        "attention_bias": True,
        "rope_parameters": LLAMA3,
        "tie_word_embeddings": True,
    },
    "qwen2": {
        "model_type": "qwen2",
        "old": True,
        "rope_theta": 300.0,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "sliding_window": 4,
        "max_window_layers": 1,
    },
    "qwen2_window": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 4,
        "max_window_layers": 1,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0},
    },
    "qwen3": {
        "model_type": "qwen3",
        "old": True,
        "head_dim": 12,
        "rope_theta": 1000.0,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "rope_scaling": None,
    },
    "qwen3_window": {
        "model_type": "qwen3",
        "head_dim": 8,
        "attention_bias": True,
        "use_sliding_window": True,
        "sliding_window": 5,
        "tie_word_embeddings": True,
        "layer_types": [SLIDING, FULL, SLIDING],
    },
    "mistral": {
        "model_type": "mistral",
        "old": True,
        "sliding_window": 5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
    "mistral_whole": {
        "model_type": "mistral",
        "sliding_window": None,
        "head_dim": 12,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_theta": 50.0},
    },
    "gemma": {
        "model_type": "gemma",
        "old": True,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "hidden_act": "gelu",
        "hidden_activation": None,
        "rope_theta": 10000.0,
    },
    "gemma_heads": {
        "model_type": "gemma",
        "head_dim": 12,
        "rope_parameters": {"rope_theta": 70.0},
        "tie_word_embeddings": False,
    },
    "gemma2": {
        "model_type": "gemma2",
        "old": True,
        "head_dim": 8,
        "sliding_window": 4,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 5,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_act": "gelu_pytorch_tanh",
        "rope_theta": 10000.0,
        "cache_implementation": "hybrid",
    },
    "gemma2_global": {
        "model_type": "gemma2",
        "head_dim": 12,
        "sliding_window": 5,
        "attention_bias": True,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "query_pre_attn_scalar": 12,
        "layer_types": [FULL, FULL, SLIDING],
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0},
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "old": True,
        "rope_theta": 1000.0,
        **GEMMA3,
        "rope_local_base_freq": 20.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window_pattern": 6,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
    },
    "gemma3_caps": {
        "model_type": "gemma3_text",
        **GEMMA3,
        "num_hidden_layers": 4,
        "layer_types": [SLIDING, FULL, FULL, SLIDING],
        "final_logit_softcapping": 3.0,
        "rope_parameters": {FULL: {"rope_theta": 500.0}, SLIDING: {"rope_theta": 30.0}},
    },
    "gemma3_sees": {
        "model_type": "gemma3",
        "old": True,
        "text_config": {
            "model_type": "gemma3_text",
            **SIZES,
            **GEMMA3,
            "num_hidden_layers": 3,
            "rope_scaling": {"rope_type": "linear", "factor": 2.0},
            "layer_types": [SLIDING, SLIDING, FULL],
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "image_size": 8,
            "patch_size": 4,
        },
        "mm_tokens_per_image": 4,
        "image_token_index": 63,
        "boi_token_index": 61,
        "eoi_token_index": 62,
    },
}


def stated(case: str) -> dict[str, Any]:
    """The options that a case states, with sizes."""
    options = {key: value for key, value in CASES[case].items() if key != "old"}
    return options if "text_config" in options else SIZES | options


def build(case: str) -> tuple[Any, dict[str, Any]]:
    """(a model of transformers, its config.json)."""
    import transformers

    options = stated(case)
    kind = transformers.AutoConfig.for_model(options["model_type"])
    # Read like a file, so that the reference itself translates the older form.
    config = type(kind).from_dict(json.loads(json.dumps(options)))
    config._attn_implementation = "eager"
    auto = transformers.AutoModelForImageTextToText
    auto = auto if "text_config" in options else transformers.AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="eager").eval()
    written = json.loads(config.to_json_string())
    return model, options if CASES[case].get("old") else written


def draw(name: str, shape: tuple[int, ...], unit_offset: bool) -> tuple[np.ndarray, float, float]:
    """(integers, step, start) of a tensor: start + step * integers, spread enough to matter."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    whole = np.clip(np.round(rng.normal(size=shape) * 2.5), -7, 7).astype(np.int8)
    if name.endswith("norm.weight"):
        return whole, 0.125, 0.0 if unit_offset else 1.0
    if "q_proj.weight" in name or "k_proj.weight" in name:
        return whole, 0.125, 0.0
    return whole, 0.25 if "embed_tokens" in name else 0.0625, 0.0


def with_tensors(model: Any, make: Callable[[str, tuple[int, ...]], np.ndarray | None]) -> Any:
    """The model with tensors that `make` gives, by their names in the file that it saves.

    Args:
      model: of transformers.
      make: a tensor of (name, shape); None to leave it.
    """
    import torch
    from safetensors.numpy import load_file, save_file

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        file = pathlib.Path(folder) / "model.safetensors"
        tensors = load_file(file)
        made = {name: make(name, leaf.shape) for name, leaf in tensors.items()}
        tensors |= {name: leaf for name, leaf in made.items() if leaf is not None}
        save_file(tensors, file, {"format": "pt"})
        return type(model).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def compute(model: Any, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Logits of ids, and of their vectors the gradient of `objective`."""
    import torch

    tokens = torch.from_numpy(ids).long()
    logits = model(input_ids=tokens).logits
    vectors = model.get_input_embeddings()(tokens).detach().requires_grad_()
    again = model(inputs_embeds=vectors).logits
    assert torch.allclose(logits, again, atol=1e-5)
    (again * torch.from_numpy(weights_of(again.shape))).sum().backward()
    return {"logits": logits.detach().numpy(), "gradient": vectors.grad.numpy()}


def weights_of(shape: tuple[int, ...]) -> np.ndarray:
    """What logits are weighted by in the scalar whose gradient is compared."""
    return np.cos(np.arange(np.prod(shape), dtype=np.float32)).reshape(shape).astype(np.float32)


def unpack(layout: list[Any], whole: np.ndarray) -> dict[str, np.ndarray]:
    """{tensor: float32} of a case."""
    tensors, at = {}, 0
    for name, shape, step, start in layout:
        size = int(np.prod(shape))
        tensors[name] = (start + step * whole[at : at + size].reshape(shape)).astype(np.float32)
        at += size
    return tensors


def make(case: str) -> dict[str, Any]:
    """All that is kept of a case."""
    model, config = build(case)
    layout, pieces, others = [], [], []

    def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        if "vision" in name or "multi_modal" in name:
            others.append(name)
            return None
        whole, step, start = draw(name, shape, "gemma" in config["model_type"])
        layout.append([name, shape, step, start])
        pieces.append(whole.ravel())
        return unpack(layout[-1:], pieces[-1])[name]

    model = with_tensors(model, tensor)
    ids = np.random.default_rng(len(case)).integers(3, 60, SHAPE).astype(np.int32)
    kept = {"config": config, "layout": layout, "others": others}
    whole = {"whole": np.concatenate(pieces), "ids": ids}
    return {name: json.dumps(value) for name, value in kept.items()} | whole | compute(model, ids)


def main() -> None:
    """Writes the file."""
    import transformers

    saved: dict[str, Any] = {"transformers": transformers.__version__}
    for case in CASES:
        kept = make(case)
        print(case, "logits", kept["logits"].std(), "gradient", kept["gradient"].std())
        saved |= {f"{case}/{name}": value for name, value in kept.items()}
    np.savez_compressed(GOLDEN, **saved)
    print(f"transformers {transformers.__version__}: {GOLDEN}, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
