"""Makes goldens/t5.npz, what `transformers` computes with small random T5 models.

    python tests/parity/make_t5.py

needs torch and transformers. Weights are rounded to float16 so that the file stays small; logits
and gradients are float32.
"""

import json
import pathlib
from typing import Any

import numpy as np

GOLDEN = pathlib.Path(__file__).parent / "goldens" / "t5.npz"
START, EOS = 0, 1

# Two of each kind. Rows are longer than max_distance, encoder and decoder differ in depth, and
# heads times their width differ from the model's.
CASES: dict[str, dict[str, Any]] = {
    "t5_relu_tied": {
        "feed_forward_proj": "relu",
        "num_layers": 2,
        "num_decoder_layers": 3,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 20,
    },
    "t5_relu_tied_defaults": {
        "feed_forward_proj": "relu",
        "d_kv": 8,
        "num_heads": 4,
        "layer_norm_epsilon": 1e-5,
        "length": 150,
    },
    "flan_gated_untied": {
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "num_layers": 3,
        "num_decoder_layers": 1,
        "d_kv": 7,
        "num_heads": 2,
        "length": 150,
    },
    "flan_gated_untied_few_buckets": {
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "num_decoder_layers": 2,
        "num_layers": 1,
        "relative_attention_num_buckets": 12,
        "relative_attention_max_distance": 31,
        "d_ff": 20,
    },
}
SIZES = {
    "vocab_size": 40,
    "d_model": 24,
    "d_kv": 6,
    "num_heads": 3,
    "d_ff": 32,
    "num_layers": 2,
    "num_decoder_layers": 2,
}


def build(case: str, seed: int = 0) -> Any:
    """A random T5ForConditionalGeneration whose weights are float16 numbers."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    options = SIZES | {k: v for k, v in CASES[case].items() if k != "length"}
    model = T5ForConditionalGeneration(T5Config(**options)).eval()
    if options.get("tie_word_embeddings") is False:
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if "layer_norm" in name else 0.0
            spread = 0.6 if "relative" in name or "shared" in name else 0.25
            values = (around + spread * rng.normal(size=parameter.shape)).astype(np.float16)
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
    return model


def draw_batch(case: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Ragged inputs that end in EOS and ragged labels, both 0 beyond their lengths."""
    rng = np.random.default_rng(seed + 1)
    length, answer = CASES[case].get("length", 45), 25
    batch = {
        "inputs": rng.integers(2, 40, (2, length)),
        "labels": rng.integers(2, 40, (2, answer)),
        "input_lengths": np.array([length, length - 17]),
        "label_lengths": np.array([9, answer]),
    }
    for row, size in enumerate(batch["input_lengths"]):
        batch["inputs"][row, size - 1] = EOS
        batch["inputs"][row, size:] = 0
    for row, size in enumerate(batch["label_lengths"]):
        batch["labels"][row, size:] = 0
    return batch


def compute(model: Any, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Logits of all labels, and the gradient of their summed nll to the inputs' embeddings."""
    import torch

    ids, labels = (torch.from_numpy(batch[name]).long() for name in ("inputs", "labels"))
    embeds = model.shared(ids).detach().requires_grad_()
    given = torch.nn.functional.pad(labels[:, :-1], (1, 0), value=START)
    seen = torch.arange(ids.shape[1])[None] < torch.from_numpy(batch["input_lengths"])[:, None]
    logits = model(
        inputs_embeds=embeds, attention_mask=seen.long(), decoder_input_ids=given, use_cache=False
    ).logits
    counts = torch.arange(labels.shape[1])[None] < torch.from_numpy(batch["label_lengths"])[:, None]
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    (nll * counts).sum().backward()
    return {"logits": logits.detach().numpy(), "gradient": embeds.grad.numpy()}


def tensors(model: Any) -> dict[str, np.ndarray]:
    """The model's tensors as a safetensors file would hold them: shared ones once."""
    found = {name: leaf.detach().numpy() for name, leaf in model.named_parameters()}
    return {name: leaf for name, leaf in found.items() if "embed_tokens" not in name}


def main() -> None:
    """Writes the file."""
    import transformers

    saved: dict[str, Any] = {"transformers": transformers.__version__}
    for case in CASES:
        model, batch = build(case), draw_batch(case)
        saved[f"{case}/config"] = json.dumps(model.config.to_dict())
        for name, leaf in tensors(model).items():
            saved[f"{case}/tensor/{name}"] = leaf.astype(np.float16)
        for name, value in (batch | compute(model, batch)).items():
            saved[f"{case}/{name}"] = value
    np.savez_compressed(GOLDEN, **saved)
    print(f"transformers {transformers.__version__}: {GOLDEN}, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
