"""A catalogue as a TFDS dataset, for those whose programs read TFDS; nothing here does.

A prepared dataset has three splits of one schema; features that a split does not use are empty.
  items:     row, id, title, text, content, categories
  users:     row, id, items (item rows, oldest first), ratings, timestamps
  catalogue: one record; id = dataset name, text = JSON of {"extras", "ties"}
Rows are written in order (no shuffling), so that row numbers mean the same on disk and in memory.
"""

import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.sources.prepare import load_catalogue
from ilm_jax.files import default_cache_dir

StrPath = str | os.PathLike


def tfds_builder(
    dataset: str,
    *,
    data_dir: StrPath | None = None,
    cache_dir: StrPath | None = None,
    tfds_dir: StrPath | None = None,
) -> tfds.core.GeneratorBasedBuilder:
    """The TFDS builder of a dataset's snapshot, which is prepared first if needed.

    `download_and_prepare()` writes ArrayRecord; `as_dataset` and `as_data_source` read it. The name
    of its configuration begins the catalogue's fingerprint: what was written of other interactions
    or items is never read in its place.

    Args:
      dataset, data_dir, cache_dir: see `load_catalogue`.
      tfds_dir: where TFDS keeps it; None: "tfds" in the cache folder.

    Raises:
      UserError: as `load_catalogue`.
    """
    catalogue = load_catalogue(dataset, data_dir=data_dir, cache_dir=cache_dir)
    root = default_cache_dir() if cache_dir is None else pathlib.Path(cache_dir).expanduser()
    kind = type(
        "Snapshot",
        (CatalogueBuilder,),
        {
            "__doc__": f"Items, users and interactions of {dataset}.",
            "__module__": __name__,
            "name": re.sub(r"\W", "_", dataset),
            "VERSION": tfds.core.Version(catalogue.version),
            "catalogue": catalogue,
        },
        skip_registration=True,
    )  # type: ignore[call-overload]
    config = tfds.core.BuilderConfig(name=f"of_{catalogue.fingerprint[:16]}")
    folder = str(tfds_dir or root / "tfds")
    return kind(data_dir=folder, config=config, file_format="array_record")  # type: ignore[no-any-return]


class CatalogueBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Base of the builders; a subclass has the catalogue.

    Attributes:
      catalogue: what is written.
    """

    VERSION: tfds.core.Version
    catalogue: Catalogue

    def _info(self) -> tfds.core.DatasetInfo:
        text, many = tfds.features.Text, tfds.features.Sequence
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            disable_shuffling=True,
            features=tfds.features.FeaturesDict(
                {
                    "row": tfds.features.Scalar(np.int64),
                    "id": text(),
                    "title": text(),
                    "text": text(),
                    "content": many(tfds.features.Tensor(shape=(2,), dtype=np.int32)),
                    "categories": many(text()),
                    "items": many(tfds.features.Scalar(np.int32)),
                    "ratings": many(tfds.features.Scalar(np.float32)),
                    "timestamps": many(tfds.features.Scalar(np.int64)),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # nothing to fetch
        return {
            "items": _item_records(self.catalogue),
            "users": _user_records(self.catalogue),
            "catalogue": _catalogue_record(self.catalogue),
        }

    def _generate_examples(self) -> Iterator:
        raise NotImplementedError("the splits come as generators")


def _empty(row: int, key: str) -> dict[str, Any]:
    record: dict[str, Any] = dict.fromkeys(("title", "text"), "")
    record |= {name: [] for name in ("content", "categories", "items", "ratings", "timestamps")}
    return record | {"row": row, "id": key}


def _item_records(catalogue: Catalogue) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, key in enumerate(catalogue.item_ids):
        record = _empty(row, key)
        record["title"] = catalogue.titles[row]
        record["text"] = catalogue.texts[row]
        record["content"] = np.array(catalogue.content[row], np.int32).reshape(-1, 2)
        record["categories"] = catalogue.categories[row]
        yield row, record


def _user_records(catalogue: Catalogue) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, key in enumerate(catalogue.user_ids):
        part = slice(catalogue.offsets[row], catalogue.offsets[row + 1])
        record = _empty(row, key)
        for name in ("items", "ratings", "timestamps"):
            record[name] = getattr(catalogue, name)[part]
        yield row, record


def _catalogue_record(catalogue: Catalogue) -> Iterator[tuple[int, dict[str, Any]]]:
    more = {"extras": catalogue.extras, "ties": catalogue.ties}
    yield 0, _empty(0, catalogue.name) | {"text": json.dumps(more)}
