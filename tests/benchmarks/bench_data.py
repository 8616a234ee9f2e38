"""Examples per core and second: on demand, cached, turned into batches; and what packing saves.

    python -m tests.benchmarks.bench_data [--examples 4000] [--consumed 550] [--seqio]

Times are CPU seconds of this process, so that other work on the machine does not count. On demand
a shuffled stream makes each example when it is read; `read` reads it from a cache; `shared` is all
there is to do for rows that examples share: planned, made and placed. `consumed` is how many times
what the trainer takes (examples per second of a tiny stage-2 run: `examples_per_second` of its
metrics.jsonl, times examples to a row) a core makes and batches: one to a row, and shared. Padding
is the share of positions without a token, with one example in a row and with up to sixteen in a
row of four times the length (for a decoder: one sum of both lengths).

--seqio has the examples made through SeqIO, as `ilm cache_tasks` does, and adds the peer: the same
Task cached as SeqIO's own job does it (its dataset, one tf.train.Example each, TFRecord; without
Beam, which spreads this over machines), and read again by SeqIO, in order, as it cannot by number.
"""

import argparse
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.task_families import spec_named
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.examples.task_specs import TaskSpec
from ilm_jax.data.sources import toy
from ilm_jax.data.streams import task_cache
from ilm_jax.data.streams.cached_task import CachedTask
from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.streams.on_demand import OnDemandTask
from ilm_jax.data.streams.packing import PackedSource, PackingConverter
from ilm_jax.data.streams.streams import Stream
from ilm_jax.data.streams.task_tokenizer import train_tokenizer
from ilm_jax.tasks import common, registry
from ilm_jax.tasks.corpus import CorpusSettings

TASKS = ("long_description", "sequential_random", "bpr", "similarities")
LENGTHS = {"inputs": 100, "targets": 36}
PACKED_LENGTHS = {"inputs": 100, "targets": 4 * 136 - 100}
BATCH, PACK = 64, 16


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
    settings = TaskSettings(history=5, families=(CorpusSettings(sequential_examples=1500),))
    splits = make_splits(toy.make_world(0), settings.split)
    tokenizer = train_tokenizer(splits, settings)
    columns = ["on demand/s", "cached/s", "read/s", "batched/s", "shared/s", "padding"]
    columns += ["packed", *["consumed", "shared"] * bool(flags.consumed)]
    columns += ["seqio c/s", "seqio r/s"] * flags.seqio
    print(f"{'task':20}" + "".join(f"{name:>12}" for name in columns), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for task in TASKS:
            fresh, examples = (
                registry.make_examples([spec_named(task)], splits, settings, tokenizer)[0]
                for _ in range(2)  # what is remembered of one pass is not there in the other
            )
            path = pathlib.Path(folder)
            shared = sharing(fresh, path, flags.examples, tokenizer)
            cells = measure(examples, settings, tokenizer, path, flags, shared)
            print(f"{task:20}" + "".join(f"{cell:>12}" for cell in cells), flush=True)


def measure(
    examples: Any,
    settings: TaskSettings,
    tokenizer: Any,
    folder: pathlib.Path,
    flags: argparse.Namespace,
    shared: float,
) -> list[str]:
    """One task's line; `shared` is given."""
    spec = examples.spec
    path = folder / spec.task / "train"
    source = OnDemandTask(spec.name("toy"), examples, "train", path, dict)
    rows = range(min(flags.examples, len(source)))
    on_demand = Stream({spec.task: source})
    assert on_demand[0]
    making = rate(len(rows), lambda: [on_demand[i] for i in rows])
    found = iter([source[i] for i in rows])
    if flags.seqio:
        (name,) = common.register("toy", settings, [examples], tokenizer)
        found = common.task_examples(name, spec, "train", rows)
        next(common.task_examples(name, spec, "train", range(1)))  # builds TensorFlow's graph
    info = {"dataset": "toy", "task": spec.name("toy")}
    caching = rate(len(rows), lambda: task_cache.write(path, spec.features, found, info, len(rows)))
    task = CachedTask(path)
    stream = Stream({spec.task: task})
    assert stream[0]
    taken: list = []
    reading = rate(len(rows), lambda: taken.extend(stream[i] for i in rows))
    batching, padding, packed = batches(taken, task, tokenizer)
    cells = [f"{x:.0f}" for x in (making, caching, reading, batching, shared)]
    cells += [f"{padding:.1%}", f"{packed:.1%}"]
    both = 1 / (1 / making + 1 / batching)
    cells += [f"x {x / flags.consumed:.1f}" for x in (both, shared)] if flags.consumed else []
    if flags.seqio:
        cells += [f"{x:.0f}" for x in peer(name, spec, len(rows), folder)]
    return cells


def batches(taken: Sequence[Any], task: CachedTask, tokenizer: Any) -> tuple[float, float, float]:
    """Examples per CPU second to batches; padding one example a row, and packed."""
    converter = _converter(LENGTHS, 8, tokenizer)
    made: list = []
    groups = [taken[k : k + BATCH] for k in range(0, len(taken), BATCH)]
    batching = rate(len(taken), lambda: made.extend(converter(group) for group in groups))
    converter = _converter(PACKED_LENGTHS, 8 * PACK, tokenizer)
    packing = PackingConverter(converter, converter)
    source = PackedSource(task, converter, converter, PACK, seed=0)
    packed = [packing([source[i]]) for i in range(len(source))]
    return batching, _padding(made), _padding(packed)


def sharing(examples: Any, folder: pathlib.Path, most: int, tokenizer: Any) -> float:
    """Examples per CPU second into batches of rows that they share, planned on the way."""
    name = examples.spec.task
    source = OnDemandTask(name, examples, "train", folder / f"{name}-shared", dict)
    one, row = _converter(LENGTHS, 8, tokenizer), _converter(PACKED_LENGTHS, 8 * PACK, tokenizer)
    packing, made, number = PackingConverter(one, row), 0, 0
    assert Stream({name: source})[0]  # imports grain
    start = time.process_time()
    stream = Stream({name: PackedSource(source, one, row, PACK, seed=0)})  # plans the first rows
    while made < min(most, len(source)):
        batch = packing(stream.batch(range(number, number + BATCH // 8)))
        made += int(batch["segment_ids"].max(1).sum())
        number += BATCH // 8
    return made / (time.process_time() - start)


def _converter(lengths: dict[str, int], entities: int, tokenizer: Any) -> PromptConverter:
    return PromptConverter(
        lengths,
        tokenizer,
        max_entities=entities,
        rows=lambda block, local: local,
        num_queries=4,
        truncate_targets=True,
    )


def _padding(made: Sequence[Any]) -> float:
    return 1 - float(np.concatenate([batch["segment_ids"] > 0 for batch in made]).mean())


def peer(name: str, spec: TaskSpec, count: int, folder: pathlib.Path) -> tuple[float, float]:
    """Examples per CPU second that SeqIO caches, and reads again."""
    import seqio
    import tensorflow as tf

    file = str(folder / f"{spec.task}.tfrecord")
    sizes = {"sequence_length": None, "shuffle": False, "num_epochs": 1, "seed": 0}

    def cache() -> None:
        dataset = seqio.get_mixture_or_task(name).get_dataset(split="train", **sizes).take(count)
        with tf.io.TFRecordWriter(file) as writer:
            for example in dataset.as_numpy_iterator():
                writer.write(seqio.dict_to_tfexample(example).SerializeToString())

    kinds = {
        "ints": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
        "int": tf.io.FixedLenFeature([], tf.int64),
        "text": tf.io.FixedLenFeature([], tf.string),
    }
    described = {feature: kinds[kind] for feature, kind in spec.features}
    source = seqio.TFExampleDataSource({"train": file}, described)

    def read() -> None:
        dataset = source.get_dataset(split="train", shuffle=False)
        assert sum(1 for _ in dataset.as_numpy_iterator()) == count

    return rate(count, cache), rate(count, read)


if __name__ == "__main__":
    main()
