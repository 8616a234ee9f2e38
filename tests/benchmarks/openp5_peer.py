"""The peer of bench_openp5: OpenP5's training in PyTorch; needs nothing of ilm_jax.

usage: PYTHON openp5_peer.py FOLDER SEED

FOLDER holds config.json, weights.npz (by transformers' names, and "whole_word") and batches.npz,
all from the benchmark. Prints a line of JSON a step, and writes what it trained to FOLDER/peer.npz.
What transformers 5 no longer has (AdamW) and what OpenP5 adds to it are written out here.
"""

import json
import math
import pathlib
import sys
import time
from collections.abc import Iterable
from typing import Any

import numpy as np


class Parameters:
    """Transformers' T5 with whole-word embeddings; the output layer is the token table, scaled."""

    def __init__(self, config: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
        import torch
        import transformers

        sizes = transformers.T5Config(
            vocab_size=config["vocab_size"],
            d_model=config["embed_dim"],
            d_kv=config["head_dim"],
            d_ff=config["mlp_dim"],
            num_layers=config["num_layers"],
            num_heads=config["num_heads"],
            dropout_rate=config["dropout"],
            feed_forward_proj="relu",
        )
        sizes._attn_implementation = "eager"
        self.model = transformers.T5ForConditionalGeneration(sizes)
        self.words = torch.nn.Embedding(config["word_rows"], config["embed_dim"])
        own = {name: torch.from_numpy(array) for name, array in weights.items()}
        self.words.load_state_dict({"weight": own.pop("whole_word")})
        found = self.model.load_state_dict(own, strict=False)
        copies = ("embed_tokens.weight", "lm_head.weight")
        lacking = [name for name in found.missing_keys if not name.endswith(copies)]
        assert not lacking and not found.unexpected_keys, (lacking, found.unexpected_keys)
        self._names = {*own}

    def named(self) -> list[tuple[str, Any]]:
        """Every parameter once."""
        own = [(n, p) for n, p in self.model.named_parameters() if n in self._names]
        assert len(own) == len(self._names)
        return [("whole_word", self.words.weight), *own]

    def loss(self, batch: dict[str, Any]) -> Any:
        """Mean over the tokens of a sample, then over samples."""
        import torch

        model, shared = self.model, self.model.shared
        read = shared(batch["inputs"]) + self.words(batch["words"])
        mask = batch["inputs_mask"]
        memory = model.encoder(inputs_embeds=read, attention_mask=mask).last_hidden_state
        labels, told = batch["labels"], batch["labels_mask"].float()
        before = torch.cat([torch.zeros_like(labels[:, :1]), labels[:, :-1]], dim=1)
        hidden = model.decoder(
            inputs_embeds=shared(before),
            encoder_hidden_states=memory,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        logits = (hidden * hidden.shape[-1] ** -0.5) @ shared.weight.T
        each = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="none"
        )
        each = each.view(labels.shape) * told
        return (each.sum(dim=1) / told.sum(dim=1).clamp(min=1)).mean()


class AdamW:
    """The AdamW of transformers 4: epsilon before the bias is corrected, decay after the step."""

    def __init__(self, named: Iterable[tuple[str, Any]], decay: float, eps: float) -> None:
        import torch

        self._eps, self._step = eps, 0
        self._slots = [
            (p, torch.zeros_like(p), torch.zeros_like(p), 0.0 if _plain(name) else decay)
            for name, p in named
        ]

    def step(self, rate: float) -> None:
        """One update of every parameter from its gradient."""
        b1, b2 = 0.9, 0.999
        self._step += 1
        size = rate * math.sqrt(1 - b2**self._step) / (1 - b1**self._step)
        for p, first, second, decay in self._slots:
            first.mul_(b1).add_(p.grad, alpha=1 - b1)
            second.mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
            p.data.addcdiv_(first, second.sqrt().add_(self._eps), value=-size)
            if decay:
                p.data.add_(p.data, alpha=-rate * decay)


def _plain(name: str) -> bool:
    """Whether OpenP5's list names the parameter, which then does not decay."""
    return any(part in name for part in ("bias", "LayerNorm.weight"))


def main() -> None:
    """Trains over all batches."""
    import torch

    folder, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    config = json.loads((folder / "config.json").read_text())
    torch.set_num_threads(config["threads"])
    torch.manual_seed(seed)
    with np.load(folder / "weights.npz") as weights:
        model = Parameters(config, dict(weights))
    model.model.train()
    named = model.named()
    optimizer = AdamW(named, config["weight_decay"], config["eps"])
    total, warmup = config["total"], config["warmup"]
    with np.load(folder / "batches.npz") as stored:
        batches = {name: torch.from_numpy(array) for name, array in stored.items()}
    for step in range(len(batches["inputs"])):
        start = time.perf_counter()
        left = step / warmup if step < warmup else max(0.0, (total - step) / (total - warmup))
        loss = model.loss({name: array[step] for name, array in batches.items()})
        loss.backward()
        parameters = [p for _, p in named]
        norm = torch.nn.utils.clip_grad_norm_(parameters, config["clip"])
        optimizer.step(config["rate"] * left)
        for p in parameters:
            p.grad = None
        seconds = time.perf_counter() - start
        print(
            json.dumps({"loss": loss.item(), "norm": norm.item(), "seconds": seconds}), flush=True
        )
    np.savez(folder / "peer.npz", **{name: p.detach().numpy() for name, p in named})
    print(json.dumps({"versions": f"torch {torch.__version__}"}))


if __name__ == "__main__":
    main()
