"""Ranking a catalogue by beams, against `transformers` and against one user at a time.

    python tests/benchmarks/bench_decoding.py [--users 256] [--peer_batch 32] [--baseline_users 8]

needs torch and transformers. T5-small's shape with random weights, the same in both; ML-1M's
number of items (3,416) as strings "item_1" … cut into several tokens; prompts of 128 tokens; 10
beams. Peers, all in this run:

- transformers' `generate` with `prefix_allowed_tokens_fn` over a dict of prefixes, at the best of
  several batch sizes, each tried on a few users first;
- the filtered way that OpenP5 ships (github.com/agiresearch/OpenP5, src_t5): users one by one, as
  many beams as wanted items and seen ones together, seen ones dropped from the list afterwards;
  timed on a few users, and multiplied. Against it ours excludes within the search.

The floor is the encoder alone (about 5 GFLOP a user) at the speed of the largest of its products
alone. The last lines are JSON, one for each peer.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from ilm_jax.checkpoints.published.families.t5 import FAMILY
from ilm_jax.checkpoints.published.rules import apply
from ilm_jax.decoding.config import Buckets
from ilm_jax.decoding.generator import Generator
from ilm_jax.decoding.trie import build_trie
from ilm_jax.models.t5 import T5

ITEMS, PROMPT, BEAMS, VOCAB, EOS = 3416, 128, 10, 32128, 1


def item_strings() -> list[list[int]]:
    """Tokens of "item_1" to "item_3416": two for the word, then digits in pairs, then eos."""
    word, first = [1717, 834], 5000  # "item", "_" and 110 pieces of one or two digits

    def digits(text: str) -> list[int]:
        pieces = [text[i : i + 2] for i in range(0, len(text), 2)]
        return [first + (int(p) + 10 if len(p) == 2 else int(p)) for p in pieces]

    return [[*word, *digits(str(n)), EOS] for n in range(1, ITEMS + 1)]


def build_peer() -> Any:
    """A T5-small of transformers with random weights, and peaks in what it predicts."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(vocab_size=VOCAB, decoder_start_token_id=0)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.0)
    return model


def build_ours(peer: Any, rows: int) -> Generator:
    """The same weights in our model."""
    config = FAMILY.config(json.loads(json.dumps(peer.config.to_dict())))
    tensors = {name: leaf.detach().numpy() for name, leaf in peer.named_parameters()}
    flat: dict[str, Any] = {}
    for path, rule in FAMILY.rules(config).items():
        flat[path] = apply(rule, tensors.__getitem__)
    return Generator.for_lm(
        T5(config), _stack(flat), buckets=Buckets(lengths=(PROMPT,), rows=(rows,))
    )


def _stack(flat: dict[str, Any]) -> dict[str, Any]:
    """Layers as the scanned model holds them."""
    import re

    from flax.traverse_util import unflatten_dict

    groups: dict[str, list[Any]] = {}
    for name in sorted(flat):
        groups.setdefault(re.sub(r"layer_\d+", "layers/sub_0", name), []).append(flat[name])
    leaves = {
        name: jnp.asarray(np.stack(rows) if "layers/" in name else rows[0])
        for name, rows in groups.items()
    }
    return unflatten_dict(leaves, sep="/")


def peer_ranks(
    model: Any, tokens: np.ndarray, beams: int, trie: dict[tuple[int, ...], list[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """(sequences, scores) of one batch, as a user of transformers would get them."""
    import torch

    ids = torch.from_numpy(np.pad(tokens, ((0, 0), (0, 1)), constant_values=EOS)).long()
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            num_beams=beams,
            num_return_sequences=beams,
            do_sample=False,
            max_new_tokens=5,
            length_penalty=0.0,
            prefix_allowed_tokens_fn=lambda _, sent: trie.get(tuple(sent[1:].tolist()), [0]),
            output_scores=True,
            return_dict_in_generate=True,
        )
    size = len(tokens)
    return (
        out.sequences[:, 1:].numpy().reshape(size, beams, -1),
        out.sequences_scores.numpy().reshape(size, beams),
    )


def prefixes(strings: list[list[int]]) -> dict[tuple[int, ...], list[int]]:
    """What may follow each beginning: a lookup, and so faster than a walk."""
    found: dict[tuple[int, ...], set[int]] = {}
    for string in strings:
        for end in range(len(string)):
            found.setdefault(tuple(string[:end]), set()).add(string[end])
    return {prefix: sorted(tokens) for prefix, tokens in found.items()}


def seconds(run: Callable[[], Any]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def floor(users: int) -> tuple[float, float, float]:
    """(encoder's FLOPs of a user, GFLOP/s of its largest product alone, seconds of all users)."""
    layer = 4 * 512 * 512 + 2 * 512 * 2048
    flops = 6 * 2.0 * (PROMPT + 1) * (layer + 2 * (PROMPT + 1) * 512)
    x, w = jnp.ones((64 * PROMPT, 512)), jnp.ones((512, 2048))
    product = jax.jit(jnp.dot)
    product(x, w).block_until_ready()
    best = min(seconds(lambda: product(x, w).block_until_ready()) for _ in range(5))
    speed = 2.0 * x.shape[0] * 512 * 2048 / best
    return flops, speed / 1e9, users * flops / speed


def flags() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=256)
    parser.add_argument("--rows", type=int, default=32, help="our batch")
    parser.add_argument("--peer_batches", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--peer_users", type=int, default=256, help="timed and multiplied if fewer")
    parser.add_argument("--baseline_users", type=int, default=8)
    parser.add_argument("--seen", type=int, default=95, help="ML-1M's median history")
    return parser.parse_args()


def best_batch(rank: Callable[[int, int], Any], sizes: Sequence[int]) -> int:
    """The peer's fastest batch size, each tried on as many users; prints all."""
    tried = {size: seconds(lambda size=size: rank(0, size)) / size for size in sizes}
    best = min(tried, key=lambda size: tried[size])
    shown = ", ".join(f"{size}: {1000 * value:.0f}" for size, value in tried.items())
    print(f"transformers, ms a user by batch size: {shown}; best {best}")
    return best


def rank_in_batches(
    rank: Callable[[int, int], Any], size: int, timed: int, users: int
) -> tuple[list[Any], float]:
    """What the peer found for `timed` users, and the seconds that all `users` take at its speed."""
    parts: list[Any] = []
    spent = seconds(
        lambda: parts.extend(rank(i, min(i + size, timed)) for i in range(0, timed, size))
    )
    return parts, spent * (users / timed)


def main() -> None:
    """Runs all three and prints."""
    args = flags()
    rng = np.random.default_rng(0)
    strings = item_strings()
    peer = build_peer()
    ours, trie, tree = build_ours(peer, args.rows), build_trie(strings), prefixes(strings)
    tokens = rng.integers(10, 32000, (args.users, PROMPT)).astype(np.int32)
    batch = {"tokens": tokens, "lengths": np.full(args.users, PROMPT)}
    seen = np.stack([rng.choice(ITEMS, args.seen, replace=False) for _ in tokens])

    def peer_at(beams: int) -> Callable[[int, int], Any]:
        return lambda first, end: peer_ranks(peer, tokens[first:end], beams, tree)

    some = {name: value[: args.rows] for name, value in batch.items()}
    plain = seconds(lambda: ours.rank(some, trie, BEAMS))
    excluding = seconds(lambda: ours.rank(some, trie, BEAMS, excluded=seen[: args.rows]))
    print(f"ours: compilation and first batch {plain:.1f} s, with exclusion {excluding:.1f}")
    best = best_batch(peer_at(BEAMS), args.peer_batches)

    # Ours before and behind each peer, so that a machine that slows down slows both.
    found: list[Any] = []
    ours_s = [seconds(lambda: found.append(ours.rank(batch, trie, BEAMS)))]
    timed = min(args.peer_users, args.users)
    parts, peer_s = rank_in_batches(peer_at(BEAMS), best, timed, args.users)
    ours_s.append(seconds(lambda: ours.rank(batch, trie, BEAMS)))
    check(found[0], parts, strings)

    excluded_s = [seconds(lambda: ours.rank(batch, trie, BEAMS, excluded=seen))]
    one_by_one = peer_at(BEAMS + args.seen)
    _, one_s = rank_in_batches(one_by_one, 1, args.baseline_users, args.users)
    excluded_s.append(seconds(lambda: ours.rank(batch, trie, BEAMS, excluded=seen)))

    flops, speed, floor_s = floor(args.users)
    print(f"floor: the encoder alone, {flops / 1e9:.2f} GFLOP a user at {speed:.0f} GFLOP/s")
    print(
        f"ours twice {ours_s}, with exclusion {excluded_s}; fraction of the floor "
        f"{floor_s / min(ours_s):.2f}"
    )
    report(f"transformers, batch {best}", ours_s, peer_s, floor_s)
    report("one user at a time, filtered", excluded_s, one_s, floor_s)


def report(peer: str, ours_s: Sequence[float], peer_s: float, floor_s: float) -> None:
    """Prints the line of JSON of one peer; ours is the mean of its runs."""
    mine = float(np.mean(ours_s))
    line = {
        "benchmark": "decoding",
        "peer": peer,
        "ours_s": round(mine, 2),
        "peer_s": round(peer_s, 2),
        "ratio": round(peer_s / mine, 2),
        "floor_s": round(floor_s, 2),
    }
    print(json.dumps(line))


def check(found: Any, parts: list[Any], strings: list[list[int]]) -> None:
    """Raises AssertionError unless both found the same items with the same scores."""
    scores = np.concatenate([scores for _, scores in parts])
    np.testing.assert_allclose(found.scores[: len(scores)], scores, atol=1e-3)
    sequences = np.concatenate([np.pad(s, ((0, 0), (0, 0), (0, 5 - s.shape[2]))) for s, _ in parts])
    same = [
        [int(t) for t in text if t > EOS] == strings[item][:-1]
        for texts, items in zip(sequences, found.items, strict=False)
        for text, item in zip(texts, items, strict=True)
    ]
    print(
        f"items at the same place: {np.mean(same):.4f}; largest difference of scores "
        f"{np.abs(found.scores[: len(scores)] - scores).max():.1e}"
    )
    assert np.mean(same) > 0.98


if __name__ == "__main__":
    main()
