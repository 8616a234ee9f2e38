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


def stage_one(shape: dict[str, Any]) -> Callable[[], None]:
    """A step of ITC, ITM and ITG."""
    import torch
    from torch.nn import functional as nnf
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
    qformer, words = blip.Blip2QFormerModel(config), blip.Blip2TextEmbeddings(config)
    queries = torch.nn.Parameter(torch.randn(1, count, width) * 0.02)
    to_token = torch.nn.Linear(shape["cf"], width)
    project_query, project_text = torch.nn.Linear(width, 256), torch.nn.Linear(width, 256)
    match = torch.nn.Linear(width, 2)
    transform = torch.nn.Sequential(
        torch.nn.Linear(width, width), torch.nn.GELU(), torch.nn.LayerNorm(width)
    )
    bias = torch.nn.Parameter(torch.zeros(shape["vocab"]))
    log_temperature = torch.nn.Parameter(torch.tensor(0.07).log())
    modules = (qformer, words, to_token, project_query, project_text, match, transform)
    own = [p for module in modules for p in module.parameters()]
    optimizer = torch.optim.AdamW([*own, queries, bias, log_temperature], lr=1e-4)
    text = torch.randint(6, shape["vocab"], (rows, length))
    vectors = torch.randn(rows, shape["cf"])
    whole = torch.ones(rows, length, dtype=torch.long)
    # Queries see queries; a word sees queries and the words up to itself.
    causal = torch.ones(count + length, count + length, dtype=torch.bool).tril()
    causal[:count] = False
    causal[:, :count] = True

    def step() -> None:
        tokens, expanded = to_token(vectors)[:, None], queries.expand(rows, -1, -1)
        read = qformer(query_embeds=expanded, encoder_hidden_states=tokens).last_hidden_state
        alone = qformer(
            query_embeds=words(input_ids=text), query_length=0, attention_mask=whole
        ).last_hidden_state
        left = nnf.normalize(project_query(read), dim=-1)
        right = nnf.normalize(project_text(alone[:, 0]), dim=-1)
        scores = torch.einsum("aqd,bd->abq", left, right).max(-1).values / log_temperature.exp()
        answer = torch.arange(rows)
        itc = sum(nnf.cross_entropy(s, answer, label_smoothing=0.1) for s in (scores, scores.T)) / 2
        with torch.no_grad():
            chance = scores.softmax(1).clone().fill_diagonal_(0), scores.T.softmax(1).clone()
            chance[1].fill_diagonal_(0)
            hard_text, hard_item = (torch.multinomial(c + 1e-9, 1)[:, 0] for c in chance)
        three_tokens = torch.cat([tokens, tokens, tokens[hard_item]])
        three_texts = torch.cat([text, text[hard_text], text])
        both = words(input_ids=three_texts, query_embeds=queries.expand(3 * rows, -1, -1))
        seen = torch.ones(3 * rows, count + length, dtype=torch.long)
        hidden = qformer(
            query_embeds=both,
            query_length=count,
            attention_mask=seen,
            encoder_hidden_states=three_tokens,
        ).last_hidden_state
        labels = torch.tensor([1, 0, 0]).repeat_interleave(rows)
        itm = nnf.cross_entropy(match(hidden[:, :count]).mean(1), labels)
        captions = qformer(
            query_embeds=words(input_ids=text, query_embeds=expanded),
            query_length=count,
            attention_mask=causal.expand(rows, 1, -1, -1),
            encoder_hidden_states=tokens,
        ).last_hidden_state[:, count:-1]
        logits = transform(captions) @ words.word_embeddings.weight.T + bias
        itg = nnf.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten(), label_smoothing=0.1)
        _update(optimizer, itc + itm + itg)

    return step


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
