"""The peers of bench_steps in PyTorch, from transformers' modules; needs nothing of ilm_jax.

    PYTHON steps_peer.py SHAPE    # as bench_steps starts it, SHAPE being JSON

Stage 1 is BLIP-2's: the text and the queries alone for ITC, three pairs a row for ITM, and the
caption behind the queries for ITG, in transformers' Q-Former, whose mask of four dimensions makes
the caption causal. T5 is transformers' own loss.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any


class StageOne:
    """BLIP-2's three losses over vectors in the place of images."""

    def __init__(self, shape: dict[str, Any]) -> None:
        """Modules, random rows and the optimizer."""
        import torch
        from torch.nn import Linear, Parameter
        from transformers.models.blip_2 import modeling_blip_2 as blip

        width, rows, count, length = (shape[n] for n in ("width", "rows", "queries", "length"))
        config = blip.Blip2QFormerConfig(
            vocab_size=shape["vocab"],
            hidden_size=width,
            num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"],
            intermediate_size=4 * width,
            hidden_dropout_prob=shape["dropout"],
            attention_probs_dropout_prob=shape["dropout"],
            cross_attention_frequency=2,
            encoder_hidden_size=width,
            use_qformer_text_input=True,
        )
        self.rows, self.count = rows, count
        self.qformer, self.words = blip.Blip2QFormerModel(config), blip.Blip2TextEmbeddings(config)
        self.to_token, self.match = Linear(shape["cf"], width), Linear(width, 2)
        self.project_query, self.project_text = Linear(width, 256), Linear(width, 256)
        self.transform = torch.nn.Sequential(
            Linear(width, width), torch.nn.GELU(), torch.nn.LayerNorm(width)
        )
        self.queries = Parameter(torch.randn(1, count, width) * 0.02)
        self.bias = Parameter(torch.zeros(shape["vocab"]))
        self.log_temperature = Parameter(torch.tensor(0.07).log())
        self.text = torch.randint(6, shape["vocab"], (rows, length))
        self.vectors = torch.randn(rows, shape["cf"])
        # Queries see queries; a word sees queries and the words up to itself.
        self.causal = torch.ones(count + length, count + length, dtype=torch.bool).tril()
        self.causal[:count] = False
        self.causal[:, :count] = True
        parts = [
            p
            for part in vars(self).values()
            if hasattr(part, "parameters")
            for p in part.parameters()
        ]
        alone = [self.queries, self.bias, self.log_temperature]
        self.optimizer = torch.optim.AdamW([*parts, *alone], lr=1e-4)

    def step(self) -> None:
        """One update."""
        tokens = self.to_token(self.vectors)[:, None]
        itc, hard_text, hard_item = self.contrast(tokens)
        itm = self.matching(tokens, hard_text, hard_item)
        _update(self.optimizer, itc + itm + self.captions(tokens))

    def contrast(self, tokens: Any) -> tuple[Any, Any, Any]:
        """(ITC, a hard text of each item, a hard item of each text)."""
        import torch
        from torch.nn import functional as nnf

        read = self.qformer(
            query_embeds=self.queries.expand(self.rows, -1, -1), encoder_hidden_states=tokens
        ).last_hidden_state
        alone = self.qformer(
            query_embeds=self.words(input_ids=self.text),
            query_length=0,
            attention_mask=torch.ones_like(self.text),
        ).last_hidden_state
        left = nnf.normalize(self.project_query(read), dim=-1)
        right = nnf.normalize(self.project_text(alone[:, 0]), dim=-1)
        scores = torch.einsum("aqd,bd->abq", left, right).max(-1).values
        both, answer = scores / self.log_temperature.exp(), torch.arange(self.rows)
        ways = (both, both.T)
        loss = sum(nnf.cross_entropy(way, answer, label_smoothing=0.1) for way in ways) / 2
        with torch.no_grad():
            chances = [way.softmax(1).clone().fill_diagonal_(0) + 1e-9 for way in ways]
            return loss, *(torch.multinomial(chance, 1)[:, 0] for chance in chances)

    def matching(self, tokens: Any, hard_text: Any, hard_item: Any) -> Any:
        """ITM over each pair, and each item and text with a hard other."""
        import torch

        texts = torch.cat([self.text, self.text[hard_text], self.text])
        queries = self.queries.expand(3 * self.rows, -1, -1)
        both = self.words(input_ids=texts, query_embeds=queries)
        hidden = self.qformer(
            query_embeds=both,
            query_length=self.count,
            attention_mask=torch.ones(both.shape[:2], dtype=torch.long),
            encoder_hidden_states=torch.cat([tokens, tokens, tokens[hard_item]]),
        ).last_hidden_state
        labels = torch.tensor([1, 0, 0]).repeat_interleave(self.rows)
        matches = self.match(hidden[:, : self.count]).mean(1)
        return torch.nn.functional.cross_entropy(matches, labels)

    def captions(self, tokens: Any) -> Any:
        """ITG."""
        import torch

        queries = self.queries.expand(self.rows, -1, -1)
        hidden = self.qformer(
            query_embeds=self.words(input_ids=self.text, query_embeds=queries),
            query_length=self.count,
            attention_mask=self.causal.expand(self.rows, 1, -1, -1),
            encoder_hidden_states=tokens,
        ).last_hidden_state[:, self.count : -1]
        logits = self.transform(hidden) @ self.words.word_embeddings.weight.T + self.bias
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), self.text[:, 1:].flatten(), label_smoothing=0.1
        )


def stage_one(shape: dict[str, Any]) -> Callable[[], None]:
    """A step of ITC, ITM and ITG."""
    return StageOne(shape).step


def t5(shape: dict[str, Any]) -> Callable[[], None]:
    """A step of transformers' T5, all trained, or frozen behind a linear layer's soft tokens."""
    import torch
    import transformers

    rows, slots, width = shape["rows"], shape["slots"], shape["width"]
    config = transformers.T5Config(
        vocab_size=shape["vocab"],
        d_model=width,
        d_kv=width // shape["heads"],
        d_ff=4 * width,
        num_layers=shape["layers"],
        num_heads=shape["heads"],
        dropout_rate=shape["dropout"],
        feed_forward_proj="relu",
        decoder_start_token_id=0,
    )
    model = transformers.T5ForConditionalGeneration(config).train()
    tokens = torch.randint(6, shape["vocab"], (rows, shape["length"] - slots))
    labels = torch.randint(6, shape["vocab"], (rows, shape["targets"]))
    vectors = torch.randn(rows, max(1, slots // 8), shape["cf"])
    adaptor = torch.nn.Linear(shape["cf"], 8 * width)
    trained = list(adaptor.parameters()) if slots else list(model.parameters())
    if slots:
        model.requires_grad_(False)
    optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def step() -> None:
        if slots:
            soft = adaptor(vectors).reshape(rows, slots, width)
            embeddings = torch.cat([soft, model.shared(tokens)], dim=1)
            found = model(inputs_embeds=embeddings, labels=labels)
        else:
            found = model(input_ids=tokens, labels=labels)
        _update(optimizer, found.loss)

    return step


def _update(optimizer: Any, loss: Any) -> None:
    """The gradient's norm is cut at 1, as ours is."""
    import torch

    optimizer.zero_grad()
    loss.backward()
    for group in optimizer.param_groups:
        torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()


def main() -> None:
    """Answers lines of stdin until it is closed."""
    import torch

    shape = json.loads(sys.argv[1])
    torch.set_num_threads(shape["threads"])
    torch.manual_seed(0)
    torch.set_default_device(shape["device"])
    step = {"stage_one": stage_one, "t5": t5}[shape["model"]](shape)
    print(json.dumps({"versions": f"torch {torch.__version__}"}), flush=True)
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        step()
        if shape["device"] == "cuda":
            torch.cuda.synchronize()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak}), flush=True)


if __name__ == "__main__":
    main()
