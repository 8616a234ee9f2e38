"""The toy world prepared, once for all test processes and only if a test asks."""

import functools
import os
import pathlib

from ilm_jax.cli import cache_tasks
from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.sources import toy
from ilm_jax.data.sources.prepare import catalogue_dir
from ilm_jax.data.streams.task_tokenizer import ensure_tokenizer
from ilm_jax.locks import taking_turns


@functools.cache
def toy_world() -> Catalogue:
    """World 0."""
    return toy.make_world(0)


def with_catalogue(cache_dir: pathlib.Path) -> pathlib.Path:
    """Puts the snapshot of world 0 there, without the TFDS builder (it has tests of its own)."""
    path = catalogue_dir("toy", cache_dir)
    toy_world().save(path, {"builder": toy.VERSION})
    return cache_dir


@functools.cache
def prepared_toy() -> pathlib.Path:
    """A cache folder with the toy world, and no task caches."""
    cache_dir = pathlib.Path(os.environ["ILM_TESTS_SHARED"]) / "prepared"
    with taking_turns(cache_dir.with_name("prepared.lock")):
        if not (done := cache_dir.with_name("prepared.done")).exists():
            with_catalogue(cache_dir)
            ensure_tokenizer("toy", TaskSettings(), toy_world(), cache_dir)
            done.touch()
    return cache_dir


# Pairs, and texts of items: few examples. All tasks at once: tests/data/test_on_demand.py.
CACHED = ("item_text", "long_description")


@functools.cache
def cached_toy() -> pathlib.Path:
    """A cache folder with `CACHED` of the toy world; descriptions also in words alone."""
    cache_dir = pathlib.Path(os.environ["ILM_TESTS_SHARED"]) / "toy"
    with taking_turns(cache_dir.with_name("toy.lock")):
        if not (done := cache_dir.with_name("toy.done")).exists():
            cache_dir.mkdir(exist_ok=True)
            base = ["--dataset=toy", f"--cache_dir={with_catalogue(cache_dir)}"]
            cache_tasks.main([*base, f"--tasks={','.join(CACHED)}", "--nowith_text_only"])
            cache_tasks.main([*base, "--tasks=long_description"])
            done.touch()
    return cache_dir
