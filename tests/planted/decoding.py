"""Slips in sampling, beam search, tries and exhaustive ranking."""

from tests.planted import Fault

_SAMPLING = "tests/decoding/test_sampling.py"
_BEAM = "tests/decoding/test_beam.py"
_GENERATE = "tests/parity/test_generate.py -k goldens"
_EXCLUSION = "tests/decoding/test_exclusion.py"

FAULTS = (
    Fault(
        "top_p takes one token more", "ilm_jax/decoding/sampling.py",
        "before < config.top_p", "before <= config.top_p", _SAMPLING,
    ),
    Fault(
        "top_p counts the token itself", "ilm_jax/decoding/sampling.py",
        "jnp.cumsum(ranked, axis=-1) - ranked", "jnp.cumsum(ranked, axis=-1)", _SAMPLING,
    ),
    Fault(
        "top_p goes back by the wrong order", "ilm_jax/decoding/sampling.py",
        "jnp.argsort(order, axis=-1), axis=-1)", "order, axis=-1)", _SAMPLING,
    ),
    Fault(
        "top_k keeps one token less", "ilm_jax/decoding/sampling.py",
        "jnp.where(logits < least,", "jnp.where(logits <= least,", _SAMPLING,
    ),
    Fault(
        "temperature multiplies", "ilm_jax/decoding/sampling.py",
        "logits / config.temperature", "logits * config.temperature", _SAMPLING,
    ),
    Fault(
        "scores are of the warped distribution", "ilm_jax/decoding/sampling.py",
        "jax.nn.log_softmax(logits), token[:, None]",
        "jax.nn.log_softmax(warp(logits, config)), token[:, None]", _SAMPLING,
    ),
    Fault(
        "every step of a row draws alike", "ilm_jax/decoding/sampling.py",
        "jax.random.fold_in(jax.random.key(config.seed), state.step)",
        "jax.random.key(config.seed)", _SAMPLING,
    ),
    Fault(
        "the seed is not used", "ilm_jax/decoding/sampling.py",
        "jax.random.key(config.seed)", "jax.random.key(0)", _SAMPLING,
    ),
    Fault(
        "all rows draw alike", "ilm_jax/decoding/sampling.py",
        "jax.vmap(jax.random.fold_in, (None, 0))(seed, rows)",
        "jax.vmap(jax.random.fold_in, (None, 0))(seed, 0 * rows)", _SAMPLING,
    ),
    Fault(
        "a text is one token short", "ilm_jax/decoding/sampling.py",
        "(state.step + 1 < config.max_new_tokens)", "(state.step + 2 < config.max_new_tokens)",
        "tests/decoding/test_greedy.py tests/serving/test_answering.py",
    ),
    Fault(
        "lengths count the end of closed rows", "ilm_jax/decoding/sampling.py",
        "count + state.is_open, state.step", "count + 1, state.step",
        "tests/decoding/test_greedy.py tests/serving/test_answering.py",
    ),
    Fault(
        "what is gained is not normalised", "ilm_jax/decoding/beam.py",
        "gained = gained - jax.nn.logsumexp(logits, axis=-1, keepdims=True)", "pass", _BEAM,
    ),
    Fault(
        "the stem costs nothing", "ilm_jax/decoding/beam.py",
        "jnp.take_along_axis(log_probs, tokens[..., None], 2).sum(axis=1)",
        "0 * jnp.take_along_axis(log_probs, tokens[..., None], 2).sum(axis=1)",
        f"{_BEAM} {_EXCLUSION}",
    ),
    Fault(
        "lanes are one place late", "ilm_jax/decoding/beam.py",
        "past = self.trie.stem.shape[1] + state.level - 1",
        "past = self.trie.stem.shape[1] + state.level", _BEAM,
    ),
    Fault(
        "children come from the lane beside", "ilm_jax/decoding/beam.py",
        "jnp.arange(scores.shape[1], dtype=jnp.int32) // width",
        "jnp.arange(scores.shape[1], dtype=jnp.int32) % len(state.nodes[0])", _BEAM,
    ),
    Fault(
        "lengths leave out the last token", "ilm_jax/decoding/beam.py",
        "length = trie.stem.shape[1] + level\n", "length = trie.stem.shape[1] + level - 1\n",
        _GENERATE,
    ),
    Fault(
        "a search ends at the best finished", "ilm_jax/decoding/pool.py",
        "<= pool.scores[:, -1]", "<= pool.scores[:, 0]", _GENERATE,
    ),
    Fault(
        "scores are multiplied by the length", "ilm_jax/decoding/pool.py",
        "jnp.asarray(length, jnp.float32) ** length_penalty",
        "jnp.asarray(length, jnp.float32) ** -length_penalty", _GENERATE,
    ),
    Fault(
        "a row that is done still takes in", "ilm_jax/decoding/pool.py",
        "scores = jnp.where(done[:, None], -jnp.inf, scores)\n", "pass\n", _GENERATE,
    ),
    Fault(
        "an item excluded twice closes two leaves", "ilm_jax/decoding/trie.py",
        "real = (items >= 0) & ~repeats &", "real = (items >= 0) &", _EXCLUSION,
    ),
    Fault(
        "a shared string closes with its first item", "ilm_jax/decoding/trie.py",
        "(times == sharing[", "(times <= sharing[", _EXCLUSION,
    ),
    Fault(
        "a node closes when one leaf remains", "ilm_jax/decoding/trie.py",
        "_below(closed, low) == high - low", "_below(closed, low) >= high - low - 1", _EXCLUSION,
    ),
    Fault(
        "other catalogues' rows are not shifted", "ilm_jax/decoding/trie.py",
        "items + trie.item_base[catalogue][:, None], 0)", "items, 0)", _EXCLUSION,
    ),
    Fault(
        "an item's strings count by the best", "ilm_jax/decoding/items.py",
        "return (safe + jnp.log(total))[run]", "return most[run]", _EXCLUSION,
    ),
    Fault(
        "long strings lack their first tokens", "ilm_jax/decoding/exhaustive.py",
        "for _ in range(trie.depth - 1):", "for _ in range(trie.depth - 2):",
        f"{_BEAM} {_EXCLUSION}",
    ),
    Fault(
        "a node does not see itself", "ilm_jax/decoding/exhaustive.py",
        "for above in path[: i + 1]]] = True", "for above in path[:i]]] = True",
        f"{_BEAM} {_EXCLUSION}",
    ),
)  # fmt: skip
