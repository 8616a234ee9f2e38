"""Targets of ELM's tasks that a file gives, and which of them are left out."""

import functools
import pathlib
from collections.abc import Iterable

from ilm_jax.data.catalogue.splits import TRAIN, Splits
from ilm_jax.data.examples import elm_templates, telling
from ilm_jax.data.formats.text_records import Key, Written, read_texts

# (number of items, whether of a user) of every task that a file of texts may name.
ARITY = {name: (task.items, False) for name, task in elm_templates.TASKS.items()}
ARITY[elm_templates.USER_PROFILE] = (0, True)


class ItemTexts:
    """The file's targets of a task about items.

    Attributes:
      given: by item rows; those of unknown items are left out.
      told: those of them that are told: none that is of training items and names a held-out one.
      unknown: how many are of unknown items.
    """

    def __init__(self, splits: Splits, file: str, task: str) -> None:
        """Of a task; without a file there are none."""
        found, rows = _texts(file, task), splits.catalogue.item_row
        self.given: dict[tuple[int, ...], Written] = {
            tuple(rows[raw] for raw in ids): text
            for (_, ids), text in found.items()
            if all(raw in rows for raw in ids)
        }
        self.unknown = len(found) - len(self.given)
        self.told: dict[tuple[int, ...], Written] = {
            key: text
            for key, text in self.given.items()
            if any(splits.item_fold[row] != TRAIN for row in key)
            or not telling.names_held_out(splits, text.target)
        }

    def withheld(self, split: str) -> dict[str, int]:
        """How many do not train for what they name, where there are any."""
        count = len(self.given) - len(self.told)
        return {telling.TELLS: count} if split == "train" and count else {}


class ProfileTexts:
    """The file's targets of a task about users.

    Attributes:
      given: by raw user id.
      unknown: how many are of unknown users.
    """

    def __init__(self, splits: Splits, file: str, task: str) -> None:
        """Of a task; without a file there are none."""
        self._splits = splits
        self.given: dict[str, Written] = {
            user: text for (user, _), text in _texts(file, task).items()
        }
        known = splits.catalogue.user_row
        self.unknown = sum(raw not in known for raw in self.given)

    def of(self, user: int) -> Written | None:
        """A user's, if there is one."""
        return self.given.get(self._splits.catalogue.user_ids[user])

    def tells(self, user: int) -> bool:
        """Whether a user's is left out, in every split, for what it names.

        Whoever wrote it may have had the whole history at hand.
        """
        text = self.of(user)
        return text is not None and telling.tells(self._splits, user, text.target)

    def withheld(self, users: Iterable[int]) -> dict[str, int]:
        """How many of these users' are left out for what they name, where there are any."""
        count = sum(map(self.tells, users))
        return {telling.TELLS: count} if count else {}


def _texts(file: str, task: str) -> dict[tuple[str, tuple[str, ...]], Written]:
    """The file's texts of one task, by raw ids."""
    if not file:
        return {}
    path = pathlib.Path(file).expanduser()
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    found = _read(str(path), stamp)
    return {(user, ids): text for (name, user, ids), text in found.items() if name == task}


@functools.lru_cache(maxsize=4)
def _read(path: str, stamp: int) -> dict[Key, Written]:
    """A file is read once for all tasks, unless it changes."""
    del stamp
    return read_texts(path, ARITY)
