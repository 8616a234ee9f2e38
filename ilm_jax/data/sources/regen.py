"""REGEN (Su et al. 2025): Amazon purchases with written critiques and narratives, one user a line.

The published file is JSON lines. Known keys of it are `reviewer_id`, `purchase_history` (a list of
{`item`: {`asin`, `title`, `category` "A - B - C", `price`}, `review`: {`summary`, `rating`, `text`,
`unix_time`}}) and `user` (`long_summary`). The names under which critiques, reasons and
endorsements stand are not public knowledge here: `keys.gin` in the same folder sets them, and what
is asked for and found nowhere is an error that lists the keys that there are.
"""

import dataclasses
import os
import pathlib
from typing import Any, NoReturn

import numpy as np

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.formats import markup, notes, published, raw_lines
from ilm_jax.data.formats.columns import is_word, read_names
from ilm_jax.data.formats.interactions import LARGEST_RATING, Interactions
from ilm_jax.data.formats.items import Item
from ilm_jax.data.formats.json_lines import json_rows
from ilm_jax.data.sources.assemble import assemble
from ilm_jax.data.sources.dataset_source import DatasetSource
from ilm_jax.errors import UserError
from ilm_jax.files import sha256_file

# Raised also when fewer of its texts train, so that no cache of the others is read.
VERSION = "1.2.0"
FILE = "keys.gin"
# Kinds of text about one purchase.
KINDS = ("critique", "purchase_reason", "endorsement")


@dataclasses.dataclass(frozen=True)
class Keys:
    """Where things stand in a user's line; a key that is set and stands nowhere is an error.

    Attributes:
      user, history, item, review, profile: of the line and of a purchase.
      asin, title, category, price: of an item.
      separator: between the levels of a category; "" takes it whole.
      rating, time: of a review.
      critique, purchase_reason, endorsement: of a purchase, its item or its review.
      user_summary: of the profile.
    """

    user: str = "reviewer_id"
    history: str = "purchase_history"
    item: str = "item"
    review: str = "review"
    profile: str = "user"
    asin: str = "asin"
    title: str = "title"
    category: str = "category"
    price: str = "price"
    separator: str = " - "
    rating: str = "rating"
    time: str = "unix_time"
    critique: str = ""
    purchase_reason: str = ""
    endorsement: str = ""
    user_summary: str = "long_summary"


def files(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The file of users, and keys.gin if it is there.

    Raises:
      UserError: unless there is one `.jsonl`.
    """
    folder = pathlib.Path(folder).expanduser()
    there = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    if len(there) != 1:
        names = ", ".join(path.name for path in there) or "no .jsonl"
        hint = published.explain(folder, ("office.jsonl",))
        raise UserError(
            f"{folder}: found {names}{hint}; the folder holds one .jsonl, a user a line"
        )
    return [there[0], *(path for path in (folder / FILE,) if path.is_file())]


def source_hashes(folder: str | os.PathLike) -> dict[str, str]:
    """SHA-256 of the files; errors as `files`."""
    return {path.name: sha256_file(path) for path in files(folder)}


def read(folder: str | os.PathLike, name: str) -> Catalogue:
    """Dataset `regen/<name>`.

    `extras["regen"]`: {kind: [[user row, position, text], …]} for KINDS, and "user_summary":
    [[user row, text], …].

    Raises:
      UserError: with file and line, for whatever does not fit.
    """
    path, *_ = files(folder)
    keys = read_names(path.parent / FILE, Keys)
    reader = _Reader(path, keys)
    with notes.collected() as said:
        reader.read()
        interactions = reader.interactions()
        reader.check_keys()
        catalogue = assemble(name, VERSION, interactions, reader.items)
        reader.note()
    assert interactions.order is not None
    # The order in which `assemble` sorts each user's purchases.
    order = np.lexsort((interactions.order, np.array(reader.user_rows)))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    texts: dict[str, list] = {kind: [] for kind in KINDS}
    for kind, row, text in reader.texts:
        user = reader.user_rows[row]
        texts[kind].append([user, int(place[row] - catalogue.offsets[user]), text])
    texts["user_summary"] = [list(pair) for pair in reader.summaries.items()]
    catalogue.extras["regen"] = texts
    return notes.kept(catalogue, said)


class _Reader:
    def __init__(self, path: pathlib.Path, keys: Keys) -> None:
        self.path, self.keys = path, keys
        self.users: list[str] = []
        self.item_ids: list[str] = []
        self.user_rows: list[int] = []
        self.ratings: list[float] = []
        self.times: list[int] = []
        self.lines: list[int] = []
        self.items: dict[str, Item] = {}
        self.texts: list[tuple[str, int, str]] = []
        self.summaries: dict[int, str] = {}
        self._found: dict[str, set[str]] = {}
        self._line = 0

    def check_keys(self) -> None:
        """Raises UserError for a key that keys.gin sets and that stands nowhere."""
        there = set().union(*self._found.values())
        for field in dataclasses.fields(Keys):
            asked = getattr(self.keys, field.name)
            if asked and asked != field.default and field.name != "separator":
                if asked not in there:
                    raise UserError(
                        f"{self.path}: key {asked!r} ({field.name}) is nowhere; there "
                        f"are: {self.found_keys()}"
                    )

    def note(self) -> None:
        """Says what items lack, and where the separator cuts nothing."""
        total = len(self.items)
        untitled = sum(item.title == raw for raw, item in self.items.items())
        notes.count(untitled, total, "items have no title but their ids")
        categories = [item.categories for item in self.items.values() if item.categories]
        uncut = sum(any(sign in part[0] for sign in "|>/") for part in categories)
        if self.keys.separator and uncut and not any(len(part) > 1 for part in categories):
            notes.say(
                f"{self.keys.separator!r} stands in none of {len(categories)} categories, "
                f"{uncut} hold '|', '>' or '/'; {FILE} sets separator"
            )

    def found_keys(self) -> str:
        """The keys that occur, by where: for messages."""
        return "; ".join(f"{where}: {', '.join(sorted(k))}" for where, k in self._found.items())

    def interactions(self) -> Interactions:
        """All purchases read so far; UserError where there are none."""
        if not self.users:
            raise UserError(f"{self.path}: no purchases in it")
        times = np.array(self.times, np.int64)
        return Interactions(
            self.path,
            self.users,
            self.item_ids,
            np.array(self.ratings, np.float32),
            times,
            times,
            np.array(self.lines, np.int64),
        )

    def read(self) -> None:
        """Reads the whole file; UserError, with its line, for a malformed record."""
        known: dict[str, int] = {}
        for line, record in json_rows(self.path):
            self._line = line
            self._note("a line", record)
            user = self._word("a line", record, self.keys.user)
            if user in known:
                self._fail(f"user {user!r} was given before")
            history = record.get(self.keys.history)
            if not isinstance(history, list) or not history:
                self._fail(f"{self.keys.history!r} is no list of purchases; keys: {list(record)}")
            known[user] = len(known)
            for purchase in history:
                self._purchase(user, known[user], purchase)
            profile = record.get(self.keys.profile)
            if isinstance(profile, dict):
                self._note("the user", profile)
                summary = self._text(profile, self.keys.user_summary)
                if summary:
                    self.summaries[known[user]] = summary

    def _purchase(self, user: str, row: int, purchase: object) -> None:
        if not isinstance(purchase, dict):
            self._fail(f"a purchase is a {type(purchase).__name__}, not an object")
        item, review = purchase.get(self.keys.item), purchase.get(self.keys.review)
        if not isinstance(item, dict):
            self._fail(f"a purchase without {self.keys.item!r}; keys: {list(purchase)}")
        review = review if isinstance(review, dict) else {}
        for where, part in (("a purchase", purchase), ("its item", item), ("its review", review)):
            self._note(where, part)
        asin = self._word("its item", item, self.keys.asin)
        rating, time = review.get(self.keys.rating), review.get(self.keys.time)
        if isinstance(time, bool) or not isinstance(time, int) or not 0 <= time < 2**63:
            self._fail(
                f"{self.keys.time} {str(time)[:40]!r} is no time in seconds; keys: {list(review)}"
            )
        number = isinstance(rating, int | float) and not isinstance(rating, bool)
        if rating is not None and not (number and abs(rating) <= LARGEST_RATING):
            self._fail(f"{self.keys.rating} {str(rating)[:40]!r} is not a number")
        title, category, price = (
            markup.plain(self._text(item, key))
            for key in (self.keys.title, self.keys.category, self.keys.price)
        )
        separator = self.keys.separator
        levels = category.split(separator) if separator else [category]
        self.items.setdefault(
            asin,
            Item(
                title or asin,
                categories=tuple(filter(None, map(str.strip, levels))),
                attributes=(("price", price),) if price else (),
                line=self._line,
            ),
        )
        for kind in KINDS:
            name = getattr(self.keys, kind)
            found = [self._text(part, name) for part in (purchase, item, review)] if name else []
            for text in list(filter(None, found))[:1]:
                self.texts.append((kind, len(self.users), text))
        self.users.append(user)
        self.user_rows.append(row)
        self.item_ids.append(asin)
        self.ratings.append(float("nan") if rating is None else float(rating))
        self.times.append(time)
        self.lines.append(self._line)

    def _note(self, where: str, record: dict[str, Any]) -> None:
        self._found.setdefault(where, set()).update(record)

    def _fail(self, what: str) -> NoReturn:
        raw_lines.fail(self.path, self._line, what, f"names of keys are set in {FILE}")

    def _word(self, where: str, record: dict[str, Any], key: str) -> str:
        value = record.get(key)
        if not isinstance(value, str) or not is_word(value):
            shown = f" ({value[:40]!r})" if isinstance(value, str) else ""
            self._fail(f"{where} has no id under {key!r}{shown}; keys: {list(record)}")
        return value

    def _text(self, record: dict[str, Any], key: str) -> str:
        value = record.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if value is not None and not isinstance(value, str):
            self._fail(f"{key} is a {type(value).__name__}, not a text")
        return " ".join((value or "").split())


SOURCE = DatasetSource(
    "regen",
    VERSION,
    read,
    lambda folder, release: source_hashes(folder),
    pattern=r"[a-z0-9_]{1,40}",
    examples=("regen/office",),
)
