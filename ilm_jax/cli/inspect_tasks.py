"""What `ilm inspect` says of tasks: sizes, mixtures, examples, statistics."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from ilm_jax.data.catalogue.splits import Splits
    from ilm_jax.data.examples.example import Example
    from ilm_jax.data.examples.task_settings import TaskSettings
    from ilm_jax.data.examples.task_specs import Examples, TaskSpec
    from ilm_jax.data.tokenizers import Tokenizer

# Stands for a slot where a prompt is shown.
SHOWN = {"\ue000": "‹item›", "\ue001": "‹user›"}
# Examples are made for so long, to say how fast that is.
SECONDS = 0.2
# Of catalogues with more interactions only those tasks are counted that arithmetic counts.
MANY = 1_000_000
UNCOUNTED = "–"
# Tasks that the overview shows an example of.
SAMPLES = ("elm24/long_description", "openp5/sequential_random")


def overview(
    dataset: str,
    splits: "Splits",
    settings: "TaskSettings",
    tokenizer: "Tokenizer | None",
    full: bool,
) -> str:
    """Every task of a dataset with its sizes, every mixture with its rates, and samples."""
    from ilm_jax.data.examples.task_families import spec_named, task_specs

    every = full or len(splits.catalogue.items) <= MANY
    sizes = {
        name: sizes_of(spec, splits, settings) if every or spec.counted else None
        for name, spec in task_specs().items()
    }
    parts = [task_table(dataset, sizes), mixture_table(sizes)]
    if not all(sizes.values()):
        parts.append(f"{UNCOUNTED}: counted by --full, which looks at neighbours and texts")
    for name in SAMPLES:
        found = sizes[name]
        if found and found["train"]:
            parts.append(show(spec_named(name), splits, settings, tokenizer, "train", 1))
    return "\n\n".join(parts)


Sizes = Mapping[str, dict[str, int] | None]


def sizes_of(spec: "TaskSpec", splits: "Splits", settings: "TaskSettings") -> dict[str, int]:
    """Examples of every split."""
    from ilm_jax.data.examples.task_settings import SPLITS
    from ilm_jax.tasks.registry import make_examples

    (examples,) = make_examples([spec], splits, settings)
    return {split: len(next(iter(examples.index(split).values()))) for split in SPLITS}


def task_table(dataset: str, sizes: Sizes) -> str:
    """Every task of a dataset with its sizes."""
    from ilm_jax.cli.cache_tasks import aligned
    from ilm_jax.data.examples.task_families import task_specs
    from ilm_jax.data.examples.task_settings import SPLITS

    rows: list[Sequence[str]] = [("task", *SPLITS, "input", "target", "source")]
    for name, spec in task_specs().items():
        found = sizes[name]
        numbers = [UNCOUNTED] * len(SPLITS) if found is None else map(str, found.values())
        what = (*spec.what.split(" | "), "", "", "")[:3]
        rows.append((spec.name(dataset), *numbers, *what))
    return aligned(rows)


def mixture_table(sizes: Sizes) -> str:
    """Every named mixture with the rates that its tasks' sizes give."""
    from ilm_jax.cli.cache_tasks import aligned
    from ilm_jax.data.examples.task_families import mixtures, spec_named
    from ilm_jax.data.streams.streams import Mixture

    rows: list[Sequence[str]] = [("mixture", "examples", "rates by size")]
    for mixture, tasks in mixtures().items():
        found = {spec_named(name).task: sizes[name] for name in tasks}
        trained = {task: size["train"] for task, size in found.items() if size and size["train"]}
        if None in found.values():
            rows.append((mixture, UNCOUNTED, ""))
        elif not trained:
            rows.append((mixture, "0", "no examples here"))
        else:
            weights = Mixture(dict.fromkeys(trained)).weights(trained)
            rates = ", ".join(f"{task} {weight:.3f}" for task, weight in weights.items())
            rows.append((mixture, str(sum(trained.values())), rates))
    return aligned(rows)


def show(
    spec: "TaskSpec",
    splits: "Splits",
    settings: "TaskSettings",
    tokenizer: "Tokenizer | None",
    split: str,
    num: int,
) -> str:
    """Examples of a task in words, slots visible, with lengths, what is cut, and speed."""
    from ilm_jax.errors import UserError
    from ilm_jax.tasks.registry import make_examples

    (examples,) = make_examples([spec], splits, settings, tokenizer)
    index = examples.index(split)
    total = len(next(iter(index.values())))
    if not total:
        raise UserError(f"{spec.task}: split {split!r} has no examples")
    lines = [f"{spec.task}, {split}: {total} examples; {spec.what.replace(' | ', ' → ')}"]
    chosen = [k * total // min(num, total) for k in range(min(num, total))]
    lines += [_shown(examples, split, _integers(index, k), tokenizer) for k in chosen]
    cut = {name: count for name, count in examples.truncations(split).items() if count}
    lines.append(f"cut: {', '.join(f'{n} of {c} examples' for n, c in cut.items()) or 'nothing'}")
    if tokenizer is None:
        lines.append("no tokenizer yet, so no lengths: training makes one, or `ilm cache_tasks`")
    else:
        start, built = time.monotonic(), 0
        while time.monotonic() - start < SECONDS and built < total:
            examples.build(split, **_integers(index, built))
            built += 1
        rate = built / max(time.monotonic() - start, 1e-9)
        lines.append(f"{rate:.0f} examples/s made on one core")
    return "\n".join(lines)


def _integers(index: "Mapping[str, np.ndarray]", row: int) -> dict[str, int]:
    return {name: int(column[row]) for name, column in index.items()}


def statistics(
    spec: "TaskSpec", splits: "Splits", settings: "TaskSettings", tokenizer: "Tokenizer | None"
) -> str:
    """Lengths of all examples of every split, each made once.

    Raises:
      UserError: without a tokenizer, where examples have tokens.
    """
    from ilm_jax.cli.cache_tasks import aligned
    from ilm_jax.data.examples.task_settings import SPLITS
    from ilm_jax.errors import UserError
    from ilm_jax.tasks.registry import make_examples

    (examples,) = make_examples([spec], splits, settings, tokenizer)
    names = [name for name, kind in spec.features if kind == "ints"]
    if names and tokenizer is None:
        raise UserError(
            f"{spec.task}: no tokenizer yet, so no lengths: `ilm cache_tasks` makes one, or name "
            """one by --settings='{"tokenizer": "FOLDER"}'"""
        )
    rows: list[Sequence[str]] = [("split", "examples", *(f"{n}: longest (mean)" for n in names))]
    for split in SPLITS:
        rows.append((split, *_lengths(examples, split, names)))
    return aligned(rows)


def _lengths(examples: "Examples", split: str, names: Sequence[str]) -> list[str]:
    """Number of examples, and for each feature its longest and its mean length."""
    from ilm_jax.progress import bar

    index = examples.index(split)
    total = len(next(iter(index.values())))
    longest, sums = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    advance = bar(f"examples of {split}", total, late=True)
    for row in range(total if names else 0):
        built = examples.build(split, **_integers(index, row))
        for name in names:
            length = len(built[name])
            longest[name], sums[name] = max(longest[name], length), sums[name] + length
        advance(1)
    cells = (f"{longest[name]} ({sums[name] / max(total, 1):.1f})" for name in names)
    return [str(total), *cells]


def _shown(
    examples: "Examples", split: str, row: dict[str, int], tokenizer: "Tokenizer | None"
) -> str:
    if not hasattr(examples, "render"):  # a pair: vectors alone
        built: Example = (
            examples.build(split, **row)
            if tokenizer or "text" not in dict(examples.spec.features)
            else row
        )
        return "  " + json.dumps({k: v for k, v in built.items() if k != "text"})
    example = examples.render(split, **row)
    prompt = example.prompt.text if example.prompt else ""
    for mark, name in SHOWN.items():
        prompt = prompt.replace(mark, name)
    lines = [f"  {example.key}  [{example.template}]", f"    in:  {prompt}"]
    lines.append(f"    out: {example.target_text}")
    if tokenizer is not None:
        built = examples.build(split, **row)
        lines.append(
            f"    {len(built['inputs'])} input tokens, {len(built['slots'])} of them slots; "
            f"{len(built['targets'])} target tokens, {sum(built['targets_content'])} of content"
        )
    return "\n".join(lines)
