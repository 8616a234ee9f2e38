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
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from ilm_jax import __version__
from ilm_jax.data.tokenizers import OwnTokenizer, Tokenizer, without_new_tokens
from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.decoding.generator import Generator, Shelf
from ilm_jax.decoding.trie import Trie
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_dir
from ilm_jax.serving.decoding_functions import Arrays, Shape, decoding_function, prompt_arguments

__all__ = ["Shape", "check_replaceable", "export"]

FORMAT = "ilm_jax.export/1"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


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
