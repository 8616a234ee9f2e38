"""Fits collaborative vectors and writes their table, in a notebook or a script."""

import pathlib

from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.errors import UserError
from ilm_jax.files import default_cache_dir
from ilm_jax.locks import one_writer
from ilm_jax.runs.fitting import FitCF


def fit_cf(dataset: str = "toy", **fields: object) -> EmbeddingTable:
    """Fits vectors of all items and users to the training interactions of a dataset.

        ilm_jax.fit_cf("custom", data_dir="my_shop", output="cf.safetensors")

    Args:
      dataset: see `load_catalogue`.
      **fields: of `FitCF`: data_dir, output, methods (iALS by default), split, patience, …

    Returns:
      The table, written to `output` (default: where recipes look for it, under the cache).

    Raises:
      UserError: for what cannot be fitted.
    """
    fitting = FitCF(dataset=dataset, **fields)  # type: ignore[arg-type]
    output = table_path(fitting)
    with one_writer(output, "fit_cf", beside=True):
        table = fitting.fit(fitting.splits())
        table.save(output)
    return table


def table_path(fitting: FitCF) -> pathlib.Path:
    """Path of a fit's table.

    Raises:
      UserError: if a folder lies there, before anything is fitted.
    """
    cache_dir = pathlib.Path(fitting.cache_dir or default_cache_dir()).expanduser()
    name = f"{fitting.dataset.replace('/', '_')}.safetensors"
    path = pathlib.Path(fitting.output or cache_dir / "tables" / name).expanduser()
    if path.is_dir():
        raise UserError(
            f"{path} is a folder, and a table is a file: name one, such as {path}.safetensors"
        )
    return path
