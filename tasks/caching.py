"""Caching part by part: which parts are missing, and what writes one.

Any process that opens the same `Plan` can write any part, and the bytes are the same: one process
(`Caching.finish`), a pool of them on one machine (`run_pool`), or the workers of an Apache Beam
runner (caching_beam.py). Parts that are there are skipped, so what was stopped goes on.
"""

import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import pathlib
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

from ilm_jax import user_modules
from ilm_jax.data.catalogue.splits import Splits, make_splits
from ilm_jax.data.examples.settings_json import settings_from
from ilm_jax.data.examples.task_families import find_specs
from ilm_jax.data.examples.task_keys import (
    has_prompts,
    plain_settings,
    reads,
    task_key,
    task_path,
)
from ilm_jax.data.examples.task_settings import SPLITS, TaskSettings
from ilm_jax.data.examples.task_specs import Examples, TaskSpec
from ilm_jax.data.sources import stale
from ilm_jax.data.sources.prepare import catalogue_dir, load_catalogue
from ilm_jax.data.streams import task_cache
from ilm_jax.data.streams.cached_task import CachedTask
from ilm_jax.data.streams.tasks_on_disk import open_tokenizer
from ilm_jax.data.tokenizers import Tokenizer, chat_of, record_of
from ilm_jax.errors import UserError
from ilm_jax.locks import one_writer

Job = tuple[TaskSpec, TaskSettings]
# Tasks whose indices a process keeps: parts mostly come task by task.
EXAMPLES_KEPT = 2


class Part(NamedTuple):
    """One part of one split: rows start to stop, all that a worker needs to know of it."""

    job: int
    split: str
    number: int
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is cached, in words by which another process finds the same.

    Attributes:
      dataset: whose snapshot lies in the cache, the tokenizer too.
      settings: JSON of what differs from the default.
      tasks: names, as `find_specs` takes them.
      with_text_only: whether prompt tasks are also cached with every slot in words.
      cache_dir: the folder of prepared data.
      modules: that register what the user adds.
    """

    dataset: str
    settings: str
    tasks: tuple[str, ...]
    with_text_only: bool
    cache_dir: str
    modules: tuple[str, ...] = ()

    def jobs(self) -> list[Job]:
        """The tasks and the settings of each; errors as `find_specs` and `settings_from`."""
        user_modules.load(self.modules)
        settings = settings_from(json.loads(self.settings))
        specs = find_specs(self.dataset, self.tasks)
        jobs = [(spec, settings) for spec in specs]
        if self.with_text_only and not settings.text_only:
            words = settings.replace(text_only=True)
            jobs += [(spec, words) for spec in specs if "text_only" in reads(spec)]
        return jobs

    def open(self) -> "Caching":
        """The caches, where catalogue and tokenizer are there.

        Raises:
          UserError: if one is absent.
        """
        user_modules.load(self.modules)
        settings = settings_from(json.loads(self.settings))
        folder = pathlib.Path(self.cache_dir)
        snapshot = catalogue_dir(self.dataset, folder)
        if not snapshot.is_dir():
            raise UserError(
                f"{snapshot}: no catalogue of {self.dataset}: whoever writes its caches sees the "
                "CACHE_DIR that it was prepared in, or shares --beam_dir with it"
            )
        catalogue = load_catalogue(self.dataset, cache_dir=folder)
        tokenizer = open_tokenizer(self.dataset, settings, catalogue, folder)
        return Caching(self.dataset, make_splits(catalogue, settings.split), tokenizer, folder)


@dataclasses.dataclass(frozen=True)
class Caching:
    """The caches of a dataset: their sources and their folder."""

    dataset: str
    splits: Splits
    tokenizer: Tokenizer
    cache_dir: pathlib.Path
    _made: dict[str, Examples] = dataclasses.field(default_factory=dict, repr=False)

    def missing(self, jobs: Sequence[Job]) -> list[Part]:
        """The parts that are not written, of splits that are not cached."""
        found = []
        for place, job in enumerate(jobs):
            for split, path in self._paths(job):
                if (path / "info.json").exists():
                    continue
                for number, rows in enumerate(task_cache.parts(self._size(job, split))):
                    if not task_cache.has_part(path, number):
                        found.append(Part(place, split, number, rows.start, rows.stop))
        return found

    def path(self, job: Job, split: str) -> pathlib.Path:
        """The folder of a split's cache."""
        return task_path(job[0].name(self.dataset), self._key(job), self.cache_dir, split)

    def write(self, job: Job, part: Part) -> int:
        """Writes one part and gives the number of its examples. Imports TensorFlow."""
        from ilm_jax.tasks import common

        spec, settings = job
        examples = self._examples(job)
        (name,) = common.register(self.dataset, settings, [examples], self.tokenizer)
        rows = range(part.start, part.stop)
        found = common.task_examples(name, spec, part.split, rows)
        task_cache.write_part(self.path(job, part.split), part.number, spec.features, found)
        return len(rows)

    def finish(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Writes what is still missing, and gives what info.json says of every split."""
        infos = []
        for job in jobs:
            said = False
            for split, path in self._paths(job):
                if not (path / "info.json").exists():
                    if not said:
                        self._say_why(job, path)
                    said = True
                    self._finish(job, split, path)
                infos.append(CachedTask(path).info)
        return infos

    def _finish(self, job: Job, split: str, path: pathlib.Path) -> None:
        with one_writer(path, "ilm cache_tasks", beside=True):
            if (path / "info.json").exists():  # another process was faster
                return
            total = self._size(job, split)
            self._write_rest(job, split, path, total)
            task_cache.finish(path, job[0].features, self._info(job, split), total)

    def _write_rest(self, job: Job, split: str, path: pathlib.Path, total: int) -> None:
        wanted = [
            Part(0, split, number, rows.start, rows.stop)
            for number, rows in enumerate(task_cache.parts(total))
            if not task_cache.has_part(path, number)
        ]
        if wanted:
            shown = task_cache.Progress(path, sum(part.stop - part.start for part in wanted))
            done = 0
            for part in wanted:
                done += self.write(job, part)
                shown.show(done)
            shown.done(done)

    def _say_why(self, job: Job, path: pathlib.Path) -> None:
        """Says why the cache of this task that is there cannot be read in its place."""
        why = stale.nearest_cache(path.parent, self._info(job, "train"))
        if why:
            name = job[0].name(self.dataset)
            print(f"cache: {name} is there with {why}: made anew", file=sys.stderr, flush=True)

    def _paths(self, job: Job) -> Iterator[tuple[str, pathlib.Path]]:
        for split in SPLITS:
            yield split, self.path(job, split)

    def _key(self, job: Job) -> str:
        tokenizer = self.tokenizer
        fingerprints = tokenizer.fingerprint, chat_of(tokenizer)
        return task_key(*job, self.splits.catalogue.fingerprint, *fingerprints)

    def _examples(self, job: Job) -> Examples:
        key = self._key(job)
        if key not in self._made:
            from ilm_jax.tasks import registry

            while len(self._made) >= EXAMPLES_KEPT:
                del self._made[next(iter(self._made))]
            spec, settings = job
            made = registry.make_examples([spec], self.splits, settings, self.tokenizer)
            self._made[key] = made[0]
        return self._made[key]

    def _size(self, job: Job, split: str) -> int:
        return len(next(iter(self._examples(job).index(split).values())))

    def _info(self, job: Job, split: str) -> dict[str, Any]:
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
            "truncations": self._examples(job).truncations(split),
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


@functools.lru_cache(maxsize=1)
def opened(plan: Plan) -> tuple[Caching, list[Job]]:
    """The caches and the tasks of a plan, opened once by each process."""
    return plan.open(), plan.jobs()


def write_part(plan: Plan, part: Part) -> int:
    """Writes one part of a plan; gives the number of its examples."""
    caching, jobs = opened(plan)
    return caching.write(jobs[part.job], part)


def run_pool(plan: Plan, parts: Sequence[Part], workers: int) -> None:
    """Writes parts by so many processes of this machine.

    Raises:
      UserError: what is wrong, as one of them found it; if one was killed. Parts that are written
        stay.
    """
    shown = task_cache.Progress(
        pathlib.Path(plan.dataset) / f"{workers} processes", sum(p.stop - p.start for p in parts)
    )
    context = multiprocessing.get_context("spawn")  # threads of TensorFlow's do not survive a fork
    done = 0
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        running = [pool.submit(write_part, plan, part) for part in parts]
        try:
            for future in concurrent.futures.as_completed(running):
                done += future.result()
                shown.show(done)
        except BrokenProcessPool as error:
            raise UserError(
                "a process that wrote caches was killed (is there memory for "
                f"--workers={workers}?); what it had written stays, so run this again"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    shown.done(done)
