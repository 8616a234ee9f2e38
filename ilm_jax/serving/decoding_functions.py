"""A whole decoding as a pure function of weights and prompts, which an export writes down."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Float32, Int32, PyTree

from ilm_jax.decoding.beam import beam_search
from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.decoding.generator import Generator, Shelf
from ilm_jax.decoding.item_ranking import rank_by_head
from ilm_jax.decoding.sampling import sample
from ilm_jax.decoding.soft_tokens import embed_prompts
from ilm_jax.decoding.text_beams import text_beams
from ilm_jax.decoding.trie import Trie
from ilm_jax.errors import UserError
from ilm_jax.objectives.item_scoring import ItemSource

SOFT, TABLE = "soft_tokens", "item_vectors"
Arrays = dict[str, PyTree[Array]]


@dataclasses.dataclass(frozen=True)
class Shape:
    """The one shape that an export takes.

    Attributes:
      rows: prompts at once.
      length: positions of a prompt, bos included.
      entities: slots of a prompt at most.
      excluded: items that are no candidates, per prompt at most; of rankings only.
    """

    rows: int
    length: int
    entities: int = 1
    excluded: int = 64


def prompt_arguments(shape: Shape, *, slots: bool, ranks: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a prompt's arrays, all int32 (see `PromptConverter.prompts`)."""
    rows, wide = (shape.rows,), (shape.rows, shape.length)
    found = {"tokens": wide, "lengths": rows}
    if slots:
        found |= {"slot_entity": wide, "slot_query": wide, "entities": (shape.rows, shape.entities)}
    return found | ({"excluded": (shape.rows, shape.excluded)} if ranks else {})


def decoding_function(
    generator: Generator,
    config: DecodingConfig,
    trie: Trie | None = None,
    shelf: Shelf | None = None,
) -> tuple[Callable[[Arrays, Arrays], Arrays], Arrays]:
    """(a pure function of weights and prompts, the weights as NumPy arrays by path).

    Args:
      generator: the model.
      config: greedy or by beams; of rankings its beams and length_penalty.
      trie: of a catalogue, for rankings by strings; None for texts.
      shelf: of a catalogue, for rankings by the model's item head.

    Raises:
      UserError: for draws, whose random numbers are not the same on every platform.
    """
    if config.sample:
        raise UserError("export decodes greedily or by beams; leave sample out")
    model, lm = generator.model, generator.model.lm
    weights: Arrays = flatten_dict(jax.device_get(generator.params), sep="/")
    if generator.soft is not None:
        # The language model reads these alone; what they are computed by stays behind, unless an
        # item head, whose parameters bear names of its own, is among it.
        if shelf is None:
            weights = {path: leaf for path, leaf in weights.items() if path.startswith("lm/")}
        weights[SOFT] = np.asarray(jax.device_get(generator.soft))
    if shelf is not None:
        weights[TABLE] = np.asarray(jax.device_get(shelf.vectors))

    def decode(weights: Arrays, prompts: Arrays) -> Arrays:
        """What a batch of prompts gives, by name: items and scores, or tokens."""
        flat = {path: leaf for path, leaf in weights.items() if path not in (SOFT, TABLE)}
        params = unflatten_dict(flat, sep="/")
        x = embed_prompts(model, params, weights.get(SOFT), prompts)
        lengths = prompts["lengths"]
        if shelf is not None:
            items, scores = _by_head(generator, params, shelf, weights, x, prompts, config.beams)
            return {"items": items, "scores": scores}
        if trie is not None:
            items, scores = beam_search(
                lm,
                params["lm"],
                trie,
                x,
                lengths,
                config.beams,
                excluded=prompts["excluded"],
                length_penalty=config.length_penalty,
            )
            return {"items": items, "scores": scores}
        write = sample if config.beams == 1 else text_beams
        return write(lm, params["lm"], x, lengths, config)._asdict()

    return decode, weights


def _by_head(
    generator: Generator,
    params: PyTree[Array],
    shelf: Shelf,
    weights: Arrays,
    embeddings: Float[Array, "batch length embed"],
    prompts: Arrays,
    k: int,
) -> tuple[Int32[Array, "batch k"], Float32[Array, "batch k"]]:
    """`rank_by_head` with the soft tokens and vectors that were exported with the model."""
    vectors = weights[TABLE]
    soft = weights[SOFT] if SOFT in weights else vectors
    source = ItemSource(vectors, soft.__getitem__)
    return rank_by_head(
        generator.model.lm,
        params,
        shelf.scorer,
        source,
        shelf.rows,
        embeddings,
        prompts["lengths"],
        k,
        excluded=prompts["excluded"],
    )
