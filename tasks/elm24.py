"""ELM's tasks (Tennenholtz et al. 2024): items' slots in, texts about them out; and user profiles.

Items of the training fold train; those of the validation and test folds, whose words nothing else
has seen, measure. A second item is always one of the training fold. Targets are those of a file
(`Elm24Settings.texts_file`) for the tasks that it names, else composed from metadata; every example
says which (`source`). Those of a file that name what is held out do not train, and are counted.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np

from ilm_jax.checks import Choice, InputFile, Number, check
from ilm_jax.data import draws
from ilm_jax.data.catalogue.neighbours import nearest
from ilm_jax.data.catalogue.splits import FOLDS, TRAIN, item_folds
from ilm_jax.data.examples import composed, elm_templates
from ilm_jax.data.examples.prompts import Rendered, Segment
from ilm_jax.data.examples.task_families import TaskFamily
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.examples.task_specs import (
    INDEX,
    LANGUAGE,
    RENDERING,
    WRITTEN_FEATURES,
    TaskSpec,
)
from ilm_jax.data.formats.items import Spans
from ilm_jax.tasks.elm24_texts import ItemTexts, ProfileTexts
from ilm_jax.tasks.prompted import Prompted, PromptTask


@dataclasses.dataclass(frozen=True)
class Elm24Settings:
    """Settings of these tasks alone.

    Attributes:
      texts_file: written targets (see `text_records`); tasks that it does not name, and all with
        "", have composed ones.
      neighbours: where the neighbours of items are near, "cf" or "text".
      train_items: training items that tasks about items speak of, the first by a hash of their ids,
        so that fewer are among more; 0: all.

    Raises:
      SettingError: for a value that makes no sense.
    """

    texts_file: InputFile = ""
    neighbours: Annotated[str, Choice(("cf", "text"))] = "cf"
    train_items: Number = 0

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ItemSpec(TaskSpec):
    """A task about one or two items.

    Attributes:
      elm: its prompts and arity.
    """

    elm: elm_templates.ElmTask


class ItemTask(PromptTask):
    """Examples of `elm24_<dataset>_<task>` for one of the 24 tasks."""

    spec: ItemSpec

    @functools.cached_property
    def _written(self) -> ItemTexts:
        file = self.settings.of(Elm24Settings).texts_file
        return ItemTexts(self.splits, file, self.spec.task)

    @functools.cached_property
    def _entries(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows of the items, -1 where there is no second; fold of the example, -1 for none)."""
        fold = self.splits.item_fold
        if self._written.given:
            keys = [(*key, -1)[:2] for key in sorted(self._written.told)]
            pairs = np.array(keys, np.int64).reshape(-1, 2)
            second = np.where(pairs[:, 1] >= 0, fold[pairs[:, 1]], TRAIN)
            return pairs, np.where(second == TRAIN, fold[pairs[:, 0]], -1)
        rows = np.arange(self.splits.catalogue.num_items)
        other = np.full(len(rows), -1)
        if self.spec.elm.items == 2:
            other = self._partners()
        return np.stack([rows, other], 1), np.where(
            (other >= 0) | (self.spec.elm.items == 1), fold, -1
        )

    def _partners(self) -> np.ndarray:
        if self.spec.elm.neighbour:
            near = nearest(self.splits, self.settings.of(Elm24Settings).neighbours)
            # An item that nobody chose in training has no neighbour there but by its words.
            return np.where(near >= 0, near, nearest(self.splits, "text"))
        known = self.splits.items_in(TRAIN)
        if len(known) < 2:
            return np.full(self.splits.catalogue.num_items, -1)
        partners = []
        for row, raw in enumerate(self.splits.catalogue.item_ids):
            place = draws.integer(len(known), self.settings.seed, "elm24", "partner", raw)
            partner = int(known[place])
            partners.append(int(known[(place + 1) % len(known)]) if partner == row else partner)
        return np.array(partners)

    def index(self, split: str) -> dict[str, np.ndarray]:
        """Rows of the item and of the second one (-1: none), and variant."""
        pairs, fold = self._entries
        pairs = pairs[fold == FOLDS[split]].astype(np.int32)
        if split == "train" and (kept := self.settings.of(Elm24Settings).train_items):
            pairs = pairs[np.isin(pairs[:, 0], self._first(kept, pairs[:, 0]))]
        return self.with_variants(split, row=pairs[:, 0], other=pairs[:, 1])

    def _first(self, count: int, rows: np.ndarray) -> list[int]:
        """So many of the item rows, by a hash of their raw ids."""
        ids = self.splits.catalogue.item_ids
        order = {
            row: draws.integer(1 << 64, self.settings.seed, "elm24", "train_items", ids[row])
            for row in set(rows.tolist())
        }
        return sorted(order, key=order.__getitem__)[:count]

    def truncations(self, split: str) -> dict[str, int]:
        """The file's texts of items that are not in the catalogue, or would name held-out words."""
        written = self._written
        if not written.given:
            return {}
        without = self.splits.catalogue.num_items - len(written.given)
        return {
            "items_without_a_text": without if self.spec.elm.items == 1 else 0,
            "texts_of_unknown_items": written.unknown,
            "texts_with_a_held_out_second_item": int(np.sum(self._entries[1] < 0)),
            **written.withheld(split),
        }

    def render(self, split: str, row: int, other: int, variant: int) -> Prompted:
        """The example in words."""
        rows = (row,) if other < 0 else (row, other)
        raws = [self.splits.catalogue.item_ids[r] for r in rows]
        template = self.template(len(self.spec.elm.prompts), split, variant, *raws)
        target, content, source = self.target(rows)
        return Prompted(
            key=f"{','.join(raws)}#{variant}",
            user="",
            template=f"{self.spec.task}/{template}",
            prompt=self.prompt(rows, template),
            target_text=target,
            target_item=row,
            content=content,
            source=source,
        )

    def prompt(self, rows: tuple[int, ...], template: int) -> Rendered:
        """The prompt about these items."""
        return self.renderer.described(self.spec.elm.prompts[template], _places(rows))

    def render_words(self, row: int, other: int, variant: int) -> Prompted:
        """A training example that names items by their content words, for stage 0's corpus."""
        example = self.render("train", row, other, variant)
        template = self.spec.elm.prompts[int(example.template.rsplit("/", 1)[1])]
        places = _places((row,) if other < 0 else (row, other))
        prompt = self.renderer.described_by_words(template, places, variant)
        return dataclasses.replace(example, prompt=prompt)

    def target(self, rows: tuple[int, ...]) -> tuple[str, Spans | None, str]:
        """(text, spans that carry information or None for all, source)."""
        written = self._written.told.get(rows)
        if written:
            return written.target, None, written.source
        return self.from_facts(rows)

    def from_facts(self, rows: tuple[int, ...]) -> tuple[str, Spans | None, str]:
        """The target where nobody wrote one."""
        text, spans = composed.compose(self.spec.task, [self._book.of(row) for row in rows])
        return text, spans, composed.SOURCE

    @functools.cached_property
    def _book(self) -> composed.FactBook:
        return composed.FactBook(self.splits)


def _places(rows: tuple[int, ...]) -> dict[str, int]:
    """Row of each place of a prompt about one item or two."""
    names = ("item",) if len(rows) == 1 else ("first", "second")
    return dict(zip(names, rows, strict=True))


class LongDescription(ItemTask):
    """Examples of `elm24_<dataset>_long_description`: the catalogue's texts."""

    def from_facts(self, rows: tuple[int, ...]) -> tuple[str, Spans | None, str]:
        """The item's text."""
        catalogue = self.splits.catalogue
        text, spans = catalogue.texts[rows[0]], catalogue.content[rows[0]]
        own = spans == [(0, len(text))]
        return text, spans, "catalogue" if own else composed.SOURCE


class UserProfile(PromptTask):
    """Examples of `elm24_<dataset>_user_profile`: users are split by a hash as items are."""

    @functools.cached_property
    def _written(self) -> ProfileTexts:
        file = self.settings.of(Elm24Settings).texts_file
        return ProfileTexts(self.splits, file, self.spec.task)

    def index(self, split: str) -> dict[str, np.ndarray]:
        """User rows with something to say of them, and variant."""
        rows = [
            row
            for row in self._users(split)
            if self._target(row)[0] and not self._written.tells(row)
        ]
        return self.with_variants(split, user=np.array(rows, np.int32))

    def truncations(self, split: str) -> dict[str, int]:
        """The file's texts of unknown users, and those that name what is held out."""
        unknown = {"texts_of_unknown_users": self._written.unknown}
        return unknown | self._written.withheld(self._users(split))

    def _users(self, split: str) -> list[int]:
        catalogue, config = self.splits.catalogue, self.splits.config
        fold = item_folds(f"{catalogue.name.split('/')[0]} users", catalogue.user_ids, config)
        return np.flatnonzero(fold == FOLDS[split]).tolist()

    def _target(self, user: int) -> tuple[str, Spans | None, str]:
        if self._written.given:
            written = self._written.of(user)
            return (written.target, None, written.source) if written else ("", None, "")
        return (*composed.compose_profile(self.splits, user), composed.SOURCE)

    def render(self, split: str, user: int, variant: int) -> Prompted:
        """The example in words."""
        raw = self.splits.catalogue.user_ids[user]
        prompts = elm_templates.PROFILE_PROMPTS
        template = self.template(len(prompts), split, variant, raw)
        target, content, source = self._target(user)
        mentions: dict[str, list[Segment]] = {"user": self.renderer.mention_user(user)}
        return Prompted(
            key=f"{raw}#{variant}",
            user=raw,
            template=f"{self.spec.task}/{template}",
            prompt=self.renderer.fill(prompts[template], mentions),
            target_text=target,
            target_item=-1,
            content=content,
            source=source,
        )


def _named(times: int) -> Callable[[TaskSettings], Sequence[tuple[str, int]]]:
    return lambda settings: [(settings.mention_description, times)]


def _item_spec(task: str, elm: elm_templates.ElmTask) -> ItemSpec:
    second = "its neighbour" if elm.neighbour else "another"
    given = "an item" if elm.items == 1 else f"an item and {second}"
    own = (
        "elm24.texts_file",
        "elm24.train_items",
        *(("elm24.neighbours",) if elm.neighbour else ()),
    )
    return ItemSpec(
        family="elm24",
        task=task,
        version=2,
        make=LongDescription if task == "long_description" else ItemTask,
        answer="text",
        features=WRITTEN_FEATURES,
        settings=("mention_description", *INDEX, *RENDERING, *own),
        mentions=_named(elm.items),
        counted=not elm.neighbour,
        metrics=LANGUAGE,
        what=f"{given} | {task.replace('_', ' ')} | ELM",
        elm=elm,
    )


PROFILE = TaskSpec(
    family="elm24",
    task=elm_templates.USER_PROFILE,
    version=2,
    make=UserProfile,
    answer="text",
    features=WRITTEN_FEATURES,
    settings=(*RENDERING, "elm24.texts_file"),
    fixes=lambda settings: {"mention_user": "slot"},
    mentions=lambda settings: [(settings.mention_user, 1)],
    metrics=LANGUAGE,
    what="a user | their taste | ELM",
    counted=False,
)
_SPECS = (*(_item_spec(*task) for task in elm_templates.TASKS.items()), PROFILE)
FAMILY = TaskFamily(
    "elm24", _SPECS, Elm24Settings, mixtures={"elm24": tuple(spec.task for spec in _SPECS)}
)
LONG_DESCRIPTION = next(spec for spec in FAMILY.specs if spec.task == "long_description")
