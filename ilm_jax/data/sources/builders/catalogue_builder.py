"""Base of the TFDS builders here: one typed schema for catalogues, and the way back.

A prepared dataset has three splits of one schema; features that a split does not use are empty.
  items:     row, id, title, text, content, categories
  users:     row, id, items (item rows, oldest first), ratings, timestamps
  catalogue: one record; id = dataset name, text = JSON of {"extras", "ties"}
Rows are written in order (no shuffling), so that row numbers mean the same on disk and in memory.
"""

import abc
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ilm_jax.data.catalogue.catalogue import Catalogue


class CatalogueBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Base of the builders; a subclass names itself and makes the catalogue.

    Attributes:
      sources: SHA-256 of each raw file by name, known once the dataset is prepared.
    """

    VERSION: tfds.core.Version
    sources: dict[str, str] = {}

    @abc.abstractmethod
    def _catalogue(self, dl_manager: tfds.download.DownloadManager) -> Catalogue:
        """The catalogue from the raw source."""

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
        catalogue = self._catalogue(dl_manager)
        return {
            "items": _item_records(catalogue),
            "users": _user_records(catalogue),
            "catalogue": _catalogue_record(catalogue),
        }

    def _generate_examples(self) -> Iterator:
        raise NotImplementedError("the splits come as generators")

    def read(self) -> Catalogue:
        """The prepared dataset as a catalogue.

        Raises:
          ValueError: if rows are missing or out of order.
        """
        items, users = list(self._records("items")), list(self._records("users"))
        (whole,) = self._records("catalogue")
        lengths = [len(user["items"]) for user in users]
        more = json.loads(whole["text"])
        return Catalogue(
            name=whole["id"].decode(),
            version=str(self.version),
            item_ids=[item["id"].decode() for item in items],
            titles=[item["title"].decode() for item in items],
            texts=[item["text"].decode() for item in items],
            content=[[(int(s), int(e)) for s, e in item["content"]] for item in items],
            categories=[[name.decode() for name in item["categories"]] for item in items],
            user_ids=[user["id"].decode() for user in users],
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            items=_joined(users, "items", np.int32),
            ratings=_joined(users, "ratings", np.float32),
            timestamps=_joined(users, "timestamps", np.int64),
            ties=more["ties"],
            extras=more["extras"],
        )

    def _records(self, split: str) -> Iterator[dict[str, Any]]:
        # One file at a time: with several, tf.data would deal records from them in turn.
        config = tfds.ReadConfig(interleave_cycle_length=1)
        dataset = self.as_dataset(split=split, shuffle_files=False, read_config=config)
        for row, record in enumerate(tfds.as_numpy(dataset)):
            if record["row"] != row:
                raise ValueError(f"{self.data_path}: record {record['row']} of {split} at {row}")
            yield record


def _joined(users: list[dict[str, Any]], name: str, dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *(user[name] for user in users)]).astype(dtype)


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
