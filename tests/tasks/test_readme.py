"""The tables of docs/tasks.md and docs/data.md are those of the code."""

import pathlib

from ilm_jax.data.examples.task_specs import SPECS
from ilm_jax.data.sources.families import FAMILIES
from ilm_jax.data.streams.mixtures import MIXTURES

DOCS = pathlib.Path(__file__).parents[2] / "docs"
README = (DOCS / "tasks.md").read_text()
DATASETS = (DOCS / "data.md").read_text().partition("## Datasets")[2].partition("\n## ")[0]


def test_every_task_mixture_and_dataset_is_listed_as_it_is():
    for spec in SPECS.values():
        given, target, paper = spec.what.split(" | ")
        metrics = ", ".join(spec.metrics) or "-"
        name = f"{spec.family}_…_{spec.task}"
        assert f"| `{name}` | {paper} | {given} | {target} | {metrics} |\n" in README, name
    for name, tasks in MIXTURES.items():
        assert f"| `{name}` | {', '.join(tasks)} |\n" in README, name
    rows = [line for line in README.splitlines() if line.startswith("| `")]
    assert len(rows) == len(SPECS) + len(MIXTURES)
    rows = [line for line in DATASETS.splitlines() if line.startswith("| `")]
    assert len(rows) == len(FAMILIES)
    assert all(f"| `{family}" in DATASETS for family in FAMILIES)
