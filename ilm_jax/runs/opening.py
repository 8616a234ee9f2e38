"""From a folder or recipes to a run, without the command line."""

import os
import pathlib
from collections.abc import Mapping, Sequence

from ilm_jax.errors import UserError
from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run
from ilm_jax.training.host_memory import keep_freed_memory

Bindings = Mapping[str, object] | Sequence[str]


def run_of_recipe(
    recipes: str | Sequence[str], bindings: Bindings = (), search_paths: Sequence[str] = ()
) -> Run:
    """The run that recipes describe.

    Args:
      recipes: found in the current folder, `search_paths` or among the shipped ones, such as
        "tiny/stage1.gin"; later ones override.
      bindings: {name: value}, or texts "NAME=VALUE" as on the command line.
      search_paths: folders in which recipes and their includes are looked for.

    Raises:
      UserError: as `gin_config.build`.
    """
    keep_freed_memory()
    files = [recipes] if isinstance(recipes, str) else list(recipes)
    return gin_config.build(Run, files, as_texts(bindings), search_paths)


def run_of_folder(model_dir: str | os.PathLike, bindings: Bindings = ()) -> Run:
    """The run of a MODEL_DIR, as its config.gin and further bindings describe it.

    Raises:
      UserError: if the folder is none of a run.
    """
    config = pathlib.Path(model_dir) / "config.gin"
    if not config.is_file():
        raise UserError(f"{model_dir} holds no config.gin: is it the MODEL_DIR of a run?")
    here = f"MODEL_DIR={os.fspath(model_dir)!r}"
    return run_of_recipe(str(config), [here, *as_texts(bindings)])


def as_texts(bindings: Bindings) -> list[str]:
    """Bindings as gin reads them; paths become texts."""
    if not isinstance(bindings, Mapping):
        return list(bindings)
    plain = {n: os.fspath(v) if isinstance(v, os.PathLike) else v for n, v in bindings.items()}
    return [f"{name}={value!r}" for name, value in plain.items()]
