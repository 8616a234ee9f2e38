"""Notebooks from their scripts in jupytext's percent format.

    python -m tests.examples.notebooks        writes every .ipynb beside its .py

jupytext reads and writes the same pairs; these few lines spare the tests a Jupyter.
"""

import json
import pathlib
import re

FOLDER = pathlib.Path(__file__).parents[2] / "examples" / "notebooks"
_CELL = re.compile(r"^# %%(?: \[(markdown)\])?\n", re.MULTILINE)


def cells(script: pathlib.Path) -> list[tuple[str, str]]:
    """(kind, source) of every cell of a script."""
    _, *parts = _CELL.split(script.read_text())
    found = []
    for kind, source in zip(parts[::2], parts[1::2], strict=True):
        source = source.strip("\n")
        if kind == "markdown":
            source = "\n".join(
                line.removeprefix("#").removeprefix(" ") for line in source.splitlines()
            )
        found.append((kind or "code", source))
    return found


def notebook(script: pathlib.Path) -> str:
    """The text of the .ipynb (format 4.5)."""
    made = []
    for number, (kind, source) in enumerate(cells(script)):
        cell = {
            "cell_type": kind,
            "id": f"cell-{number}",
            "metadata": {},
            "source": source.splitlines(keepends=True),
        }
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        made.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.py")):
        path.with_suffix(".ipynb").write_text(notebook(path), encoding="utf-8")
