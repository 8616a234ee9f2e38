"""Pairs to batches, in NumPy: which arrays they become is said column by column."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from ilm_jax.data.examples.example import Example
from ilm_jax.data.streams.converters import Batch, Rows, index_column
from ilm_jax.data.streams.fitting import example_name
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.errors import UserError


class Column(Protocol):
    """One array of a batch, and the feature of the examples that it is made of."""

    @property
    def feature(self) -> str:
        """The feature that is read."""

    def shape(self, text_length: int) -> tuple[int, ...]:
        """Of one row; int32."""

    def fill(self, converter: "AlignmentConverter", examples: Sequence[Example]) -> np.ndarray:
        """The array of some examples."""


@dataclasses.dataclass(frozen=True)
class Entity:
    """Global rows of the embedding table, of items ("item") or users ("user").

    Attributes:
      feature: holds the row within the catalogue.
      block: of the table.
    """

    feature: str
    block: str = "item"

    def shape(self, text_length: int) -> tuple[int, ...]:
        """One number."""
        return ()

    def fill(self, converter: "AlignmentConverter", examples: Sequence[Example]) -> np.ndarray:
        """See `Column.fill`."""
        return converter.entities(examples, self.feature, self.block)


@dataclasses.dataclass(frozen=True)
class Text:
    """[cls] tokens pads, of a feature that holds tokens."""

    feature: str = "text"

    def shape(self, text_length: int) -> tuple[int, ...]:
        """A text's tokens."""
        return (text_length,)

    def fill(self, converter: "AlignmentConverter", examples: Sequence[Example]) -> np.ndarray:
        """See `Column.fill`."""
        return converter.texts(examples, self.feature)


class AlignmentConverter:
    """Stage-1 pairs to batches.

    Attributes:
      counts: examples cut so far: "text".
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        rows: Rows,
        tokenizer: Tokenizer,
        *,
        text_length: int = 64,
        truncate_text: bool = False,
    ) -> None:
        """Fixes arrays and shapes.

        Args:
          columns: {array: what it is made of}.
          rows: global rows of local ones.
          tokenizer: gives cls and pad.
          text_length: tokens of a text, with cls.
          truncate_text: cut over-long texts (and count them) instead of raising.
        """
        self.columns, self.text_length, self.truncate_text = columns, text_length, truncate_text
        self._rows = rows
        self._pad, self._cls = tokenizer.pad_id, tokenizer.cls_id
        self.counts: Counter[str] = Counter()

    def __call__(
        self, examples: Sequence[Example], indices: Sequence[int] | np.ndarray | None = None
    ) -> Batch:
        """Stacks examples.

        Returns:
          int32: example_index[B], and every column's array, such as entities[B] (global rows) and
          text[B, text_length] = [cls] tokens pads.

        Raises:
          UserError: for a text that is too long and may not be cut.
        """
        arrays = {name: column.fill(self, examples) for name, column in self.columns.items()}
        return {"example_index": index_column(examples, indices), **arrays}

    def entities(self, examples: Sequence[Example], feature: str, block: str) -> np.ndarray:
        """Global rows [B] of the entities that a feature names."""
        local = np.array([example[feature] for example in examples], np.int64)
        catalogues = np.array([example["catalogue"] for example in examples])
        found = np.empty(len(examples), np.int32)
        for catalogue in sorted(set(catalogues.tolist())):
            mine = catalogues == catalogue
            found[mine] = self._rows(f"{catalogue}/{block}", local[mine])
        return found

    def texts(self, examples: Sequence[Example], feature: str) -> np.ndarray:
        """[cls] tokens pads [B, text_length] of a feature.

        Raises:
          UserError: for a text that is too long and may not be cut.
        """
        text = np.full((len(examples), self.text_length), self._pad, np.int32)
        text[:, 0] = self._cls
        room = self.text_length - 1
        for row, example in enumerate(examples):
            tokens = example[feature]
            if len(tokens) > room:
                if not self.truncate_text:
                    raise UserError(
                        f"{example_name(example)}: text takes {len(tokens) + 1} tokens with "
                        f"cls, there is room for {self.text_length}; raise "
                        "task_feature_lengths['text'], or set truncate_targets=True to cut and "
                        "count"
                    )
                self.counts["text"] += 1
                tokens = tokens[:room]
            text[row, 1 : 1 + len(tokens)] = tokens
        return text
