"""From a flag of `ilm evaluate` to a number: few files, none of which needs itself."""

import ast
import graphlib
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]


def listed():
    """The files that docs/architecture.md names, in order."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    section = text.split("## `ilm evaluate`, from words to numbers")[1].split("\n## ")[0]
    return re.findall(r"^\| \d+ \| `([^`]+)`", section, re.MULTILINE)


def imported(path):
    """Every module that a file names in an import, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_the_way_from_evaluate_to_numbers_is_fifteen_files_in_one_direction():
    files = listed()
    assert 10 < len(files) <= 15 and len(set(files)) == len(files)
    modules = {path.removesuffix(".py").replace("/", "."): path for path in files}
    graph = {module: imported(path) & set(modules) for module, path in modules.items()}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises for a circle
    assert order[-1] == "ilm_jax.cli.evaluate", "nothing of it imports the command line"
    assert not any("cli" in name for path in files[1:] for name in imported(path))
