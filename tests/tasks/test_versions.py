"""What a task writes changes only with its version, so that no cache of old examples is read on.

After a change that is meant: raise the version in its family's module under `tasks/`, then

    python -m tests.tasks.test_versions

writes the table anew.
"""

import atexit
import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
import sys
import tempfile

import numpy as np
import pytest

from ilm_jax.data.catalogue.splits import Splits, make_splits
from ilm_jax.data.examples.task_families import spec_named, task_specs
from ilm_jax.data.examples.task_settings import SPLITS, TaskSettings
from tests.data.small_catalogue import small_catalogue
from tests.data.small_codes import small_codes
from tests.tasks.making import made_by

TABLE = pathlib.Path(__file__).with_name("task_bytes.json")
SETTINGS = TaskSettings(history=3, variants=2)
TASKS = [spec.task for spec in task_specs().values()]


@functools.cache
def world() -> Splits:
    """Histories, ratings and shelves by arithmetic: no generator's stream is in the digests."""
    catalogue = small_catalogue()
    lengths = np.arange(catalogue.num_users) * 5 % 12 + 1
    users = np.repeat(np.arange(catalogue.num_users), lengths)
    places = np.concatenate([np.arange(length) for length in lengths])
    shelves = [["Books", f"Shelf{row % 2}"] for row in range(catalogue.num_items)]
    plain = dataclasses.replace(
        catalogue,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=((users * 13 + places * 7) % catalogue.num_items).astype(np.int32),
        ratings=((users + places) % 10 / 2 + 0.5).astype(np.float32),
        timestamps=np.full(len(users), -1, np.int64),
        categories=shelves,
    )
    return make_splits(plain, SETTINGS.split)


@functools.cache
def codes() -> str:
    """A file of codes of that world's items."""
    folder = tempfile.mkdtemp(prefix="ilm-codes-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    small_codes(world()).save(f"{folder}/codes")
    return f"{folder}/codes"


def written(task: str) -> dict[str, int | str]:
    """The task's version, how many examples it has, and the digest of what they say."""
    settings = SETTINGS
    if "semantic" in task:
        settings = SETTINGS.replace(item_codes=codes())
    (examples,) = made_by([task], world(), settings)
    said = []
    for split in SPLITS:
        index = examples.index(split)
        for row in zip(*(column.tolist() for column in index.values()), strict=True):
            integers = dict(zip(index, row, strict=True))
            if hasattr(examples, "render"):
                said.append(dataclasses.asdict(examples.render(split, **integers)))
            else:  # rows of the table, and texts of the catalogue
                said.append(integers)
    text = json.dumps(said, default=int)
    return {
        "version": spec_named(task).version,
        "examples": len(said),
        "sha256": hashlib.sha256(text.encode()).hexdigest()[:16],
    }


@pytest.mark.parametrize("task", TASKS)
def test_other_examples_have_another_version(task):
    kept, now = json.loads(TABLE.read_text())[task], written(task)
    assert now["examples"] > 0
    assert now == kept, (
        "its examples or its version changed: raise the version if it is the old one, then "
        "python -m tests.tasks.test_versions"
    )


def main() -> int:
    """Writes the table; refuses where examples changed and the version did not."""
    kept = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    found = {task: written(task) for task in TASKS}
    old = {task: now for task, now in found.items() if task in kept and now != kept[task]}
    stale = [task for task, now in old.items() if now["version"] == kept[task]["version"]]
    if stale:
        print(f"raise the versions of: {', '.join(stale)}", file=sys.stderr)
        return 1
    lines = (f"  {json.dumps(task)}: {json.dumps(now)}" for task, now in found.items())
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
