"""Stage-1 pairs to batches, in NumPy: item with text, item with item, user with item."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ilm_jax.data.streams.converters import Batch, Example, Rows, example_name, index_column
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.errors import UserError

KINDS = ("item_text", "item_item", "user_item")


class AlignmentConverter:
    """Stage-1 pairs to batches.

    Attributes:
      counts: examples cut so far: "text".
    """

    def __init__(
        self,
        kind: str,
        rows: Rows,
        tokenizer: Tokenizer,
        *,
        text_length: int = 64,
        truncate_text: bool = False,
    ) -> None:
        """Fixes kind and shape.

        Args:
          kind: "item_text", "item_item" or "user_item".
          rows: global rows of local ones.
          tokenizer: gives cls and pad.
          text_length: tokens of a text, with cls.
          truncate_text: cut over-long texts (and count them) instead of raising.

        Raises:
          UserError: for another kind.
        """
        if kind not in KINDS:
            raise UserError(f"no kind of pair {kind!r}; give one of {', '.join(KINDS)}")
        self.kind, self.text_length, self.truncate_text = kind, text_length, truncate_text
        self._rows = rows
        self._pad, self._cls = tokenizer.pad_id, tokenizer.cls_id
        self.counts: Counter[str] = Counter()

    def __call__(
        self, examples: Sequence[Example], indices: Sequence[int] | np.ndarray | None = None
    ) -> Batch:
        """Stacks examples.

        Returns:
          int32: entities[B] (global rows; users' for "user_item"), example_index[B], and
          text[B, text_length] = [cls] tokens pads, or others[B] (global rows of items).

        Raises:
          UserError: for a text that is too long and may not be cut.
        """
        batch = {"example_index": index_column(examples, indices)}
        if self.kind == "user_item":
            batch["entities"] = self._global(examples, "user", "user")
            batch["others"] = self._global(examples, "row", "item")
        else:
            batch["entities"] = self._global(examples, "row", "item")
            if self.kind == "item_item":
                batch["others"] = self._global(examples, "other", "item")
            else:
                batch["text"] = self._text(examples)
        return batch

    def _global(self, examples: Sequence[Example], feature: str, block: str) -> np.ndarray:
        local = np.array([example[feature] for example in examples], np.int64)
        catalogues = np.array([example["catalogue"] for example in examples])
        found = np.empty(len(examples), np.int32)
        for catalogue in sorted(set(catalogues.tolist())):
            mine = catalogues == catalogue
            found[mine] = self._rows(f"{catalogue}/{block}", local[mine])
        return found

    def _text(self, examples: Sequence[Example]) -> np.ndarray:
        text = np.full((len(examples), self.text_length), self._pad, np.int32)
        text[:, 0] = self._cls
        room = self.text_length - 1
        for row, example in enumerate(examples):
            tokens = example["text"]
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
