"""Our own checkpoints (orbax: OCDBT and zarr), read by slices and written array by array.

orbax itself reads whole arrays into whole shardings, and writes a tree that is in memory. Loading a
large frozen model needs a layer's slice at a time, and converting one needs a tensor at a time.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from jax.typing import DTypeLike

from ilm_jax.checkpoints.checkpoints import Checkpoints
from ilm_jax.checkpoints.published.entries import Entry
from ilm_jax.checkpoints.published.hugging_face import Index
from ilm_jax.errors import UserError
from ilm_jax.strict_json import parse_object

# Of one read: small beside the tensors of large models.
CHUNK_BYTES = 1 << 23


class OrbaxCheckpoint:
    """The parameters of one checkpoint of a MODEL_DIR.

    Attributes:
      where: folder and step, for messages.
      cheap_rows, notes: see `Source`.
      step: of the checkpoint.
      meta: what was stored beside the parameters.
    """

    cheap_rows = False
    notes: Sequence[str] = ()

    def __init__(self, model_dir: str | os.PathLike, step: int | str = "best") -> None:
        """Opens it.

        Raises:
          UserError: if there is no such checkpoint, or it is damaged.
        """
        self.where = str(model_dir)
        with self._damage("its list of steps"):
            checkpoints = Checkpoints(model_dir)
            self.step = checkpoints.resolve(step)
        self.where = f"{model_dir} (step {self.step})"
        self._folder = pathlib.Path(model_dir).absolute() / "checkpoints" / str(self.step)
        file = self._folder / "params" / "_METADATA"
        with self._damage("its description"):
            layout = parse_object(file.read_bytes(), str(file))
            self._shapes = checkpoints.shapes(self.step)
            self.meta: dict[str, Any] = checkpoints.meta(self.step)
            checkpoints.close()
            _check_meta(self.meta)
        self._context, self._arrays = ts.Context(), dict[str, Any]()
        self._driver = "zarr3" if layout.get("use_zarr3") else "zarr"

    def names(self) -> list[str]:
        """Entries on disk."""
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of an entry."""
        return tuple(self._shapes[name].shape)

    def dtype(self, name: str) -> np.dtype:
        """As stored."""
        return np.dtype(self._shapes[name].dtype)

    def rows_together(self, name: str) -> int | None:
        """Number of rows of an entry that are stored together; None if all are."""
        if not self.shape(name):
            return None
        rows = self._open(name).chunk_layout.read_chunk.shape[0]
        return rows if rows < self.shape(name)[0] else None

    def read(self, name: str, index: Index = ()) -> np.ndarray:
        """The part of an entry that `index` names."""
        array = self._open(name)
        with self._damage(name):
            return array[tuple(index)].read().result() if index else array.read().result()
        raise AssertionError("the block above returns or raises")

    def _open(self, name: str) -> Any:
        if name not in self._arrays:
            kvstore = {
                "driver": "ocdbt",
                "base": f"file://{self._folder}/params/",
                "path": name.replace("/", ".") + "/",
            }
            spec = {"driver": self._driver, "kvstore": kvstore}
            with self._damage(name):
                array: Any = ts.open(spec, read=True, context=self._context).result()
                found = (tuple(array.shape), np.dtype(array.dtype.numpy_dtype))
                if found != (self.shape(name), self.dtype(name)):
                    raise ValueError(f"stored {found}, described {self.shape(name)}")
            self._arrays[name] = array
        return self._arrays[name]

    @contextlib.contextmanager
    def _damage(self, what: str) -> Iterator[None]:
        """Turns what the libraries say of a damaged file into a message."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            # Whatever a library makes of bytes that it did not write.
            raise UserError(
                f"{self.where}: {what} cannot be read ({' '.join(str(error).split())[:160]}): the "
                "checkpoint is damaged; copy it again, or take another step"
            ) from error


def _check_meta(meta: Mapping[str, Any]) -> None:
    """Raises ValueError for what is not the JSON that a checkpoint of ours says of itself."""
    configs, init = meta.get("configs", {}), meta.get("init", [])
    if not isinstance(meta.get("drawn", []), list):
        raise ValueError(f"drawn {meta['drawn']!r}")
    for kind, fields in configs.values():
        if not isinstance(kind, str) or not isinstance(fields, dict):
            raise ValueError(f"configs {configs!r}")
    for source in init:
        if not isinstance(source["path"], str) or not isinstance(source["parameters"], list):
            raise ValueError(f"init {init!r}")


def write_checkpoint(
    model_dir: str | os.PathLike,
    entries: Mapping[str, Entry],
    dtype: DTypeLike,
    meta: Mapping[str, Any],
    progress: Callable[[str, np.ndarray], None],
) -> None:
    """Writes entries as the checkpoint at step 0, one tensor in memory at a time.

    Args:
      model_dir: a folder without checkpoints.
      entries: names on disk, as of a training run's parameters.
      dtype: what floating-point numbers are stored as.
      meta: JSON stored beside them.
      progress: called with each name and its numbers, before they are written.
    """
    registry = ocp.type_handlers.create_type_handler_registry((_Lazy, _LazyHandler()))
    manager = ocp.CheckpointManager(
        pathlib.Path(model_dir).absolute() / "checkpoints",
        options=ocp.CheckpointManagerOptions(enable_async_checkpointing=False),
        item_names=("params", "meta"),
        item_handlers={
            "params": ocp.PyTreeCheckpointHandler(type_handler_registry=registry),
            "meta": ocp.JsonCheckpointHandler(),
        },
    )
    tree: dict[str, Any] = {}
    saving: dict[str, Any] = {}
    for name, entry in entries.items():
        *parents, leaf = name.split("/")
        at, arguments = tree, saving
        for part in parents:
            at, arguments = at.setdefault(part, {}), arguments.setdefault(part, {})
        at[leaf] = _Lazy(name, entry, dtype, progress)
        arguments[leaf] = ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES)
    manager.save(
        0,
        args=ocp.args.Composite(
            params=ocp.args.PyTreeSave(tree, save_args=saving), meta=ocp.args.JsonSave(dict(meta))
        ),
    )
    manager.close()


class _Lazy:
    """An array that is read when it is its turn to be written."""

    def __init__(
        self, name: str, entry: Entry, dtype: DTypeLike, progress: Callable[[str, np.ndarray], None]
    ) -> None:
        self.shape = entry.shape
        self.ndim = len(entry.shape)
        self.dtype = stored_dtype(entry, dtype)
        self.size = int(np.prod(entry.shape))
        self.nbytes = self.size * self.dtype.itemsize
        self._name, self._entry, self._progress = name, entry, progress

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        value = self._entry.read(dtype=self.dtype)
        self._progress(self._name, value)
        return value


def stored_dtype(entry: Entry, dtype: DTypeLike | None) -> np.dtype:
    """The type that an entry is converted to: integers stay what they are."""
    kept = np.issubdtype(entry.dtype, np.integer)
    return np.dtype(entry.dtype if kept or dtype is None else dtype)


class _LazyHandler(ocp.type_handlers.NumpyHandler):
    """Writes what NumpyHandler writes, each array before the next one is read."""

    def __init__(self) -> None:
        super().__init__(deepcopy_host_arrays=False)

    async def serialize(
        self, values: Sequence[Any], infos: Sequence[Any], args: Sequence[Any] | None = None
    ) -> list[Any]:
        """NumpyHandler's, but with one array in memory at a time."""
        arguments = args or [ocp.SaveArgs()] * len(values)
        for value, info, arg in zip(values, infos, arguments, strict=True):
            for future in await super().serialize([np.asarray(value)], [info], [arg]):
                future.result()
        return []
