"""The tables of docs/tasks.md and docs/data.md are those of the code."""

import pathlib

from ilm_jax.data.examples.task_families import mixtures, task_specs
from ilm_jax.data.sources.registry import DATASETS

DOCS = pathlib.Path(__file__).parents[2] / "docs"
README = (DOCS / "tasks.md").read_text()
TABLE = (DOCS / "data.md").read_text().partition("## Datasets")[2].partition("\n## ")[0]


def test_every_task_mixture_and_dataset_is_listed_as_it_is():
    for spec in task_specs().values():
        given, target, paper = spec.what.split(" | ")
        metrics = ", ".join(spec.metrics) or "-"
        name = f"{spec.family}_…_{spec.task}"
        assert f"| `{name}` | {paper} | {given} | {target} | {metrics} |\n" in README, name
    for name, tasks in mixtures().items():
        tasks = [task.partition("/")[2] for task in tasks]
        assert f"| `{name}` | {', '.join(tasks)} |\n" in README, name
    rows = [line for line in README.splitlines() if line.startswith("| `")]
    assert len(rows) == len(task_specs()) + len(mixtures())
    rows = [line for line in TABLE.splitlines() if line.startswith("| `")]
    assert len(rows) == len(DATASETS)
    assert all(f"| `{source}" in TABLE for source in DATASETS)
