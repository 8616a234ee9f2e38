"""The families of datasets: what their names are, what they read, who builds them.

TensorFlow-free; a builder is named by a string and imported where it runs.
"""

import dataclasses
import re
from collections.abc import Callable

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.sources import amazon, custom, movielens, regen, toy, user_sequences
from ilm_jax.errors import UserError

_BUILDERS = "ilm_jax.data.sources.builders"


@dataclasses.dataclass(frozen=True)
class Family:
    """Datasets of one source.

    Attributes:
      releases: names behind "<family>/"; None where a pattern says.
      pattern: what they look like; "" is the family's bare name.
      version: of the builder's output.
      sources: (dataset, release, data_dir) -> SHA-256 of every raw file by name; raises UserError.
      builder: "module:class".
      read: (folder, dataset) -> catalogue, for families that are read from a folder.
      examples: what messages show.
    """

    version: str
    builder: str
    sources: Callable[..., dict[str, str]]
    releases: tuple[str, ...] = ()
    pattern: str = ""
    read: Callable[..., Catalogue] | None = None
    examples: tuple[str, ...] = ()


def _no_sources(dataset: str, release: str, data_dir: object) -> dict[str, str]:
    if data_dir is not None:
        raise UserError(f"data_dir={data_dir}: {dataset} is generated; leave data_dir out")
    return {}


def _movielens_sources(dataset: str, release: str, data_dir: object) -> dict[str, str]:
    del dataset
    return {} if data_dir is None else movielens.source_hashes(release, str(data_dir))


def _folder_sources(dataset: str, release: str, data_dir: object) -> dict[str, str]:
    del dataset, release
    return {} if data_dir is None else custom.source_hashes(str(data_dir))


def _amazon_sources(dataset: str, release: str, data_dir: object) -> dict[str, str]:
    del dataset, release
    return {} if data_dir is None else amazon.source_hashes(str(data_dir))


def _regen_sources(dataset: str, release: str, data_dir: object) -> dict[str, str]:
    del dataset, release
    return {} if data_dir is None else regen.source_hashes(str(data_dir))


FAMILIES: dict[str, Family] = {
    "toy": Family(
        toy.VERSION, f"{_BUILDERS}.toy_builder:Toy", _no_sources,
        pattern=r"(?:world([1-9]\d{0,8}))?", examples=("toy", "toy/world1", "toy/world2", "…"),
    ),
    "movielens": Family(
        movielens.VERSION, f"{_BUILDERS}.movielens_builder:Movielens", _movielens_sources,
        releases=tuple(movielens.RELEASES),
    ),
    "openp5": Family(
        user_sequences.VERSION, f"{_BUILDERS}.folder_builder:OpenP5", _folder_sources,
        releases=tuple(user_sequences.PUBLISHED), read=user_sequences.read,
    ),
    "amazon": Family(
        amazon.VERSION, f"{_BUILDERS}.folder_builder:Amazon", _amazon_sources,
        pattern=r"[a-z0-9_]{1,40}", read=amazon.read, examples=("amazon/<any name>",),
    ),
    "regen": Family(
        regen.VERSION, f"{_BUILDERS}.folder_builder:Regen", _regen_sources,
        pattern=r"[a-z0-9_]{1,40}", read=regen.read, examples=("regen/office",),
    ),
    "custom": Family(
        custom.VERSION, f"{_BUILDERS}.folder_builder:Custom", _folder_sources,
        pattern=r"[a-z0-9_]{0,40}", read=custom.read, examples=("custom", "custom/<any name>"),
    ),
}  # fmt: skip


def check_name(dataset: str) -> tuple[str, str]:
    """Splits a dataset name into (family, release or world number).

    Raises:
      UserError: if there is no such dataset.
    """
    family, _, rest = dataset.partition("/")
    found = FAMILIES.get(family)
    if found is not None and rest in found.releases:
        return family, rest
    if found is not None and found.pattern and (rest or "/" not in dataset):
        match = re.fullmatch(found.pattern, rest)
        if match:
            return family, (match[1] or "0") if match.re.groups else rest
    raise UserError(f"no dataset {dataset!r}; there are {', '.join(known_names())}")


def known_names() -> list[str]:
    """Every dataset, or an example of each pattern."""
    names: list[str] = []
    for family, found in FAMILIES.items():
        names += found.examples or [f"{family}/{release}" for release in found.releases]
    return names
