"""Stage-1 pairs: item with text, item with item, user with item. Rows are local to the catalogue.

Texts are those of the fold's items. Item-item pairs are two interactions of one user at most
`pair_distance` steps apart; user-item pairs are interactions. A pair belongs to the split of its
later interaction. Unless the split says otherwise (`item_pairs_of_held_out`), both leave out items
whose text is held out, so that the Q-Former meets their vectors in evaluation only.
"""

import dataclasses

import numpy as np

from ilm_jax.checks import Count, check
from ilm_jax.data.catalogue.splits import FOLDS, TRAIN, Splits
from ilm_jax.data.examples.example import Example
from ilm_jax.data.examples.task_families import TaskFamily
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.examples.task_specs import TaskSpec
from ilm_jax.data.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class AlignmentSettings:
    """Settings of these tasks alone.

    Attributes:
      pair_distance: item-item pairs are interactions of one user at most so many steps apart.

    Raises:
      SettingError: for a value that makes no sense.
    """

    pair_distance: Count = 1

    def __post_init__(self) -> None:
        check(self)


class ItemText:
    """Examples of `align_<dataset>_item_text`."""

    def __init__(
        self,
        splits: Splits,
        settings: TaskSettings,
        tokenizer: Tokenizer | None = None,
        *,
        spec: TaskSpec,
    ) -> None:
        """Without a tokenizer only `index` works."""
        self.splits, self.settings, self.spec, self._tokenizer = splits, settings, spec, tokenizer

    def index(self, split: str) -> dict[str, np.ndarray]:
        """Item rows of the split's fold."""
        return {"row": self.splits.items_in(FOLDS[split])}

    def truncations(self, split: str) -> dict[str, int]:
        """Nothing is cut here."""
        return {}

    def build(self, split: str, row: int) -> Example:
        """The item's row and the tokens of its text, without special ids."""
        if self._tokenizer is None:
            raise TypeError("made without a tokenizer: nothing can be tokenized")
        catalogue = self.splits.catalogue
        tokens = self._tokenizer.encode(catalogue.texts[row])
        return {"key": catalogue.item_ids[row], "row": row, "text": tokens}


class _Pairs:
    def __init__(
        self,
        splits: Splits,
        settings: TaskSettings,
        tokenizer: Tokenizer | None = None,
        *,
        spec: TaskSpec,
    ) -> None:
        del tokenizer  # pairs of rows
        self.splits, self.settings, self.spec = splits, settings, spec
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

    def index(self, split: str) -> dict[str, np.ndarray]:
        """Entries (numbers of interactions) of the earlier and of the later item."""
        firsts, seconds = [], []
        entries = np.arange(len(self._users))
        for step in range(1, self.settings.of(AlignmentSettings).pair_distance + 1):
            first, second = entries[:-step], entries[step:]
            keep = self._users[first] == self._users[second]
            keep &= self._split[second] == FOLDS[split]
            keep &= self._allowed[first] & self._allowed[second]
            firsts.append(first[keep])
            seconds.append(second[keep])
        if len(firsts) == 1:  # which is in order
            return {"first": firsts[0], "second": seconds[0]}
        first, second = np.concatenate(firsts), np.concatenate(seconds)
        order = np.lexsort((first, second))
        return {"first": first[order], "second": second[order]}

    def build(self, split: str, first: int, second: int) -> Example:
        """Rows of both items."""
        items = self.splits.catalogue.items
        key = f"{self._key(first)}-{second - first}"
        return {"key": key, "row": int(items[first]), "other": int(items[second])}


class UserItem(_Pairs):
    """Examples of `align_<dataset>_user_item`."""

    def index(self, split: str) -> dict[str, np.ndarray]:
        """Entries (numbers of interactions)."""
        return {"entry": np.flatnonzero((self._split == FOLDS[split]) & self._allowed)}

    def build(self, split: str, entry: int) -> Example:
        """Rows of the user and of the item."""
        item = int(self.splits.catalogue.items[entry])
        return {"key": self._key(entry), "user": int(self._users[entry]), "row": item}


_KEY, _ROW = ("key", "text"), ("row", "int")
FAMILY = TaskFamily(
    "align",
    (
        TaskSpec(
            family="align",
            task="item_text",
            version=1,
            make=ItemText,
            answer="pairs",
            features=(_KEY, _ROW, ("text", "ints")),
            settings=(),
            what="item vector | its text | ILM stage 1",
        ),
        TaskSpec(
            family="align",
            task="item_item",
            version=1,
            make=ItemItem,
            answer="pairs",
            features=(_KEY, _ROW, ("other", "int")),
            settings=("align.pair_distance",),
            what="item vector | an item of the same user soon after | ILM stage 1",
        ),
        TaskSpec(
            family="align",
            task="user_item",
            version=1,
            make=UserItem,
            answer="pairs",
            features=(_KEY, ("user", "int"), _ROW),
            settings=(),
            what="user vector | an item of the user | ILM stage 1",
        ),
    ),
    AlignmentSettings,
)
