"""The one owner of both splits: leave-one-out over interactions, and a hash over items.

Interactions: a user's last interaction is the test target, the one before it the validation
target, the rest trains. Items: a fixed hash of each raw id puts it into the train, validation or
test fold; texts of the latter two are shown to no training stage, so that describing them measures
what the collaborative vectors convey.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from jaxtyping import Bool, Int8, Int32, Int64

from ilm_jax.checks import Range, Seed, check
from ilm_jax.data import spill
from ilm_jax.data.catalogue import digests
from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.errors import UserError
from ilm_jax.files import sha256_json

TRAIN, VALID, TEST = 0, 1, 2
FOLDS = {"train": TRAIN, "validation": VALID, "test": TEST}

_PART = 1 << 22

History = Int32[np.ndarray, " history"]

HeldOut = Annotated[
    float, Range(0, 0.5, open_high=True), "the share for each of validation and test items"
]


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """Settings of a catalogue's split.

    Attributes:
      held_out_items: share of the items for each of the validation and the test fold, in
        [0, 0.5); 0 gives every item's text to training, for pure ranking studies.
      seed: of the hash over items.
      item_pairs_of_held_out: whether held-out items take part, by their vectors, in item-item
        pairs of stage 1.
    """

    held_out_items: HeldOut = 0.1
    seed: Seed = 0
    item_pairs_of_held_out: bool = False

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """A catalogue with its split; made by `make_splits`."""

    catalogue: Catalogue
    config: SplitConfig
    item_fold: Int8[np.ndarray, " items"]

    def train_sequence(self, user: int) -> Int32[np.ndarray, " length"]:
        """The user's training interactions: all but the last two.

        A user with fewer than three interactions has no targets and trains with all of them.
        """
        sequence = self.catalogue.sequence(user)
        return sequence[:-2] if len(sequence) >= 3 else sequence

    def valid_target(self, user: int) -> tuple[History, int] | None:
        """(history, target item row) for validation, or None if the user has fewer than 3."""
        sequence = self.catalogue.sequence(user)
        return (sequence[:-2], int(sequence[-2])) if len(sequence) >= 3 else None

    def test_target(self, user: int) -> tuple[History, int] | None:
        """(history, target item row) for the test, or None if the user has fewer than 3."""
        sequence = self.catalogue.sequence(user)
        return (sequence[:-1], int(sequence[-1])) if len(sequence) >= 3 else None

    @functools.cached_property
    def train_mask(self) -> Bool[np.ndarray, " interactions"]:
        """True for every interaction of the catalogue that training may see."""
        offsets = self.catalogue.offsets
        mask = np.ones(offsets[-1], bool)
        ends = offsets[1:][np.diff(offsets) >= 3]
        mask[ends - 1] = mask[ends - 2] = False
        return mask

    def train_interactions(
        self,
    ) -> tuple[Int32[np.ndarray, " interactions"], Int32[np.ndarray, " interactions"]]:
        """(user rows, item rows) of all training interactions, by user and in time order."""
        lengths = np.diff(self.catalogue.offsets)
        users = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        return users[self.train_mask], self.catalogue.items[self.train_mask]

    def train_counts(self) -> Int64[np.ndarray, " items"]:
        """Number of training interactions of every item."""
        return spill.counted(self.catalogue.items, self.catalogue.num_items, self.train_mask)

    def items_in(self, fold: int) -> Int32[np.ndarray, " fold_items"]:
        """Rows of the items in fold TRAIN, VALID or TEST, ascending.

        Raises:
          UserError: for anything else, of which there would be none.
        """
        if fold not in FOLDS.values():
            known = ", ".join(f'FOLDS["{name}"]' for name in FOLDS)
            raise UserError(f"items_in({fold!r}): folds are numbers, {known}")
        return np.flatnonzero(self.item_fold == fold).astype(np.int32)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the configuration, the catalogue and the training interactions."""
        digest, offsets, mask = hashlib.sha256(), self.catalogue.offsets, self.train_mask
        parts = [(k, min(k + _PART, len(mask))) for k in range(0, len(mask), _PART)]
        for first, last in parts:
            digests.update(digest, spill.rows_of(offsets, first, last)[mask[first:last]])
        for first, last in parts:
            digests.update(digest, self.catalogue.items[first:last][mask[first:last]])
        return sha256_json(
            [dataclasses.asdict(self.config), self.catalogue.fingerprint, digest.hexdigest()]
        )

    def report(self) -> dict[str, Any]:
        """The split as every report prints it: sizes, users left out, ties, switches."""
        catalogue = self.catalogue
        short = int(np.sum(np.diff(catalogue.offsets) < 3))
        return {
            "dataset": catalogue.name,
            "version": catalogue.version,
            "items": {name: len(self.items_in(fold)) for name, fold in FOLDS.items()},
            "cold_items": int(np.sum(self.train_counts() == 0)),
            "users": catalogue.num_users,
            "users_with_targets": catalogue.num_users - short,
            "users_under_three_interactions": short,
            "users_with_tied_last_two": catalogue.ties,
            "interactions": len(catalogue.items),
            "train_interactions": int(self.train_mask.sum()),
            **dataclasses.asdict(self.config),
            "fingerprint": self.fingerprint,
        }


def item_folds(
    name: str, item_ids: Sequence[str], config: SplitConfig
) -> Int8[np.ndarray, " items"]:
    """Fold of every item: a hash of seed, dataset family and raw id alone.

    The family is the part of `name` before "/", so an item keeps its fold when items are added
    and in every size of one source (MovieLens 1M and 25M share ids).
    """
    family = name.split("/")[0]
    folds = np.full(len(item_ids), TRAIN, np.int8)
    for row, raw in enumerate(item_ids):
        digest = hashlib.sha256(f"{config.seed}:{family}:{raw}".encode()).digest()
        share = (int.from_bytes(digest[:8], "big") >> 11) * 2.0**-53
        if share < config.held_out_items:
            folds[row] = VALID
        elif share < 2 * config.held_out_items:
            folds[row] = TEST
    return folds


def make_splits(catalogue: Catalogue, config: SplitConfig | None = None) -> Splits:
    """Splits `catalogue` both ways.

    Raises:
      UserError: if a fold of items is empty although items should be held out, or no user has the
        three interactions that targets need.
    """
    config = config or SplitConfig()
    splits = Splits(catalogue, config, item_folds(catalogue.name, catalogue.item_ids, config))
    empty = [name for name, fold in FOLDS.items() if not len(splits.items_in(fold))]
    if catalogue.num_items and config.held_out_items == 0:
        empty = []
    if empty:
        raise UserError(
            f"{catalogue.name}: no {' and no '.join(empty)} items among {catalogue.num_items} with "
            f"held_out_items={config.held_out_items}; bring more items, or hold none out: "
            "SplitConfig.held_out_items = 0 (of a verb: --held_out_items=0, or "
            """--settings='{"split": {"held_out_items": 0}}')"""
        )
    if not np.any(np.diff(catalogue.offsets) >= 3):
        raise UserError(
            f"{catalogue.name}: empty test split, no user has 3 interactions (two are held out); "
            "bring users with more"
        )
    return splits
