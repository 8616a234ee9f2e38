"""A plan of caching in a folder of its own, which any process can open."""

import json

from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.settings_json import settings_json
from ilm_jax.data.examples.task_keys import tokenizer_path
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.sources import toy
from ilm_jax.data.sources.prepare import catalogue_dir
from ilm_jax.data.streams.task_tokenizer import train_tokenizer
from ilm_jax.tasks.caching import Plan
from tests.data.small_catalogue import small_catalogue

TASKS = ("sequential_random", "item_item")
SETTINGS = TaskSettings()
SPLITS = make_splits(small_catalogue())
TOKENIZER = train_tokenizer(SPLITS, SETTINGS)


def planned(folder, modules=(), tasks=TASKS):
    """Catalogue and tokenizer in a folder, and the plan of some tasks there."""
    catalogue = SPLITS.catalogue
    catalogue.save(catalogue_dir("toy", folder), {"builder": toy.VERSION})
    TOKENIZER.save(tokenizer_path("toy", SETTINGS, catalogue.fingerprint, folder))
    assert json.loads(settings_json(SETTINGS))
    return Plan("toy", settings_json(SETTINGS), tasks, False, str(folder), tuple(modules))


def contents(folder):
    """Every file of a folder of caches, by its name."""
    files = [path for path in sorted((folder / "tasks").rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
