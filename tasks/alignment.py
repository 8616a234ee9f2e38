"""Stage-1 pairs: item with text, item with item, user with item. Rows are local to the catalogue.

Texts are those of the fold's items. Item-item pairs are two interactions of one user at most
`pair_distance` steps apart; user-item pairs are interactions. A pair belongs to the split of its
later interaction. Unless the split says otherwise (`item_pairs_of_held_out`), both leave out items
whose text is held out, so that the Q-Former meets their vectors in evaluation only.
"""

from typing import Any

import numpy as np

from ilm_jax.data.catalogue.splits import FOLDS, TRAIN, Splits
from ilm_jax.data.examples.task_settings import SPECS, TaskSettings
from ilm_jax.data.examples.task_specs import TaskSpec
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.tasks import common


class ItemText:
    """Examples of `align_<dataset>_item_text`."""

    spec = SPECS["item_text"]

    def __init__(self, splits: Splits, settings: TaskSettings, tokenizer: Tokenizer) -> None:
        self.splits, self.settings, self._tokenizer = splits, settings, tokenizer

    def index(self, split: str) -> dict[str, np.ndarray]:
        """Item rows of the split's fold."""
        return {"row": self.splits.items_in(FOLDS[split])}

    def truncations(self, split: str) -> dict[str, int]:
        """Nothing is cut here."""
        return {}

    def build(self, split: str, row: int) -> dict[str, Any]:
        """The item's row and the tokens of its text, without special ids."""
        catalogue = self.splits.catalogue
        tokens = self._tokenizer.encode(catalogue.texts[row])
        return {"key": catalogue.item_ids[row], "row": row, "text": tokens}


class _Pairs:
    def __init__(self, splits: Splits, settings: TaskSettings, tokenizer: object = None) -> None:
        self.splits, self.settings = splits, settings
        lengths = np.diff(splits.catalogue.offsets)
        self._users = np.repeat(np.arange(len(lengths)), lengths)
        from_end = np.repeat(splits.catalogue.offsets[1:], lengths) - np.arange(len(self._users))
        held = np.repeat(lengths >= 3, lengths)
        # Number of the split of every interaction: 0 train, 1 validation, 2 test.
        self._split = np.where(held & (from_end <= 2), 3 - from_end, 0)
        allowed = splits.item_fold == TRAIN
        if splits.config.item_pairs_of_held_out:
            allowed = np.ones_like(allowed)
        self._allowed = allowed[splits.catalogue.items]

    def truncations(self, split: str) -> dict[str, int]:
        """Nothing is cut here."""
        return {}

    def _key(self, entry: int) -> str:
        user = int(self._users[entry])
        position = entry - int(self.splits.catalogue.offsets[user])
        return f"{self.splits.catalogue.user_ids[user]}@{position}"


class ItemItem(_Pairs):
    """Examples of `align_<dataset>_item_item`."""

    spec = SPECS["item_item"]

    def index(self, split: str) -> dict[str, np.ndarray]:
        """Entries (numbers of interactions) of the earlier and of the later item."""
        firsts, seconds = [], []
        entries = np.arange(len(self._users))
        for step in range(1, self.settings.pair_distance + 1):
            first, second = entries[:-step], entries[step:]
            keep = self._users[first] == self._users[second]
            keep &= self._split[second] == FOLDS[split]
            keep &= self._allowed[first] & self._allowed[second]
            firsts.append(first[keep])
            seconds.append(second[keep])
        first, second = np.concatenate(firsts), np.concatenate(seconds)
        order = np.lexsort((first, second))
        return {"first": first[order], "second": second[order]}

    def build(self, split: str, first: int, second: int) -> dict[str, Any]:
        """Rows of both items."""
        items = self.splits.catalogue.items
        key = f"{self._key(first)}-{second - first}"
        return {"key": key, "row": int(items[first]), "other": int(items[second])}


class UserItem(_Pairs):
    """Examples of `align_<dataset>_user_item`."""

    spec = SPECS["user_item"]

    def index(self, split: str) -> dict[str, np.ndarray]:
        """Entries (numbers of interactions)."""
        return {"entry": np.flatnonzero((self._split == FOLDS[split]) & self._allowed)}

    def build(self, split: str, entry: int) -> dict[str, Any]:
        """Rows of the user and of the item."""
        item = int(self.splits.catalogue.items[entry])
        return {"key": self._key(entry), "user": int(self._users[entry]), "row": item}


KINDS: dict[str, type] = {kind.spec.task: kind for kind in (ItemText, ItemItem, UserItem)}


def make(
    spec: TaskSpec, splits: Splits, settings: TaskSettings, tokenizer: Tokenizer | None
) -> common.Examples:
    """The task of this spec; without a tokenizer it only renders."""
    return KINDS[spec.task](splits, settings, tokenizer)
