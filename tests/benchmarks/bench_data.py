"""Examples per core and second: made, cached through SeqIO, read, and turned into batches.

    python -m tests.benchmarks.bench_data [--examples 4000] [--consumed 133]

Times are CPU seconds of this process, so that other work on the machine does not count. `consumed`
is what the trainer takes: examples per second of a tiny stage-2 run on the same core (steps per
second of its metrics times the batch size). Last, the share of padding in rows without packing.
"""

import argparse
import pathlib
import tempfile
import time
from collections.abc import Callable

import numpy as np

from ilm_jax.data import task_cache, toy
from ilm_jax.data.converters import PromptConverter
from ilm_jax.data.splits import make_splits
from ilm_jax.data.streams import Stream
from ilm_jax.data.task_settings import SPECS, TaskSettings
from ilm_jax.tasks import common, registry
from ilm_jax.tasks.corpus import train_tokenizer

TASKS = ("long_description", "sequential_random", "bpr", "similarities")
LENGTHS = {"inputs": 100, "targets": 36}


def rate(count: int, work: Callable[[], object]) -> float:
    """Examples per CPU second."""
    start = time.process_time()
    work()
    return count / (time.process_time() - start)


def main() -> None:
    """Prints one line per task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=4000)
    parser.add_argument("--consumed", type=float, default=0.0)
    parser.add_argument("--seqio", action="store_true", help="also through SeqIO (TensorFlow)")
    flags = parser.parse_args()
    settings = TaskSettings(history=5, corpus_sequential_examples=1500)
    splits = make_splits(toy.make_world(0), settings.split)
    tokenizer = train_tokenizer(splits, settings)
    head = f"{'task':20}{'made/s':>10}{'cached/s':>10}{'read/s':>10}{'batched/s':>10}{'padding':>9}"
    print(head + ("   read / consumed" if flags.consumed else ""))
    with tempfile.TemporaryDirectory() as folder:
        for task in TASKS:
            measure(task, splits, settings, tokenizer, pathlib.Path(folder), flags)


def measure(task, splits, settings, tokenizer, folder, flags) -> None:  # noqa: ANN001
    """One task's line."""
    spec = SPECS[task]
    (examples,) = registry.make_examples([spec], splits, settings, tokenizer)
    index = examples.index("train")
    columns = [column[: flags.examples].tolist() for column in index.values()]
    rows = [dict(zip(index, values, strict=True)) for values in zip(*columns, strict=True)]
    examples.build("train", **rows[0])
    made: list = []
    making = rate(len(rows), lambda: made.extend(examples.build("train", **r) for r in rows))
    path = folder / task / "train"
    if flags.seqio:
        (name,) = common.register("toy", settings, [examples], tokenizer)
        found = common.task_examples(name, spec, "train", range(len(rows)))
        next(common.task_examples(name, spec, "train", range(1)))  # builds TensorFlow's graph
    else:
        found = iter(made)
    info = {"dataset": "toy", "task": spec.name("toy")}
    caching = rate(len(rows), lambda: task_cache.write(path, spec.features, found, info, len(rows)))
    stream = Stream({task: task_cache.CachedTask(path)})
    assert stream[0]
    taken: list = []
    reading = rate(len(rows), lambda: taken.extend(stream[i] for i in range(len(rows))))
    converter = PromptConverter(
        LENGTHS, tokenizer, max_entities=8, rows=lambda block, local: local, num_queries=4,
        truncate_targets=True,
    )  # fmt: skip
    batches = [taken[k : k + 64] for k in range(0, len(taken), 64)]
    made_batches: list = []
    batching = rate(len(rows), lambda: made_batches.extend(converter(batch) for batch in batches))
    padding = 1 - np.concatenate([b["segment_ids"] for b in made_batches]).mean()
    line = f"{task:20}{making:10.0f}{caching:10.0f}{reading:10.0f}{batching:10.0f}{padding:9.1%}"
    both = 1 / (1 / reading + 1 / batching)
    print(line + (f"{both / flags.consumed:11.1f}" if flags.consumed else ""), flush=True)


if __name__ == "__main__":
    main()
