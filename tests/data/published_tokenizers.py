"""The small tokenizers of every published kind, unpacked once per test process."""

import atexit
import functools
import pathlib
import shutil
import tarfile
import tempfile

import numpy as np

from ilm_jax.data.tokenizers import Tokenizer, open_tokenizer_at

ARCHIVE = pathlib.Path(__file__).parents[1] / "parity" / "goldens" / "tokenizers.tar.xz"
PIECES = ("t5", "llama2", "gemma")
FAST = ("t5_fast", "llama2_fast", "gemma_fast", "llama3", "qwen2")
BERT = ("bert", "bert_cased")
KINDS = (*PIECES, *FAST, *BERT)


@functools.cache
def folder() -> pathlib.Path:
    """A folder with a folder for each of KINDS."""
    root = pathlib.Path(tempfile.mkdtemp(prefix="ilm-tokenizers-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    with tarfile.open(ARCHIVE) as archive:
        # Pythons before 3.11.4 have no filters.
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(root, **safely)
    return root


def published(kind: str) -> Tokenizer:
    """The tokenizer of one kind."""
    return open_tokenizer_at(folder() / kind)


def golden(kind: str) -> dict[str, np.ndarray]:
    """What its references give; see tests/parity/make_tokenizers.py."""
    with np.load(folder() / kind / "ids.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def rows(arrays: dict[str, np.ndarray], name: str) -> list[list[int]]:
    """Ids of every string."""
    ends = np.cumsum(arrays[f"{name}_lengths"])[:-1]
    return [row.tolist() for row in np.split(arrays[name], ends)]
