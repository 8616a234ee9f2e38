"""OpenP5-R's training beside the published recipe's arithmetic in PyTorch, on the same batches.

Ours is the product's: tasks with prompts drawn anew, batches of one task by turns, word ids, the
objective and optimizer of runs/openp5_scratch.gin, the trainer's step. The peer (openp5_peer.py) is
transformers' T5 with OpenP5's additions written out in torch: whole-word embeddings, its loss,
clip, AdamW and schedule. Both begin with the same weights, number rows drawn anew, and read the
same rows.

    python -m tests.benchmarks.bench_openp5 --peer_python PYTHON [--shape small] [--steps 200]
        [--epoch_of 0] [--batch 8] [--dropout 0] [--seeds 1] [--output FILE]

needs torch and transformers, of another environment (--peer_python), and nothing of the network:
the toy world's catalogue (2,000 items) and a T5 tokenizer of the tests, whose vocabulary is small,
so that of t5_small's 32,128 rows most are never said. `--shape t5_small` has T5-small's sizes; a
batch of 64 takes minutes a step of one core there, so give it 2 to 8 rows, and say so. With
`--epoch_of USERS` it trains one epoch of that many users' examples, each in all its renderings.

Without dropout losses are compared step by step, and the weights at the end; the exit code says
whether the first five losses agreed to 1e-3 of their size and the means of both curves to 1e-2, for
rounding grows with every step. With dropout (0.1) masks are each side's own: `--seeds`
runs of each side, and the exit code says whether the mean losses of the two sides differ by less
than three of the standard errors of their difference. The last line is JSON.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ilm_jax.checkpoints.published.families.t5 import rules
from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.task_specs import TaskSpec
from ilm_jax.data.sources.prepare import load_catalogue
from ilm_jax.data.streams.redrawing import Draw, Renderings
from ilm_jax.data.streams.streams import Example, Stream
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.models.stacking import unstack_layers
from ilm_jax.runs.gin_config import build
from ilm_jax.runs.run import Run
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.sharding.state import describe_variables, initialise, make_state
from ilm_jax.tasks.registry import make_examples
from ilm_jax.training.data_start import DataStart
from ilm_jax.training.step import make_train_step
from tests.data.published_tokenizers import published

SHAPES = {
    "small": {"num_layers": 2, "embed_dim": 64, "num_heads": 4, "head_dim": 16, "mlp_dim": 128},
    "t5_small": {},
}
TASKS = ("sequential_random", "straightforward_random")
AGREE, FIRST, CURVES, ERRORS = 1e-3, 5, 1e-2, 3.0
TABLE = np.zeros((1, 1), np.float32)
Batch = dict[str, np.ndarray]


class OnDemand:
    """A task's training examples, made when they are read; all renderings of one are neighbours."""

    def __init__(
        self, spec: TaskSpec, run: Run, splits: Any, tokenizer: Tokenizer, users: int = 0
    ) -> None:
        settings = run.train["prompt"].settings
        (self._examples,) = make_examples([spec], splits, settings, tokenizer)
        index = self._examples.index("train")
        kept = np.asarray(index["user"]) < (users or np.inf)
        self._index = {name: np.asarray(column)[kept] for name, column in index.items()}
        self._catalogue, self._features = splits.catalogue.name, spec.features

    def __len__(self) -> int:
        return len(self._index["variant"])

    def __getitem__(self, index: int) -> Example:
        integers = {name: int(column[index]) for name, column in self._index.items()}
        built = self._examples.build("train", **integers)
        arrays = {n: np.array(built[n], np.int32) for n, kind in self._features if kind == "ints"}
        return {**built, **arrays, "catalogue": self._catalogue}


def recipe(flags: argparse.Namespace) -> Run:
    """runs/openp5_scratch.gin in the shape that is asked for."""
    sizes = {"dropout": flags.dropout, **SHAPES[flags.shape]}
    if flags.shape == "small":
        sizes["vocab_size"] = 0
    bindings = [f"t5.T5Config.{name}={value}" for name, value in sizes.items()]
    lengths = {"inputs": flags.inputs, "targets": 16}
    macros = [f"TRAIN_STEPS={flags.total or 1}", f"BATCH_SIZE={flags.batch}", "PROMPT_FORMAT=plain"]
    macros.append(f"TASK_FEATURE_LENGTHS={lengths}")
    return build(Run, ["runs/openp5_scratch.gin"], [*macros, *bindings], unnamed="nowhere")


def stream_of(run: Run, tokenizer: Tokenizer, users: int) -> Stream:
    """The run's training rows, of its first users or of all (0)."""
    data = run.train["prompt"]
    splits = make_splits(load_catalogue(data.dataset), data.settings.split)
    specs = [spec for spec in data.specs() if spec.task in TASKS]
    sources = {
        spec.task: Renderings(
            OnDemand(spec, run, splits, tokenizer, users),
            data.settings.variants,
            data.redraw,
            spec.task,
        )
        for spec in specs
    }
    return Stream(sources, seed=data.seed, block=data.block, transform=Draw(sources))


def batches_of(run: Run, tokenizer: Tokenizer, stream: Stream, steps: int) -> list[Batch]:
    """The first batches of the run."""
    data = run.train["prompt"]
    _, converter = run.objective.layout("prompt").open(data, {}, tokenizer, None)
    size = run.trainer.batch_size
    numbers = [np.arange(k * size, (k + 1) * size) for k in range(steps)]
    return [converter(stream.batch(chosen), chosen) for chosen in numbers]


def for_peer(batches: list[Batch], eos: int) -> dict[str, np.ndarray]:
    """The same rows as an encoder's and a decoder's: [steps, rows, length] each."""
    inputs, words, labels = [], [], []
    for batch in batches:
        for row in range(len(batch["tokens"])):
            read, told = batch["word_ids"][row] >= 0, batch["loss_weights"][row] > 0
            inputs.append([*batch["tokens"][row][read], eos])
            words.append([*batch["word_ids"][row][read], 0])
            labels.append([*batch["targets"][row][told]])
    found = {}
    for name, rows in (("inputs", inputs), ("words", words), ("labels", labels)):
        width = max(map(len, rows))
        padded = np.zeros((len(rows), width), np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for row, values in enumerate(rows):
            padded[row, : len(values)], mask[row, : len(values)] = values, 1
        shape = (len(batches), -1, width)
        found[name], found[f"{name}_mask"] = padded.reshape(shape), mask.reshape(shape)
    del found["words_mask"]
    return found


class Ours:
    """The product's step, from the recipe's start."""

    def __init__(self, run: Run, tokenizer: Tokenizer) -> None:
        objective = run.objective.with_sizes(tokenizer=tokenizer, target_length=16)
        self.lm = objective.language.lm  # type: ignore[union-attr]
        self._partitioner = Partitioner(devices=tuple(jax.devices()[:1]))
        variables = describe_variables(objective)
        key = jax.random.key(run.trainer.seed)
        params = initialise(objective, variables, list(variables), self._partitioner, key)
        params, lines = DataStart(objective, self._partitioner, TABLE, seed=run.trainer.seed)(
            params, list(params)
        )
        assert "drawn anew" in lines[0]
        self.start = jax.tree.map(np.array, params)
        self._places = {path: x.sharding for path, x in params.items()}
        self._optimizer = run.optimizer.build(run.trainer.total_steps)
        state = make_state(params, {}, self._optimizer)
        self._step: Any = make_train_step(
            objective, "prompt", self._optimizer, self._partitioner, state, run.trainer.batch_size
        )

    def train(self, batches: list[Batch], seed: int) -> tuple[dict[str, np.ndarray], list[dict]]:
        """(weights at the end, loss, norm and seconds of each step)."""
        params = {path: jax.device_put(x, self._places[path]) for path, x in self.start.items()}
        state, found = make_state(params, {}, self._optimizer), []
        with self._partitioner.context():
            for batch in batches:
                begin = time.perf_counter()
                state, report = self._step(state, batch, TABLE, jax.random.key(seed))
                sums = report["sums"]["loss"]
                loss, norm = float(sums.total / sums.weight), float(report["grad_norm"])
                seconds = time.perf_counter() - begin
                found.append({"loss": loss, "norm": norm, "seconds": seconds})
        return jax.device_get(state.trainable), found

    def by_their_names(self, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Parameters as transformers names them, and "whole_word"."""
        own = {path.removeprefix("lm/"): np.asarray(x) for path, x in params.items()}
        own = unstack_layers(own)
        found = {"whole_word": own["word_embedding/embedding"]}
        for entry, rule in rules(self.lm).items():
            array = own[entry].T if rule.transposed else own[entry]
            found[rule.source] = np.ascontiguousarray(array)
        return found


def peer(python: str, folder: pathlib.Path, seed: int) -> Iterator[dict[str, Any]]:
    """Lines of the peer."""
    words = [
        python,
        str(pathlib.Path(__file__).with_name("openp5_peer.py")),
        str(folder),
        str(seed),
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        raise SystemExit("the peer failed")


def curves(losses: np.ndarray, windows: int = 8) -> str:
    """Mean losses of parts of a run."""
    return " ".join(f"{part.mean():.4f}" for part in np.array_split(losses, windows))


def compare_weights(
    start: dict[str, np.ndarray], ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]
) -> float:
    """Distance of the two ends over the way that ours went."""
    apart = sum(float(((ours[n] - theirs[n]) ** 2).sum()) for n in ours)
    way = sum(float(((ours[n] - start[n]) ** 2).sum()) for n in ours)
    return float(np.sqrt(apart / way))


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer_python", required=True)
    parser.add_argument("--shape", choices=[*SHAPES], default="small")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--total", type=int, help="steps of the schedule; default: --steps")
    parser.add_argument("--epoch_of", type=int, default=0, help="users; in place of --steps")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--inputs", type=int, default=300)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--output", help="file of all losses, as JSON")
    return parser.parse_args()


def main() -> int:
    """Prints both curves and what they differ by; the last line is JSON."""
    flags, tokenizer = parse(), published("t5")
    stream = stream_of(recipe(flags), tokenizer, flags.epoch_of)
    if flags.epoch_of:
        flags.steps = stream.len_epoch // flags.batch
    flags.total = flags.total or flags.steps
    run = recipe(flags)
    batches = batches_of(run, tokenizer, stream, flags.steps)
    ours = Ours(run, tokenizer)
    optimizer = run.optimizer
    sizes = dataclasses.asdict(ours.lm)
    config = {
        **{name: sizes[name] for name in ("vocab_size", "embed_dim", "head_dim", "mlp_dim")},
        **{name: sizes[name] for name in ("num_layers", "num_heads", "dropout", "word_rows")},
        **{"rate": optimizer.learning_rate, "eps": optimizer.eps, "clip": optimizer.clip_norm},
        **{"weight_decay": optimizer.weight_decay, "total": flags.total},
        **{"warmup": int(0.05 * flags.total), "threads": len(os.sched_getaffinity(0))},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "config.json").write_text(json.dumps(config))
        start = ours.by_their_names(ours.start)
        np.savez(folder / "weights.npz", **start)
        rows = for_peer(batches, ours.lm.eos_id)
        np.savez(folder / "batches.npz", **rows)
        real = {n: float(rows[f"{n}_mask"].sum(-1).mean()) for n in ("inputs", "labels")}
        print(f"{flags.shape}: {flags.batch} rows of {real} real tokens, {flags.steps} steps")
        mine, theirs, versions = [], [], ""
        for seed in range(flags.seeds):
            ended, lines = ours.train(batches, seed)
            mine.append(lines)
            print(f"ours, seed {seed}:  {curves(_losses(lines))}", flush=True)
            *lines, last = peer(flags.peer_python, folder, seed)
            theirs.append(lines)
            versions = last["versions"]
            print(f"torch, seed {seed}: {curves(_losses(lines))}", flush=True)
        with np.load(folder / "peer.npz") as arrays:
            apart = compare_weights(start, ours.by_their_names(ended), dict(arrays))
    return tell(flags, mine, theirs, versions, apart)


def _losses(lines: list[dict[str, Any]]) -> np.ndarray:
    return np.array([line["loss"] for line in lines])


def tell(flags: argparse.Namespace, mine: list, theirs: list, versions: str, apart: float) -> int:
    """Prints what the two sides differ by; returns 0 if the bounds held."""
    a, b = (np.array([_losses(lines) for lines in side]) for side in (mine, theirs))
    record: dict[str, Any] = {"benchmark": f"openp5_{flags.shape}_dropout{flags.dropout:g}"}
    if not flags.dropout:
        off = np.abs(a - b).max(0) / b.min(0)
        norms = [np.array([line["norm"] for line in side[0]]) for side in (mine, theirs)]
        of_norm = np.abs(norms[0] - norms[1]) / norms[1]
        curves_off = abs(a.mean() - b.mean()) / b.mean()
        held = bool(off[:FIRST].max() < AGREE and curves_off < CURVES)
        shown = {k: f"{off[:k].max():.1e}" for k in (1, 5, 10, 30, 100, 300) if k <= len(off)}
        print(f"losses differ by at most {off.max():.1e} of their size (first steps: {shown}),")
        print(f"means of the curves by {curves_off:.1e}, norms by {of_norm.max():.1e};")
        print(f"weights by {apart:.1e} of the way they went")
        record |= {"loss_difference": float(off.max()), "weight_difference": apart}
    else:
        means = a.mean(1), b.mean(1)
        difference = float(means[0].mean() - means[1].mean())
        error = float("nan")
        if flags.seeds > 1:
            error = float(np.sqrt(sum(m.var(ddof=1) / flags.seeds for m in means)))
        held = bool(abs(difference) < ERRORS * error) or flags.seeds == 1
        each = a.mean(0) - b.mean(0)
        print(
            f"mean losses {means[0].mean():.4f} and {means[1].mean():.4f}: {difference:+.4f} with"
        )
        print(
            f"a standard error of {error:.4f}; step by step {each.mean():+.4f} +- {each.std():.4f}"
        )
        record |= {"mean_difference": difference, "standard_error": error}
    seconds = [np.median([x["seconds"] for x in side[-1][1:]]) for side in (mine, theirs)]
    record |= {"peer": versions, "ours_s": float(seconds[0]), "peer_s": float(seconds[1])}
    record |= {"ratio": float(seconds[1] / seconds[0]), "floor_s": None}
    if flags.output:
        both = {"ours": a.tolist(), "torch": b.tolist(), **record}
        pathlib.Path(flags.output).write_text(json.dumps(both))
    print(json.dumps(record))
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
