"""Stage 0's corpus: what the frozen language model is taught before it is frozen.

Raw texts of the fold's items, and text-only renderings (prompt and answer as one text) of the two
prompt tasks' examples, id strings included, so that the model can say what it will be asked for.
Training items are also named by their content words: without that a small model would never have
seen anything informative in an item's place, and a frozen one could not be told to look there.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from ilm_jax.data import draws
from ilm_jax.data.catalogue.splits import FOLDS, TRAIN, Splits
from ilm_jax.data.examples import item_index
from ilm_jax.data.examples.task_settings import SPECS, TaskSettings
from ilm_jax.data.examples.task_specs import TaskSpec
from ilm_jax.data.tokenizers import OwnTokenizer, Tokenizer
from ilm_jax.tasks.elm24 import LongDescription
from ilm_jax.tasks.openp5 import NextItem, SequentialRandom
from ilm_jax.tasks.prompted import ExampleTokenizer, Prompted

SPEC = SPECS["text"]
_ITEM, _DESCRIPTION, _SEQUENTIAL, _WORDS = range(4)


class CorpusText:
    """Examples of `corpus_<dataset>_text`."""

    spec = SPEC

    def __init__(
        self, splits: Splits, settings: TaskSettings, tokenizer: Tokenizer | None = None
    ) -> None:
        """Without a tokenizer only `index`, `render` and `strings` work."""
        self.splits = splits
        self.settings = settings.replace(text_only=True)
        self._descriptions = LongDescription(splits, self.settings)
        # In the corpus the setting says which ids are taught; no task fixes it here.
        spec = dataclasses.replace(SequentialRandom.spec, fixed=())
        self._sequences = NextItem(splits, self.settings, spec=spec)
        self._tokens = ExampleTokenizer(tokenizer)

    def index(self, split: str) -> dict[str, np.ndarray]:
        """Kind of each example, and the integers that its task names it by."""
        rows = self.splits.items_in(FOLDS[split])
        zero = np.zeros_like(rows)
        described = self._descriptions.index(split)
        sequences = self._chosen_sequences(split)
        parts = [
            (_ITEM, rows, zero, zero),
            (_DESCRIPTION, described["row"], np.zeros_like(described["row"]), described["variant"]),
            (_SEQUENTIAL, sequences["user"], sequences["position"], sequences["variant"]),
        ]
        if FOLDS[split] == TRAIN:
            variants = np.arange(self.settings.corpus_word_variants)
            named = np.repeat(rows, len(variants))
            parts.append((_WORDS, named, np.zeros_like(named), np.tile(variants, len(rows))))
        kinds = [np.full(len(part[1]), part[0], np.int32) for part in parts]
        columns = [np.concatenate([part[k] for part in parts]) for k in (1, 2, 3)]
        names = ("kind", "row", "position", "variant")
        return dict(zip(names, [np.concatenate(kinds), *columns], strict=True))

    def _chosen_sequences(self, split: str) -> dict[str, np.ndarray]:
        index = self._sequences.index(split)
        limit = self.settings.corpus_sequential_examples
        if not limit or len(index["user"]) <= limit:
            return index
        users = self.splits.catalogue.user_ids
        keys = (self.settings.seed, SPEC.version, "corpus")
        rows = zip(*(column.tolist() for column in index.values()), strict=True)
        draw = [
            draws.uniform(*keys, users[user], position, variant) for user, position, variant in rows
        ]
        chosen = np.sort(np.argsort(draw, kind="stable")[:limit])
        return {name: column[chosen] for name, column in index.items()}

    def truncations(self, split: str) -> dict[str, int]:
        """How many sequential examples were left out."""
        everything = len(self._sequences.index(split)["user"])
        chosen = len(self._chosen_sequences(split)["user"])
        return {"sequential_examples_left_out": everything - chosen}

    def render(self, split: str, kind: int, row: int, position: int, variant: int) -> Prompted:
        """The example in words; `row` is an item's or, for a sequence, the user's."""
        if kind == _DESCRIPTION:
            return self._descriptions.render(split, row, -1, variant)
        if kind == _SEQUENTIAL:
            return self._sequences.render(split, row, position, variant)
        if kind == _WORDS:
            return self._descriptions.render_words(row, variant)
        catalogue = self.splits.catalogue
        return Prompted(
            key=catalogue.item_ids[row], user="", template="text", prompt=None,
            target_text=catalogue.texts[row], target_item=row, content=catalogue.content[row],
        )  # fmt: skip

    def build(self, split: str, kind: int, row: int, position: int, variant: int) -> dict[str, Any]:
        """The example's features; keys say which kind it is."""
        features = self._tokens.corpus_features(self.render(split, kind, row, position, variant))
        prefix = ("item", "description", "sequential", "words")[kind]
        return features | {"key": f"{prefix}/{features['key']}"}

    def strings(self, split: str) -> Iterator[str]:
        """Every example as one string."""
        index = self.index(split)
        for values in zip(*(column.tolist() for column in index.values()), strict=True):
            example = self.render(split, *values)
            yield (example.prompt.text if example.prompt else "") + example.target_text

    def tokenizer_strings(self) -> Iterator[str]:
        """What the tokenizer trains on: the training corpus, and every id string for its digits."""
        yield from self.strings("train")
        renderer = self._sequences.renderer
        yield from map(renderer.item_id, range(self.splits.catalogue.num_items))
        if self.settings.mention_user != "none":
            yield from map(renderer.user_id, range(self.splits.catalogue.num_users))


def train_tokenizer(splits: Splits, settings: TaskSettings) -> OwnTokenizer:
    """The tokenizer of a dataset: trained on the training corpus, the same bytes every time."""
    strings = CorpusText(splits, settings).tokenizer_strings()
    return OwnTokenizer.train(
        strings, settings.vocab_size, model_type=settings.model_type,
        whole=item_index.vocabulary(settings),
    )  # fmt: skip


def make(
    spec: TaskSpec, splits: Splits, settings: TaskSettings, tokenizer: Tokenizer | None
) -> CorpusText:
    """The task of this spec; without a tokenizer it only renders."""
    return CorpusText(splits, settings, tokenizer)
