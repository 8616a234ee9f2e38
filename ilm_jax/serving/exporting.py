"""Decoding as a file: `jax.export`, to be run where this library is not.

A folder holds

    function.jaxexport   one whole decoding (prompts in, tokens or items out) for one shape, lowered
                         for the platforms that were named
    weights.npz          its parameters, the soft tokens of the catalogue and, for an item head, its
                         vectors, if they are arguments
    manifest.json        names, shapes and types of arguments and results, ids of special tokens
    item_ids.json        the catalogue's ids by row, for functions that give items
    tokenizer            of the model

and is run with jax and numpy alone:

    function = jax.export.deserialize(bytearray(open("function.jaxexport", "rb").read()))
    results = function.call(weights, prompts)      # two dictionaries of arrays
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Float32, Int32, PyTree

from ilm_jax import __version__
from ilm_jax.data.tokenizers import OwnTokenizer, Tokenizer, without_new_tokens
from ilm_jax.decoding.beam import beam_search
from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.decoding.generator import Generator, Shelf
from ilm_jax.decoding.item_ranking import rank_by_head
from ilm_jax.decoding.sampling import sample
from ilm_jax.decoding.soft_tokens import embed_prompts
from ilm_jax.decoding.text_beams import text_beams
from ilm_jax.decoding.trie import Trie
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_dir
from ilm_jax.objectives.item_scoring import ItemSource

FORMAT = "ilm_jax.export/1"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
SOFT, TABLE = "soft_tokens", "item_vectors"
Arrays = dict[str, Any]


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


def check_replaceable(folder: str | os.PathLike) -> None:
    """Raises UserError where anything but an export lies, such as a run, which would be lost."""
    place = pathlib.Path(folder)
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    try:
        said = json.loads((place / "manifest.json").read_text(encoding="utf-8"))["format"]
    except (OSError, ValueError, TypeError, KeyError):
        said = None
    if not str(said).startswith(FORMAT.partition("/")[0]):
        raise UserError(f"{folder} is there and no export: name a new folder, or delete it")


def export(
    folder: str | os.PathLike,
    generator: Generator,
    config: DecodingConfig,
    shape: Shape,
    *,
    trie: Trie | None = None,
    shelf: Shelf | None = None,
    platforms: Sequence[str] = ("cpu",),
    closed: bool = False,
    notes: Mapping[str, Any] | None = None,
    item_ids: Sequence[str] = (),
    tokenizer: Tokenizer | None = None,
) -> dict[str, Any]:
    """Writes a folder as above, and returns its manifest.

    Args:
      folder: to be made; an earlier export there is replaced.
      generator, config, trie, shelf: see `decoding_function`.
      shape: what the function takes.
      platforms: that it is lowered for, of `PLATFORMS`.
      closed: the weights are constants of the function, and its first argument is {}.
      notes: JSON-able; more for the manifest.
      item_ids: the catalogue's, by row.
      tokenizer: saved beside.

    Raises:
      UserError: for an unknown platform, a folder of something else, or as `decoding_function`.
    """
    check_replaceable(folder)
    unknown = [name for name in platforms if name not in PLATFORMS]
    if unknown or not platforms:
        raise UserError(f"platforms {list(platforms)}: give some of {', '.join(PLATFORMS)}")
    decode, weights = decoding_function(generator, config, trie, shelf)
    slots, ranks = generator.soft is not None, trie is not None or shelf is not None
    arguments = prompt_arguments(shape, slots=slots, ranks=ranks)
    prompts = {n: jax.ShapeDtypeStruct(size, jnp.int32) for n, size in arguments.items()}
    specs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), weights)

    def with_constants(nothing: Arrays, prompts: Arrays) -> Arrays:
        """The same with the weights inside the program."""
        del nothing
        return decode({path: jnp.asarray(leaf) for path, leaf in weights.items()}, prompts)

    function = jax.jit(with_constants if closed else decode)
    made = jax.export.export(function, platforms=list(platforms))({} if closed else specs, prompts)
    manifest = _manifest(made, arguments, {} if closed else weights, config) | dict(notes or {})
    with atomic_dir(folder) as new:
        (new / "function.jaxexport").write_bytes(made.serialize())
        if not closed:
            plain: dict[str, Any] = {n: _plain(w) for n, w in weights.items()}
            np.savez(new / "weights.npz", **plain)
        _write_json(new / "manifest.json", manifest)
        if ranks:
            _write_json(new / "item_ids.json", list(item_ids))
        if tokenizer is not None:
            own = isinstance(without_new_tokens(tokenizer), OwnTokenizer)  # which is one file
            tokenizer.save(new / "tokenizer.model" if own else new / "tokenizer")
    return manifest


def _manifest(
    made: jax.export.Exported,
    arguments: Mapping[str, Sequence[int]],
    weights: Mapping[str, np.ndarray],
    config: DecodingConfig,
) -> dict[str, Any]:
    """What a reader of the folder must know: shapes and types, by name."""
    results = jax.tree.unflatten(made.out_tree, made.out_avals)
    return {
        "format": FORMAT,
        "version": __version__,
        "jax": jax.__version__,
        "calling_convention": made.calling_convention_version,
        "platforms": list(made.platforms),
        "prompts": {n: {"shape": list(s), "dtype": "int32"} for n, s in arguments.items()},
        "results": {n: {"shape": list(a.shape), "dtype": a.dtype.name} for n, a in results.items()},
        "weights": {n: w.dtype.name for n, w in weights.items()},
        "decoding": {**dataclasses.asdict(config), "stop_ids": list(config.stop_ids)},
    }


def _plain(array: np.ndarray) -> np.ndarray:
    """NumPy's files know no bfloat16: its bits, to be viewed as the manifest's type."""
    array = np.asarray(array)
    return array if array.dtype.isbuiltin else array.view(f"u{array.dtype.itemsize}")


def _write_json(path: pathlib.Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
