"""A small item-language model with prompts, and everything that is measured of it."""

import types

import jax
import numpy as np

from ilm_jax.data.examples.prompts import ITEM_SLOT
from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.streams.feed import Feed
from ilm_jax.decoding.trie import build_trie
from ilm_jax.evaluation.measures import passes
from ilm_jax.evaluation.measures.generation import GenerationMeasure
from ilm_jax.evaluation.measures.language import LanguageMeasure
from ilm_jax.evaluation.measures.passes import ModelOnMesh
from ilm_jax.evaluation.measures.ranking import RankingMeasure
from ilm_jax.sharding.state import describe_variables, initialise, nested
from tests.training import models

TOKENIZER = types.SimpleNamespace(
    bos_id=1,
    eos_id=2,
    pad_id=0,
    chat=None,
    decode=lambda ids, continues=False: " ".join(map(str, ids)),
)
EXAMPLES = 37  # no multiple of any batch


class Examples(list):
    """A stream of examples that are simply there."""

    len_epoch = property(len)


def example(number):
    """A prompt of words and two slots; the answer names an item in two tokens."""
    draw = np.random.default_rng([3, number])
    words = draw.integers(6, models.VOCAB, draw.integers(2, 6)).tolist()
    target = int(draw.integers(models.ITEMS))
    answer = np.array([*item_tokens(target), 2], np.int32)
    return {
        "key": f"e{number}",
        "user": f"u{number}",
        "template": "t",
        "catalogue": "toy",
        "target_item": target,
        "target_text": " ".join(map(str, item_tokens(target))),
        "inputs": np.array([*words[:1], ITEM_SLOT, *words[1:], ITEM_SLOT], np.int32),
        "targets": answer,
        "targets_content": np.array([1, 1, 0], np.int32),
        "slots": draw.integers(0, models.ITEMS, 2).astype(np.int32),
        "history_bounds": np.array([], np.int32),
    }


def item_tokens(row):
    return [6 + row // 8, 20 + row % 8]


def small_feed(number=EXAMPLES):
    """Examples and the converter that `models.ILM` reads."""
    converter = PromptConverter(
        {"inputs": 16, "targets": 3},
        TOKENIZER,
        num_queries=models.QFORMER.num_queries,
        max_entities=2,
        rows=lambda block, rows: np.asarray(rows, np.int64),
    )
    return Feed(Examples(map(example, range(number))), converter)


def small_trie():
    return build_trie([[*item_tokens(row), 2] for row in range(models.ITEMS)])


def parameters(partitioner):
    """Fresh ones, drawn alike on every mesh, with sharper logits than fresh ones give."""
    variables = describe_variables(models.ILM)
    drawn = initialise(models.ILM, variables, list(variables), partitioner, jax.random.key(0))
    return nested(
        {path: x * 8 if path == "lm/token_embed/embedding" else x for path, x in drawn.items()}
    )


def measure_all(partitioner):
    """What every measure finds, as plain lists; several batches, the last one with padding."""
    passes.BATCH = 8
    model, feed = ModelOnMesh(models.ILM, partitioner, models.table()), small_feed()
    params = parameters(partitioner)
    language = LanguageMeasure(model, feed)(params)
    ranking = RankingMeasure(model, feed, small_trie(), beams=10)
    ranked, some = ranking(params), ranking(params, np.array([30, 2, 9]))
    written = GenerationMeasure(model, feed, TOKENIZER, steps=4)(params)
    return {
        "index": language.index.tolist(),
        "nll": language.nll_sum.tolist(),
        "tokens": language.tokens.tolist(),
        "content": language.content_nll_sum.tolist(),
        "users": ranked.index.tolist(),
        "targets": ranked.targets.tolist(),
        "lists": ranked.lists.tolist(),
        "scores": ranked.scores.tolist(),
        "written": written.predictions,
        "some": some.index.tolist(),
        "few": some.lists.tolist(),
    }
