"""Caching by many processes: who writes which part, and what is still missing.

Part p of every split is the work of worker p modulo the number of workers, so nobody waits for
anybody; parts that are there already are skipped, so a run that was stopped goes on.
"""

import dataclasses
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ilm_jax import subprocesses
from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.examples.task_keys import has_prompts, plain_settings, task_key, task_path
from ilm_jax.data.examples.task_settings import SPLITS, TaskSettings
from ilm_jax.data.examples.task_specs import Examples, TaskSpec
from ilm_jax.data.sources import stale
from ilm_jax.data.streams import task_cache
from ilm_jax.data.streams.cached_task import CachedTask
from ilm_jax.data.tokenizers import Tokenizer, chat_of, record_of
from ilm_jax.errors import UserError
from ilm_jax.locks import one_writer

Job = tuple[TaskSpec, TaskSettings]
_WORKER = re.compile(r"(\d{1,5})/(\d{1,5})")


def share(worker: str) -> tuple[int, int]:
    """ "2/8" as (2, 8); UserError for anything else."""
    found = _WORKER.fullmatch(worker)
    if found is None or not 0 <= int(found[1]) < int(found[2]):
        raise UserError(f"--worker={worker}: give K/N with 0 <= K < N, such as 0/4")
    return int(found[1]), int(found[2])


@dataclasses.dataclass(frozen=True)
class Caching:
    """The caches of a dataset: their sources and their folder."""

    dataset: str
    splits: Splits
    tokenizer: Tokenizer
    cache_dir: pathlib.Path

    def missing(self, jobs: Sequence[Job]) -> bool:
        """Whether any split of these tasks is not cached."""
        paths = [path for job in jobs for _, path in self._paths(job)]
        return not all((path / "info.json").exists() for path in paths)

    def write_parts(self, jobs: Sequence[Job], worker: int, workers: int) -> None:
        """Writes this worker's share of the parts that are not there. Imports TensorFlow if any."""
        for job in jobs:
            examples: Examples | None = None
            for split, path in self._paths(job):
                if (path / "info.json").exists():
                    continue
                examples = examples or self._examples(job)
                self._write_parts(job, examples, split, path, worker, workers)

    def finish(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Writes what is still missing, and gives what info.json says of every split."""
        infos = []
        for job in jobs:
            examples: Examples | None = None
            for split, path in self._paths(job):
                if not (path / "info.json").exists():
                    if examples is None:
                        examples = self._examples(job)
                        self._say_why(job, examples, path)
                    self._finish(job, examples, split, path)
                infos.append(CachedTask(path).info)
        return infos

    def _finish(self, job: Job, examples: Examples, split: str, path: pathlib.Path) -> None:
        with one_writer(path, "ilm cache_tasks", beside=True):
            if (path / "info.json").exists():  # another process was faster
                return
            self._write_parts(job, examples, split, path, 0, 1)
            total = _size(examples, split)
            task_cache.finish(path, job[0].features, self._info(job, examples, split), total)

    def _say_why(self, job: Job, examples: Examples, path: pathlib.Path) -> None:
        """Says why the cache of this task that is there cannot be read in its place."""
        why = stale.nearest_cache(path.parent, self._info(job, examples, "train"))
        if why:
            name = job[0].name(self.dataset)
            print(f"cache: {name} is there with {why}: made anew", file=sys.stderr, flush=True)

    def _paths(self, job: Job) -> Iterator[tuple[str, pathlib.Path]]:
        name = job[0].name(self.dataset)
        for split in SPLITS:
            yield split, task_path(name, self._key(job), self.cache_dir, split)

    def _key(self, job: Job) -> str:
        tokenizer = self.tokenizer
        fingerprints = tokenizer.fingerprint, chat_of(tokenizer)
        return task_key(*job, self.splits.catalogue.fingerprint, *fingerprints)

    def _examples(self, job: Job) -> Examples:
        from ilm_jax.tasks import registry

        spec, settings = job
        return registry.make_examples([spec], self.splits, settings, self.tokenizer)[0]

    def _write_parts(
        self,
        job: Job,
        examples: Examples,
        split: str,
        path: pathlib.Path,
        worker: int,
        workers: int,
    ) -> None:
        from ilm_jax.tasks import common

        spec, settings = job
        numbered = enumerate(task_cache.parts(_size(examples, split)))
        wanted = [
            (number, rows)
            for number, rows in numbered
            if number % workers == worker and not task_cache.has_part(path, number)
        ]
        if not wanted:
            return
        (name,) = common.register(self.dataset, settings, [examples], self.tokenizer)
        shown = task_cache.Progress(path, sum(len(rows) for _, rows in wanted))
        done = 0
        for number, rows in wanted:
            found = common.task_examples(name, spec, split, rows)
            task_cache.write_part(path, number, spec.features, found)
            done += len(rows)
            shown.show(done)
        shown.done(done)

    def _info(self, job: Job, examples: Examples, split: str) -> dict[str, Any]:
        spec, settings = job
        catalogue = self.splits.catalogue
        prompts = {"prompts": record_of(self.tokenizer)} if has_prompts(spec) else {}
        return {
            "task": spec.name(self.dataset),
            "split": split,
            "dataset": catalogue.name,
            "version": spec.version,
            "key": self._key(job),
            "settings": plain_settings(spec, settings),
            "metrics": list(spec.metrics),
            "truncations": examples.truncations(split),
            "tokenizer": {
                "fingerprint": self.tokenizer.fingerprint,
                "vocab_size": self.tokenizer.vocab_size,
            },
            **prompts,
            "sources": {
                "catalogue": catalogue.fingerprint,
                "catalogue_version": catalogue.version,
                "splits": self.splits.fingerprint,
            },
        }


def _size(examples: Examples, split: str) -> int:
    return len(next(iter(examples.index(split).values())))


def run_workers(words: Sequence[str], workers: int) -> None:
    """Runs `ilm cache_tasks` with these words once per worker, and waits for all.

    Raises:
      UserError: what a worker says, if one fails.
    """
    subprocesses.run_side_by_side(
        [
            ["ilm_jax", "cache_tasks", *words, f"--worker={number}/{workers}"]
            for number in range(workers)
        ]
    )
