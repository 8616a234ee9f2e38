"""Tables of any size: their rows worked off in blocks, and held in a file where they are large."""

import os
import tempfile
from collections.abc import Iterator

import numpy as np

from ilm_jax.files import default_cache_dir

# Entries of a block: 64 MiB as float32.
BLOCK_ENTRIES = 1 << 24
# Larger arrays lie in a file: memory then holds the pages that are in use.
IN_MEMORY_BYTES = 1 << 31


def row_blocks(table: np.ndarray) -> Iterator[slice]:
    """Consecutive slices of the rows of [rows, …], each of at most `BLOCK_ENTRIES` entries."""
    rows = max(1, BLOCK_ENTRIES // max(1, table[:1].size))
    for start in range(0, len(table), rows):
        yield slice(start, min(start + rows, len(table)))


def zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Float32 zeros; of `IN_MEMORY_BYTES` and more in a file of the cache folder.

    The file has no name: its room is free again when the process ends, however it does.

    Raises:
      OSError: if there is no room for it.
    """
    size = int(np.prod(shape)) * 4
    if size < IN_MEMORY_BYTES:
        return np.zeros(shape, np.float32)
    folder = default_cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder, prefix="table-") as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            # A page for which there is no room later would be the end of the process.
            os.posix_fallocate(file.fileno(), 0, size)
        file.truncate(size)
        return np.asarray(np.memmap(file, np.float32, "r+", shape=shape))
