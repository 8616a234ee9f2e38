"""T5X's native checkpoints, the form in which FLAN-T5 is released for JAX: slices of any tensor.

The folder (`checkpoint_1138000`) holds a msgpack file `checkpoint`, which is a tree of small
arrays, and of references to Zarr arrays beside it: TensorStore specs (T5X's own Checkpointer,
format version 3) or strings PLACEHOLDER://name (written through orbax). Facts from
t5x/checkpoints.py and t5x/examples/t5/network.py of github.com/google-research/t5x. Nothing but
what is asked for is read; nothing is unpickled.
"""

import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from flax.serialization import msgpack_restore
from flax.traverse_util import flatten_dict

from ilm_jax.checkpoints.published.hugging_face import Index, resolve
from ilm_jax.errors import UserError

if TYPE_CHECKING:
    import tensorstore

MESSAGE_FILE = "checkpoint"
PLACEHOLDER = "PLACEHOLDER://"
VERSION = 3
# A scanned stack of scalable_t5: encoder/encoder/mlp/wo/kernel with the layers on axis 1.
STACKED = re.compile(r"^(encoder|decoder)/\1/(.+)$")


def find_folder(path: str | os.PathLike) -> pathlib.Path | None:
    """The folder that holds the msgpack file: `path`, or its latest checkpoint; None if neither."""
    folder = pathlib.Path(path)
    steps = {int(p.name.split("_")[1]): p for p in folder.glob("checkpoint_*") if _is_step(p)}
    for found in (folder, folder / "state", *(steps[step] for step in sorted(steps)[-1:])):
        if (found / MESSAGE_FILE).is_file():
            return found
    return None


class T5XCheckpoint:
    """The parameters ("target") of a checkpoint under T5X's names; one per layer, also if stacked.

    A kernel with separate heads [embed, heads, kv] is given as [embed, heads * kv].

    Attributes:
      where: the folder, for messages.
      cheap_rows, notes: see `Source`.
    """

    cheap_rows = False
    notes: Sequence[str] = ()

    def __init__(self, path: str | os.PathLike) -> None:
        """Reads the msgpack file.

        Args:
          path: the checkpoint's folder, or the folder that holds checkpoint_* (its latest).

        Raises:
          UserError: for a folder that holds none, a broken file, another format.
        """
        folder = find_folder(path)
        if folder is None:
            raise UserError(f"{path} holds no T5X checkpoint: no msgpack file {MESSAGE_FILE!r}")
        # TensorStore opens no path with `..` in it.
        self._folder, self.where = pathlib.Path(os.path.abspath(folder)), str(folder)
        self._leaves = _target(folder)
        self._stores: dict[str, "tensorstore.TensorStore | np.ndarray"] = {}
        # {name: (leaf, layer of a stack or None)}.
        self._tensors: dict[str, tuple[str, int | None]] = {}
        self._layer_axis = 1
        for leaf in self._leaves:
            match = STACKED.match(leaf)
            if match is None:
                self._tensors[leaf] = leaf, None
                continue
            for layer in range(self._depth(match[1])):
                self._tensors[f"{match[1]}/layers_{layer}/{match[2]}"] = leaf, layer

    def names(self) -> list[str]:
        """Names of all tensors: `encoder/layers_0/attention/query/kernel`."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        shape = tuple(self._view(name).shape)
        joined = _joined(name, shape)
        return shape if joined is None else _join(shape, joined)

    def dtype(self, name: str) -> np.dtype:
        """Type of its numbers as stored."""
        found: Any = self._view(name).dtype
        return np.dtype(getattr(found, "numpy_dtype", found))

    def read(self, name: str, index: Index = ()) -> np.ndarray:
        """The part of a tensor that `index` names (all of it by default), in its stored type.

        Args:
          name: of the tensor.
          index: a slice with step 1 per dimension; dimensions left out are whole.

        Raises:
          UserError: if the array's files cannot be read.
        """
        view = self._view(name)
        shape = tuple(view.shape)
        ranges = resolve(index, self.shape(name))
        joined = _joined(name, shape)
        if joined is None:
            return self._fetch(name, view[tuple(slice(*part) for part in ranges)])
        # Whole heads are read, and cut to the part of them that is asked for.
        width = shape[joined + 1]
        start, stop = ranges[joined]
        first = start // width
        heads = (first, max(first, -(-stop // width)))
        wider = [*ranges[:joined], heads, (0, width), *ranges[joined + 1 :]]
        value = self._fetch(name, view[tuple(slice(*part) for part in wider)])
        value = value.reshape(_join(value.shape, joined))
        cut = [slice(None)] * value.ndim
        cut[joined] = slice(start - first * width, stop - first * width)
        return value[tuple(cut)]

    def _view(self, name: str) -> "tensorstore.TensorStore | np.ndarray":
        """An array or a TensorStore of one layer; no numbers are read."""
        leaf, layer = self._tensors[name]
        store = self._open(leaf)
        if layer is None:
            return store
        return store[layer] if self._layer_axis == 0 else store[:, layer]

    def _fetch(self, name: str, part: "tensorstore.TensorStore | np.ndarray") -> np.ndarray:
        if isinstance(part, np.ndarray):
            return part
        try:
            return np.asarray(part.read().result())
        except ValueError as error:
            raise UserError(
                f"{self.where}: {name} cannot be read ({str(error)[:200]}): download it again"
            ) from error

    def _depth(self, stack: str) -> int:
        """Layers of a scanned stack, and sets the axis that they stand on."""
        scale = f"{stack}/{stack}/pre_mlp_layer_norm/scale"
        embedding = "token_embedder/embedding"
        if scale not in self._leaves or embedding not in self._leaves:
            raise UserError(f"{self.where} has stacked layers but no {scale} and {embedding}")
        shape, width = self._open(scale).shape, self._open(embedding).shape[1]
        self._layer_axis = 1 if shape[0] == width else 0
        return shape[self._layer_axis]

    def _open(self, leaf: str) -> "tensorstore.TensorStore | np.ndarray":
        if leaf not in self._stores:
            self._stores[leaf] = self._open_leaf(leaf)
        return self._stores[leaf]

    def _open_leaf(self, leaf: str) -> "tensorstore.TensorStore | np.ndarray":
        # Imported when needed: most folders are not T5X's, and it takes a moment.
        import tensorstore

        value = self._leaves[leaf]
        if isinstance(value, np.ndarray):
            return value
        spec = _spec(self._folder, leaf, value)
        try:
            store: Any = tensorstore.open(spec, open=True, read=True).result()
        except ValueError as error:
            raise UserError(
                f"{self.where}: {leaf} cannot be opened ({str(error)[:200]}): is the download "
                "complete?"
            ) from error
        # To Zarr a chunk without a file is one of zeros; T5X writes them all.
        chunks = zip(store.shape, store.chunk_layout.read_chunk.shape, strict=True)
        wanted = math.prod(-(-size // chunk) for size, chunk in chunks)
        found = sum(not key.startswith(b".") for key in store.kvstore.list().result())
        if found < wanted:
            raise UserError(
                f"{self.where}: {leaf} has {found} of {wanted} chunks: download the folder again"
            )
        return store


def _is_step(path: pathlib.Path) -> bool:
    return re.fullmatch(r"checkpoint_\d+", path.name) is not None and path.is_dir()


def _target(folder: pathlib.Path) -> dict[str, Any]:
    """{name: array, spec or placeholder} of the parameters in the msgpack file."""
    file = folder / MESSAGE_FILE
    data = file.read_bytes()
    if data.startswith(b"model_checkpoint_path"):
        raise UserError(
            f"{folder} is a TensorFlow checkpoint of Mesh T5, not T5X's: take the model from "
            "pretrained_models/t5x, or convert it with t5x"
        )
    try:
        tree = msgpack_restore(data)
        version = tree.get("version", VERSION)
        # Written by T5X, by orbax (T5X's later way), and of an optimizer's first field.
        tree = tree.get("optimizer", tree.get("_optimizer", tree))
        target = tree["target"]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"{file} is no T5X checkpoint (no tree with a target): {error!r}"
        ) from error
    if version != VERSION:
        raise UserError(f"{file} has format version {version}; only {VERSION} is read")
    leaves = flatten_dict(target, is_leaf=lambda _, value: "driver" in value)
    return {"/".join(path): value for path, value in leaves.items() if value is not None}


def _spec(folder: pathlib.Path, leaf: str, value: Any) -> dict[str, Any]:
    """The TensorStore spec of an array in this folder, wherever it was written."""
    written: dict[str, Any] = {}
    name: object
    if isinstance(value, str) and value.startswith(PLACEHOLDER):
        name = value.removeprefix(PLACEHOLDER)
    elif isinstance(value, dict):
        # On Cloud Storage, Google's own file system or a disk; lately the path stands inside.
        written = {key: value[key] for key in ("dtype", "metadata") if key in value}
        inside = value.get("kvstore", {})
        name = inside.get("path", value.get("path")) if isinstance(inside, dict) else None
        if value.get("driver") != "zarr":
            raise UserError(f"{folder}: {leaf} is stored as {value.get('driver')!r}, not zarr")
    else:
        raise UserError(f"{folder}: {leaf} is neither an array nor a reference to one")
    name = name.strip("/") if isinstance(name, str) else ""
    if not name or ".." in pathlib.PurePath(name).parts:
        raise UserError(f"{folder}: {leaf} refers to {name!r}, which is no folder beside it")
    kvstore: dict[str, Any] = {"driver": "file", "path": f"{folder / name}/"}
    if not written and (folder / "manifest.ocdbt").is_file():
        base = {"driver": "file", "path": f"{folder}/"}
        kvstore = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
    return {"driver": "zarr", "kvstore": kvstore, **written}


def _joined(name: str, shape: tuple[int, ...]) -> int | None:
    """The first of the two dimensions (heads, kv) of a kernel that keeps them apart."""
    if len(shape) != 3 or not name.endswith("/kernel"):
        return None
    return 0 if name.endswith("/out/kernel") else 1


def _join(shape: tuple[int, ...], at: int) -> tuple[int, ...]:
    return (*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :])
