"""Damages copies of models' folders, seeded: the same seed and kind give the same damage.

`MUTATORS[kind](folder, rng)` changes files in place and says what it did. What may be read
afterwards is for `judging.py` to say, which reads the same files on its own.
"""

import json
import pathlib
import string
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from flax.serialization import msgpack_restore, msgpack_serialize

Rng = np.random.Generator
ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    3,
    7,
    64,
    10**9,
    1e30,
    2.5,
    "",
    "3",
    "x",
    [],
    [1],
    {},
    {"a": 1},
)
LETTERS = string.ascii_letters + string.digits + '{}[]",:.-_ \\\n'


def pick(rng: Rng, choices: Any) -> Any:
    """One of a sequence, whatever it holds."""
    choices = list(choices)
    return choices[int(rng.integers(len(choices)))]


def damage_text(data: bytes, rng: Rng) -> bytes:
    """A letter changed, put in or taken out; or the rest cut off."""
    place = int(rng.integers(len(data)))
    letter = pick(rng, LETTERS).encode()
    kind = pick(rng, ("change", "insert", "delete", "cut"))
    if kind == "cut":
        return data[:place]
    if kind == "insert":
        return data[:place] + letter + data[place:]
    return data[:place] + (letter if kind == "change" else b"") + data[place + 1 :]


def damage_tree(value: Any, rng: Rng, depth: int = 6) -> Any:
    """The same JSON with one value, key or element changed, wherever it stands."""
    if depth and isinstance(value, dict) and value and rng.random() < 0.9:
        key = pick(rng, value)
        kind = pick(rng, ("inside", "inside", "inside", "delete", "rename"))
        if kind == "delete":
            return {k: v for k, v in value.items() if k != key}
        if kind == "rename":
            return {k + "x" * (k == key): v for k, v in value.items()}
        return value | {key: damage_tree(value[key], rng, depth - 1)}
    if depth and isinstance(value, list) and value and rng.random() < 0.8:
        place = int(rng.integers(len(value)))
        return [*value[:place], damage_tree(value[place], rng, depth - 1), *value[place + 1 :]]
    if type(value) in (int, float) and rng.random() < 0.5:
        return pick(rng, (value + 1, value - 1, value * 2, -value, str(value)))
    return pick(rng, ODD)


def damage_json(file: pathlib.Path, rng: Rng) -> str:
    """Its text, its values, or a key said twice."""
    data = file.read_bytes()
    kind = pick(rng, ("text", "tree", "tree", "twice"))
    if kind == "text":
        file.write_bytes(damage_text(data, rng))
    elif kind == "tree":
        file.write_text(json.dumps(damage_tree(json.loads(data), rng)))
    else:
        tree = json.loads(data)
        key = pick(rng, tree)
        again = json.dumps({key: pick(rng, (tree[key], *ODD))})
        file.write_text(f"{again[:-1]}, {json.dumps(tree)[1:]}")
    return f"{kind} of {file.name}"


def damage_header(folder: pathlib.Path, rng: Rng) -> str:
    """The header of one safetensors file, its length, or the file's end."""
    file = pick(rng, sorted(folder.glob("*.safetensors")))
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    text, rest = data[8 : 8 + length], data[8 + length :]
    kind = pick(rng, ("text", "tree", "tree", "tree", "length", "end"))
    if kind == "text":
        text = damage_text(text, rng)
    elif kind == "tree":
        text = json.dumps(damage_tree(json.loads(text), rng)).encode()
    elif kind == "end":
        rest = rest[: int(rng.integers(len(rest)))] if rng.random() < 0.5 else rest + b"\0" * 8
    size = len(text) if kind != "length" else int(rng.integers(2**16)) * pick(rng, (1, 2**40))
    file.write_bytes(struct.pack("<Q", size) + text + rest)
    return f"{kind} of the header of {file.name}"


def damage_index(folder: pathlib.Path, rng: Rng) -> str:
    """The index, or what it speaks of: a file lost, doubled, or one tensor's file another."""
    file = folder / "model.safetensors.index.json"
    kind = pick(rng, ("json", "json", "move", "lose", "stale"))
    if kind == "json":
        return damage_json(file, rng)
    shards = sorted(folder.glob("*.safetensors"))
    if kind == "move":
        index = json.loads(file.read_text())
        name = pick(rng, index["weight_map"])
        index["weight_map"][name] = pick(rng, shards).name
        file.write_text(json.dumps(index))
        return f"{name} moved in the index"
    shard = pick(rng, shards)
    if kind == "lose":
        shard.unlink()
    else:
        (folder / f"stale-{shard.name}").write_bytes(shard.read_bytes())
    return f"{kind} {shard.name}"


def damage_tokenizer(folder: pathlib.Path, rng: Rng) -> str:
    """tokenizer.json, or a file beside it that says which tokens are special."""
    files = [folder / name for name in ("tokenizer.json", "tokenizer_config.json")]
    files += [f for f in [folder / "generation_config.json"] if f.is_file()]
    return damage_json(pick(rng, files), rng)


def damage_t5x(folder: pathlib.Path, rng: Rng) -> str:
    """The tree of the msgpack file, the metadata of a Zarr array, or a chunk."""
    step = next(p for p in [folder, *folder.glob("checkpoint_*")] if (p / "checkpoint").is_file())
    kind = pick(rng, ("msgpack", "msgpack", "cut", "zarray", "zarray", "chunk"))
    file = step / "checkpoint"
    if kind == "cut":
        file.write_bytes(file.read_bytes()[: int(rng.integers(file.stat().st_size))])
    elif kind == "msgpack":
        tree = msgpack_restore(file.read_bytes())
        file.write_bytes(msgpack_serialize(_plain(_damage_leaves(tree, rng))))
    elif kind == "zarray":
        return damage_json(pick(rng, sorted(step.glob("target.*/.zarray"))), rng)
    else:
        chunk = pick(rng, sorted(p for p in step.glob("target.*/*") if p.name != ".zarray"))
        data = chunk.read_bytes()
        chunk.write_bytes(data[: int(rng.integers(len(data)))])
    return kind


def _damage_leaves(tree: Any, rng: Rng) -> Any:
    """As `damage_tree`, but arrays keep their numbers, of which no file has a checksum."""
    if isinstance(tree, np.ndarray):
        return pick(rng, (3, "x", {}, tree[:-1] if tree.ndim else 0))
    if isinstance(tree, dict) and tree:
        key = pick(rng, tree)
        if rng.random() < 0.1:
            return {k: v for k, v in tree.items() if k != key}
        return tree | {key: _damage_leaves(tree[key], rng)}
    return damage_tree(tree, rng)


def _plain(tree: Any) -> Any:
    """What msgpack can write: lists become dictionaries as flax's own do, wide numbers strings."""
    if isinstance(tree, dict):
        return {str(k): _plain(v) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_plain(v) for v in tree]
    return str(tree) if type(tree) is int and abs(tree) > 2**60 else tree


# What of our own checkpoints says what the rest is; numbers themselves have no checksum.
OWN_JSON = ("_METADATA", "_CHECKPOINT_METADATA", "metadata")


def damage_own(folder: pathlib.Path, rng: Rng) -> str:
    """A file of a checkpoint lost or cut, or one of its JSON files changed."""
    files = sorted(p for p in (folder / "checkpoints").rglob("*") if p.is_file())
    kind = pick(rng, ("lose", "cut", "json", "json"))
    if kind == "json":
        return damage_json(pick(rng, [f for f in files if f.name in OWN_JSON]), rng)
    file = pick(rng, files)
    if kind == "lose":
        file.unlink()
    else:
        data = file.read_bytes()
        file.write_bytes(data[: int(rng.integers(len(data) or 1))])
    return f"{kind} {file.relative_to(folder)}"


MUTATORS: dict[str, Callable[[pathlib.Path, Rng], str]] = {
    "config": lambda folder, rng: damage_json(folder / "config.json", rng),
    "header": damage_header,
    "index": damage_index,
    "tokenizer": damage_tokenizer,
    "t5x": damage_t5x,
    "own": damage_own,
}
