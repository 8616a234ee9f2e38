"""Makes goldens/generate.npz: what `transformers` generates with small random language models.

    python tests/parity/make_generate.py

needs torch and transformers. Weights are float16 numbers; prompts are ragged; item strings share
beginnings and end in eos; the second half of the prompts has items that are excluded.

case            covers
t5              encoder-decoder, default length penalty 1 and early stopping False, 10 beams
llama           decoder, length penalty 0 (log-probabilities), prompts padded on the left
t5_never        early stopping "never", length penalty 0.7
llama_never     the same with length penalty -0.5
llama_true      early stopping True, length penalty 1.5
t5_text         beams over the whole vocabulary, two end tokens
llama_text      the same, early stopping True
llama_greedy    no beams
"""

import pathlib
from typing import Any

import numpy as np

GOLDEN = pathlib.Path(__file__).parent / "goldens" / "generate.npz"
BEAMS, VOCAB, EOS, PAD, OTHER_END = 10, 50, 1, 0, 7
LENGTHS = (3, 20)

T5 = {
    "model_type": "t5",
    "vocab_size": VOCAB,
    "d_model": 24,
    "d_kv": 6,
    "num_heads": 3,
    "d_ff": 32,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "relative_attention_max_distance": 20,
    "relative_attention_num_buckets": 8,
    "decoder_start_token_id": 0,
}
LLAMA = {
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 2,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "tie_word_embeddings": False,
}
MODELS = {"t5": T5, "llama": LLAMA}

CASES: dict[str, dict[str, Any]] = {
    "t5": {"prompts": 200},
    "llama": {"prompts": 200, "length_penalty": 0.0},
    "t5_never": {"prompts": 40, "early_stopping": "never", "length_penalty": 0.7},
    "llama_never": {"prompts": 40, "early_stopping": "never", "length_penalty": -0.5},
    "llama_true": {"prompts": 40, "early_stopping": True, "length_penalty": 1.5},
    "t5_text": {"prompts": 40, "max_new_tokens": 9},
    "llama_text": {"prompts": 40, "max_new_tokens": 9, "early_stopping": True},
    "llama_greedy": {"prompts": 40, "max_new_tokens": 12, "num_beams": 1},
}


def options_of(case: str) -> dict[str, Any]:
    """Settings of `generate`, all of them."""
    plain = {"num_beams": BEAMS, "length_penalty": 1.0, "early_stopping": False}
    return plain | {"max_new_tokens": max(map(len, catalogue()))} | CASES[case]


def is_text(case: str) -> bool:
    """Whether any token may follow."""
    return "max_new_tokens" in CASES[case]


def catalogue() -> list[list[int]]:
    """Distinct strings of 2 to 6 tokens and eos, with a stem and many shared beginnings."""
    rng = np.random.default_rng(5)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < 120:
        middle = rng.integers(20, 26, 1).tolist() + rng.integers(30, 36, 1).tolist()
        found[(9, *middle, *rng.integers(40, 48, rng.integers(0, 4)).tolist(), EOS)] = None
    return [list(sequence) for sequence in found]


def build(kind: str, seed: int = 0) -> Any:
    """A random model whose weights are float16 numbers, with predictions that differ."""
    import torch
    import transformers

    options = {k: v for k, v in MODELS[kind].items() if k != "model_type"}
    torch.manual_seed(0)
    if kind == "t5":
        model: Any = transformers.T5ForConditionalGeneration(transformers.T5Config(**options))
    else:
        config = transformers.LlamaConfig(**options, attn_implementation="eager")
        model = transformers.LlamaForCausalLM(config)
    if kind == "t5":
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = "norm" in name
            spread = 0.6 if "shared" in name or "embed" in name or "relative" in name else 0.25
            values = float(scale) + spread * rng.normal(size=parameter.shape)
            values = values.astype(np.float16).astype(np.float32)
            parameter.copy_(torch.from_numpy(values))
    return model.eval()


def draw_prompts(case: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Tokens, right-padded, with their lengths and the items that are excluded (-1: none)."""
    rng = np.random.default_rng(seed + 1)
    size = CASES[case]["prompts"]
    lengths = rng.integers(*LENGTHS, size)
    tokens = np.where(
        np.arange(LENGTHS[1]) < lengths[:, None], rng.integers(8, VOCAB, (size, LENGTHS[1])), PAD
    )
    excluded = np.full((size, 60), -1)
    for row in range(size // 2, size):
        seen = rng.choice(len(catalogue()), rng.integers(1, 60), replace=False)
        excluded[row, : len(seen)] = seen
    return {"tokens": tokens.astype(np.int16), "lengths": lengths, "excluded": excluded}


def allowed(sequences: list[list[int]], barred: set[int]) -> dict[tuple[int, ...], list[int]]:
    """What may follow each beginning."""
    found: dict[tuple[int, ...], set[int]] = {}
    for row, sequence in enumerate(sequences):
        if row not in barred:
            for end in range(len(sequence)):
                found.setdefault(tuple(sequence[:end]), set()).add(sequence[end])
    return {prefix: sorted(tokens) for prefix, tokens in found.items()}


def generate(model: Any, case: str, prompts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Sequences without the prompt, and their scores (absent without beams)."""
    import torch

    options = {k: v for k, v in options_of(case).items() if k != "prompts"}
    ids, mask, start = model_inputs(case, prompts)
    beams = options["num_beams"]
    if is_text(case):
        options["eos_token_id"] = [EOS, OTHER_END]
    else:
        trees = [allowed(catalogue(), set(row[row >= 0].tolist())) for row in prompts["excluded"]]
        # Padding behind an end: beams without a string would end again and again with [EOS], and
        # with early_stopping=True such ends keep real ones out.
        options["prefix_allowed_tokens_fn"] = lambda row, sent: trees[row].get(
            tuple(sent[start:].tolist()), [PAD]
        )
    with torch.no_grad():
        out = model.generate(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask),
            do_sample=False,
            num_return_sequences=beams,
            pad_token_id=PAD,
            output_scores=True,
            return_dict_in_generate=True,
            **options,
        )
    sequences = out.sequences[:, start:].numpy().reshape(len(ids), beams, -1)
    found = {"sequences": sequences.astype(np.int16)}
    if beams > 1:
        found["scores"] = out.sequences_scores.numpy().reshape(len(ids), beams)
    return found


def model_inputs(case: str, prompts: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, int]:
    """(ids, mask, tokens before the first generated one) as the reference reads prompts."""
    tokens, lengths = prompts["tokens"].astype(np.int64), prompts["lengths"]
    size, width = tokens.shape
    if case.startswith("t5"):
        ids = np.pad(tokens, ((0, 0), (0, 1)))
        ids[np.arange(size), lengths] = EOS
        return ids, (np.arange(width + 1) <= lengths[:, None]).astype(np.int64), 1
    ids = np.zeros_like(tokens)
    for row, length in enumerate(lengths):
        ids[row, width - length :] = tokens[row, :length]
    return ids, (np.arange(width) >= width - lengths[:, None]).astype(np.int64), width


def tensors(model: Any) -> dict[str, np.ndarray]:
    """The model's tensors as a safetensors file would hold them: shared ones once."""
    found = {name: leaf.detach().numpy() for name, leaf in model.named_parameters()}
    return {name: leaf for name, leaf in found.items() if "coder.embed_tokens" not in name}


def main() -> None:
    """Writes the file."""
    import transformers

    saved: dict[str, Any] = {"transformers": transformers.__version__}
    for kind in MODELS:
        model = build(kind)
        saved[f"{kind}/config"] = model.config.to_json_string()
        for name, leaf in tensors(model).items():
            saved[f"{kind}/tensor/{name}"] = leaf.astype(np.float16)
        for case in CASES:
            if case.startswith(kind):
                found = generate(model, case, draw_prompts(case))
                saved |= {f"{case}/{name}": value for name, value in found.items()}
    np.savez_compressed(GOLDEN, **saved)
    print(f"transformers {transformers.__version__}: {GOLDEN}, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
