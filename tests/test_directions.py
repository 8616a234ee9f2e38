"""Which package may import which: the order below, and nothing against it."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[1]
# From the ground up: a package imports those before it alone. Files of `ilm_jax/` itself and the
# draws stand on the ground; `data` is ordered inside as well; `tasks` installs as ilm_jax.tasks.
ORDER = (
    "",
    "pretrained",
    "metrics",
    "data.draws",
    "data.spill",
    "data.catalogue",
    "data.formats",
    "data.sources",
    "data.tokenizers",
    "data.examples",
    "data.streams",
    "cf",
    "models",
    "objectives",
    "sharding",
    "checkpoints",
    "training",
    "decoding",
    "evaluation",
    "runs",
    "serving",
    "compilation",
    "interop",
    "tasks",
    "cli",
)
# What may name the packages above it: the face, lazily, and what starts the command line.
FACE = ("ilm_jax", "ilm_jax.__main__")


def modules():
    found = {}
    for folder, prefix in (("ilm_jax", "ilm_jax"), ("tasks", "ilm_jax.tasks")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((prefix, *parts))] = path
    return found


def imports(path, known):
    """Modules of ours that a file imports, inside functions and for type checkers too."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in whole]
        yield from (name for name in names if name.split(".")[0] == "ilm_jax")


def package(module):
    """The entry of ORDER that a module belongs to."""
    parts = module.split(".")[1:]
    if parts[:1] == ["data"]:
        return ".".join(parts[:2])
    return parts[0] if parts and parts[0] in ORDER else ""


def test_no_package_imports_one_above_it():
    known, upward = modules(), []
    for module, path in known.items():
        if module in FACE:
            continue
        for name in imports(path, known):
            if ORDER.index(package(name)) > ORDER.index(package(module)):
                upward.append(f"{module} imports {name}")
    assert not upward, "\n".join(upward)


def test_every_package_has_its_place():
    folders = {p.parent.name for p in (ROOT / "ilm_jax").glob("*/__init__.py")} - {"data"}
    inside = {f"data.{p.parent.name}" for p in (ROOT / "ilm_jax/data").glob("*/__init__.py")}
    assert folders | inside | {"", "data.draws", "data.spill", "tasks"} == set(ORDER)
