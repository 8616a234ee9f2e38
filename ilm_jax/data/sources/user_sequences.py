"""OpenP5's ten datasets from `user_sequence.txt` or P5's `sequential_data.txt` (Xu et al. 2023).

A line is `user item item …`, oldest first. Iterative 5-core, as published, whatever the file has
been through. Titles come from an optional file of items beside it (see custom.py): the
published archives have none.

In P5's files the items' numbers run through each user's whole sequence, the test item included, so
they are never shown: every id in a prompt is made anew (`ilm_jax.data.examples.item_index`).
"""

import os

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.sources import custom
from ilm_jax.data.sources.dataset_source import DatasetSource
from ilm_jax.errors import UserError

VERSION = custom.VERSION
CORE = 5
# Users, items and interactions as published; a file that gives other numbers is another dataset.
# CDs: the README prints Movies' interactions; the notebook and the sparsity support this number.
PUBLISHED = {
    "ml1m": (6_040, 3_416, 999_611),
    "ml100k": (943, 1_349, 99_287),
    "beauty": (22_363, 12_101, 198_502),
    "clothing": (39_387, 23_033, 278_677),
    "cds": (75_258, 64_443, 1_097_592),
    "movies": (123_960, 50_052, 1_697_533),
    "electronics": (192_403, 63_001, 1_689_188),
    "lastfm": (1_090, 3_646, 52_551),
    "yelp": (277_631, 112_394, 4_250_483),
    "taobao": (6_104, 4_192, 46_337),
}


def read(folder: str | os.PathLike, name: str) -> Catalogue:
    """Dataset `openp5/<name>` from the folder that holds its file.

    `extras["as_published"]` says whether its size is that of the paper; a report can then say so.

    Raises:
      UserError: as `custom.read`.
    """
    found = custom.read(folder, name, core=CORE)
    size = (found.num_users, found.num_items, len(found.items))
    published = PUBLISHED.get(name.partition("/")[2])
    if published is None:
        raise UserError(f"no dataset {name!r}; there are {', '.join(PUBLISHED)}")
    found.extras["as_published"] = size == published
    return found


SOURCE = DatasetSource(
    "openp5",
    VERSION,
    read,
    lambda folder, release: custom.source_hashes(folder),
    releases=tuple(PUBLISHED),
    custom_format=True,
)
