"""The peer of bench_real_lm: transformers' Llama, frozen, in PyTorch; needs nothing of ilm_jax.

It is started by the benchmark with its settings as JSON, takes a step for each line that it reads,
and answers with its seconds; see worker.py, whose other end is the same.
"""

import json
import resource
import sys
import time


def main() -> None:
    """Answers lines of stdin until it is closed."""
    import torch
    import transformers

    shape = json.loads(sys.argv[1])
    torch.set_num_threads(shape["threads"])
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=shape["vocab"],
        hidden_size=shape["width"],
        intermediate_size=shape["mlp"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config).requires_grad_(False).eval()
    model = model.to(getattr(torch, shape["dtype"]))
    rows, length, targets, slots = (shape[n] for n in ("rows", "length", "targets", "slots"))
    vectors = torch.randn(rows, shape["cf"])
    adaptor = torch.nn.Linear(shape["cf"], slots * shape["width"])
    optimizer = torch.optim.AdamW(adaptor.parameters(), lr=1e-4)
    tokens = torch.randint(6, shape["vocab"], (rows, length - slots))
    labels = torch.randint(6, shape["vocab"], (rows, targets))

    def step() -> None:
        soft = adaptor(vectors).reshape(rows, slots, shape["width"]).to(model.dtype)
        embeddings = torch.cat([soft, model.get_input_embeddings()(tokens)], dim=1)
        hidden = model.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[:, length - targets :])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    print(json.dumps({"versions": f"torch {torch.__version__}"}), flush=True)
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        step()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak}), flush=True)


if __name__ == "__main__":
    main()
