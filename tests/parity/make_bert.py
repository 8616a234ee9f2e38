"""Makes goldens/bert_*: `python -m tests.parity.make_bert`, with torch and transformers.

Options covered: padding; saved as BertModel, and as BertForMaskedLM (prefix and heads) with norms
named gamma and beta as in the oldest checkpoints; another epsilon and one token type.
"""

import pathlib

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.parity.folder import GOLDENS, randomise, read_config, save

CASES = ("bert_plain", "bert_masked_lm")
TOKENS = np.array([[2, 7, 30, 11, 5, 9, 3], [2, 19, 4, 3, 0, 0, 0], [2, 3, 0, 0, 0, 0, 0]])
SIZES = dict(vocab_size=37, hidden_size=16, intermediate_size=24, max_position_embeddings=12)


def reference(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """What transformers computes: hidden states, gradient with respect to the word vectors."""
    import torch
    from transformers import BertForMaskedLM, BertModel

    if "BertForMaskedLM" in read_config(folder)["architectures"]:
        model = BertForMaskedLM.from_pretrained(folder).bert
    else:
        model = BertModel.from_pretrained(folder)
    model = model.eval()
    tokens = torch.tensor(TOKENS)
    words = model.embeddings.word_embeddings(tokens).detach().requires_grad_()
    hidden = model(inputs_embeds=words, attention_mask=(tokens != 0).long()).last_hidden_state
    weights = np.random.default_rng(1).normal(size=hidden.shape).astype(np.float32)
    (hidden * torch.tensor(weights)).sum().backward()
    return {
        "hidden": hidden.detach().numpy(),
        "weights": weights,
        "gradient": words.grad.numpy(),
    }


def main() -> None:
    """Writes both cases."""
    from transformers import BertConfig, BertForMaskedLM, BertModel

    plain = BertConfig(num_hidden_layers=3, num_attention_heads=2, **SIZES)
    lm = BertConfig(
        num_hidden_layers=2,
        num_attention_heads=4,
        layer_norm_eps=1e-5,
        type_vocab_size=1,
        **SIZES,
    )
    for name, model in zip(CASES, (BertModel(plain), BertForMaskedLM(lm)), strict=True):
        save(name, randomise(model, seed=3), {})
        folder = GOLDENS / name
        outputs = reference(folder)
        save(name, type(model).from_pretrained(folder), outputs)
    file = GOLDENS / "bert_masked_lm" / "model.safetensors"
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = load_file(file)
    for new, was in old.items():
        tensors = {name.replace(new, was): array for name, array in tensors.items()}
    save_file(tensors, file, {"format": "pt"})


if __name__ == "__main__":
    main()
