"""Stage 0's corpus: what the frozen language model is taught before it is frozen.

Raw texts of the fold's items, and text-only renderings (prompt and answer as one text) of the two
prompt tasks' examples, id strings included, so that the model can say what it will be asked for.
Training items are also named by their content words: without that a small model would never have
seen anything informative in an item's place, and a frozen one could not be told to look there.
"""

import dataclasses
from collections.abc import Iterator
from typing import Annotated

import numpy as np

from ilm_jax.checks import Choice, Number, check
from ilm_jax.data import draws
from ilm_jax.data.catalogue.splits import FOLDS, TRAIN, Splits
from ilm_jax.data.examples import elm_templates
from ilm_jax.data.examples.example import Example
from ilm_jax.data.examples.task_families import TaskFamily
from ilm_jax.data.examples.task_keys import effective
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.examples.task_specs import NEXT_ITEM, TaskSpec
from ilm_jax.data.examples.telling import TELLS
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.tasks import elm24, openp5
from ilm_jax.tasks.prompted import ExampleTokenizer, Prompted

# Sequential examples that are drawn from, at most.
MOST_DRAWN = 1 << 20
# Strings that a tokenizer is trained on, about.
MOST_STRINGS = 1 << 17
_ITEM, _ASKED, _SEQUENTIAL, _WORDS = range(4)
_TASKS = tuple(task for task in elm_templates.TASKS if task != elm24.LONG_DESCRIPTION.task)


@dataclasses.dataclass(frozen=True)
class CorpusSettings:
    """Settings of the corpus alone.

    Attributes:
      sequential_examples: at most so many sequential examples of each split enter it, chosen by
        hash (of more than a million, among an even part of them); 0 takes all.
      word_variants: renderings per training item, and per task about items, that name it by its
        content words, in several orders; 0 for none.
      elm_tasks: ELM's tasks whose texts of training items enter it beside their descriptions: what
        is frozen without having read such texts cannot be brought to write them.

    Raises:
      SettingError: for a value that makes no sense.
    """

    sequential_examples: Number = 10_000
    word_variants: Number = 4
    elm_tasks: tuple[Annotated[str, Choice(_TASKS)], ...] = ()

    def __post_init__(self) -> None:
        check(self)


def _first_variants(index: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The items of an index, each once."""
    return {name: index[name][index["variant"] == 0] for name in ("row", "other")}


class CorpusText:
    """Examples of `corpus_<dataset>_text`."""

    def __init__(
        self,
        splits: Splits,
        settings: TaskSettings,
        tokenizer: Tokenizer | None = None,
        *,
        spec: TaskSpec,
    ) -> None:
        """Without a tokenizer only `index`, `render` and `strings` work."""
        self.splits, self.spec = splits, spec
        self.settings = settings.replace(text_only=True)
        self.own = settings.of(CorpusSettings)
        specs = {made.task: made for made in elm24.FAMILY.specs}
        self._asked = [
            specs[task].make(splits, self.settings, spec=specs[task])
            for task in (elm24.LONG_DESCRIPTION.task, *self.own.elm_tasks)
        ]
        # The setting says which ids are taught: what the task fixes is left open here.
        self._sequences = openp5.NextItem(splits, self.settings, spec=openp5.SEQUENTIAL_RANDOM)
        self._tokens = ExampleTokenizer(tokenizer)

    def index(self, split: str) -> dict[str, np.ndarray]:
        """Kind of each example, and the integers that its task names it by."""
        rows = self.splits.items_in(FOLDS[split])
        asked = [task.index(split) for task in self._asked]
        sequences = self._chosen_sequences(split)
        parts = [
            {"kind": _ITEM, "row": rows},
            *({"kind": _ASKED, "task": task, **index} for task, index in enumerate(asked)),
            {"kind": _SEQUENTIAL, "row": sequences["user"], **sequences},
        ]
        if FOLDS[split] == TRAIN:
            # Descriptions of all items, and of other tasks what they have.
            pairs = [{"row": rows}, *(_first_variants(index) for index in asked[1:])]
            parts += [
                {"kind": _WORDS, "task": k, **self._in_orders(p)} for k, p in enumerate(pairs)
            ]
        sizes = [np.size(part["row"]) for part in parts]
        columns = {"kind": 0, "row": 0, "position": 0, "variant": 0, "other": -1, "task": 0}
        return {
            name: np.concatenate(
                [
                    np.broadcast_to(np.asarray(part.get(name, missing), np.int32), size)
                    for part, size in zip(parts, sizes, strict=True)
                ]
            )
            for name, missing in columns.items()
        }

    def _in_orders(self, pairs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Each of the pairs as often as its words have an order."""
        orders = self.own.word_variants
        repeated = {name: np.repeat(column, orders) for name, column in pairs.items()}
        return {**repeated, "variant": np.tile(np.arange(orders), len(pairs["row"]))}

    def _chosen_sequences(self, split: str) -> dict[str, np.ndarray]:
        index = self._sequences.index(split)
        limit = self.own.sequential_examples
        if not limit or len(index["user"]) <= limit:
            return index
        users = self.splits.catalogue.user_ids
        keys = (self.settings.seed, self.spec.version, "corpus")
        # A hash takes microseconds: of many millions an even part takes part in the draw.
        step = max(1, len(index["user"]) // max(MOST_DRAWN, limit))
        index = {name: column[::step] for name, column in index.items()}
        draw, before = [], -1
        for user, *rest in zip(*(column.tolist() for column in index.values()), strict=True):
            if user != before:  # they come one behind the other
                of_user, before = draws.uniform_behind(*keys, users[user]), user
            draw.append(of_user(*rest))
        chosen = np.sort(np.argsort(draw, kind="stable")[:limit])
        return {name: column[chosen] for name, column in index.items()}

    def truncations(self, split: str) -> dict[str, int]:
        """How many sequential examples were left out, and texts for what they name."""
        everything = len(self._sequences.index(split)["user"])
        chosen = len(self._chosen_sequences(split)["user"])
        told = sum(task.truncations(split).get(TELLS, 0) for task in self._asked)
        return {
            "sequential_examples_left_out": everything - chosen,
            **({TELLS: told} if told else {}),
        }

    def render(
        self,
        split: str,
        kind: int,
        row: int,
        position: int,
        variant: int,
        other: int = -1,
        task: int = 0,
    ) -> Prompted:
        """The example in words; `row` is an item's or, for a sequence, the user's."""
        if kind == _ASKED:
            return self._asked[task].render(split, row, other, variant)
        if kind == _SEQUENTIAL:
            return self._sequences.render(split, row, position, variant)
        if kind == _WORDS:
            return self._asked[task].render_words(row, other, variant)
        catalogue = self.splits.catalogue
        return Prompted(
            key=catalogue.item_ids[row],
            user="",
            template="text",
            prompt=None,
            target_text=catalogue.texts[row],
            target_item=row,
            content=catalogue.content[row],
        )

    def build(self, split: str, kind: int, row: int, **named: int) -> Example:
        """The example's features; keys say which kind it is."""
        features = self._tokens.corpus_features(self.render(split, kind, row, **named))
        task = named["task"]
        asked = ("description", *self.own.elm_tasks)[task]
        prefix = ("item", asked, "sequential", f"words/{asked}" if task else "words")[kind]
        return features | {"key": f"{prefix}/{features['key']}"}

    def strings(self, split: str, step: int = 1) -> Iterator[str]:
        """Every `step`th example as one string."""
        index = self.index(split)
        for values in zip(*(column[::step].tolist() for column in index.values()), strict=True):
            example = self.render(split, **dict(zip(index, values, strict=True)))
            yield (example.prompt.text if example.prompt else "") + example.target_text

    def tokenizer_strings(self) -> Iterator[str]:
        """The tokenizer's training texts: the corpus, and all id strings for their digits.

        Of very many an even part, MOST_STRINGS or little more: pieces are then settled.
        """
        catalogue, renderer = self.splits.catalogue, self._sequences.renderer
        users = catalogue.num_users if self.settings.mention_user != "none" else 0
        total = len(self.index("train")["kind"]) + catalogue.num_items + users
        step = max(1, total // MOST_STRINGS)
        yield from self.strings("train", step)
        yield from map(renderer.item_id, range(0, catalogue.num_items, step))
        yield from map(renderer.user_id, range(0, users, step))


FAMILY = TaskFamily(
    "corpus",
    (
        TaskSpec(
            family="corpus",
            task="text",
            version=4,
            make=CorpusText,
            answer="none",
            settings=(
                "mention_description",
                *(name for name in NEXT_ITEM if name != "text_only"),  # its texts have no slots
                "prompt_file",
                "elm24.texts_file",
                "corpus.sequential_examples",
                "corpus.word_variants",
                "corpus.elm_tasks",
            ),
            metrics=("nll",),
            what="- | item texts and text-only renderings | stage 0, ours",
        ),
    ),
    CorpusSettings,
)


def corpus_text(splits: Splits, settings: TaskSettings) -> CorpusText:
    """The corpus in words."""
    (spec,) = FAMILY.specs
    return CorpusText(splits, effective(spec, settings), spec=spec)
