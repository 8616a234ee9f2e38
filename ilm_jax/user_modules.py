"""The modules of a user's that registered something, for the processes that this one starts.

A recipe's `import my_package.my_tasks` reaches this process alone. Data is prepared and cached in
processes of their own (TensorFlow stays there); these import the same modules first.
"""

import importlib
import importlib.util
import os
import pathlib
import sys
from collections.abc import Iterable

from ilm_jax.errors import UserError

FLAG = "import"
_OURS = "ilm_jax"
_noted: dict[str, None] = {}
# Files of the modules that `load` read from a path.
_files: dict[str, str] = {}


def note_caller() -> None:
    """Notes the module that called the function that calls this one."""
    name = sys._getframe(2).f_globals.get("__name__", "__main__")
    if name.partition(".")[0] != _OURS:
        _noted[name] = None


def words() -> list[str]:
    """Flags by which a process of ours imports what this one has registered; [] for nothing.

    Raises:
      UserError: if something was registered in a notebook, which no other process can import.
    """
    return [f"--{FLAG}={name}" for name in names()]


def names() -> list[str]:
    """Modules to `load` in another process, so that it has what this one has registered.

    Raises:
      UserError: as `words`.
    """
    return [_importable(name) for name in _noted]


def environment() -> dict[str, str]:
    """Environment variables by which that process finds the modules where this one does."""
    if not _noted:
        return {}
    return {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


def load(names: Iterable[str]) -> None:
    """Imports modules by name, or by the path of a file that ends in ".py".

    Raises:
      UserError: for one that cannot be imported.
    """
    for name in names:
        try:
            if name.endswith(".py"):
                _load_file(name)
            else:
                importlib.import_module(name)
        except (ImportError, OSError, ValueError) as error:
            raise UserError(
                f"--{FLAG}={name}: {error}; name a module that Python can import"
            ) from error


def _importable(name: str) -> str:
    if name in _files:
        return _files[name]
    if name != "__main__":
        return name
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None and spec.name:  # python -m my_package.my_tasks
        return spec.name
    if file is None or not pathlib.Path(file).is_file():
        raise UserError(
            "a task family or dataset was registered in a notebook, and what is missing is made by "
            "a process of its own: write the registration into a file, and import that"
        )
    return str(pathlib.Path(file).resolve())


def _load_file(path: str) -> None:
    name = f"user_module_{pathlib.Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name], _files[name] = module, str(pathlib.Path(path).resolve())
    spec.loader.exec_module(module)
