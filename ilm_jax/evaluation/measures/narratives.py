"""What a model says of an item behind its soft tokens, and what of that is true of the item."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Array, Int, PyTree

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.examples.example import Example
from ilm_jax.data.examples.mentions import with_item
from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.streams.feed import Feed
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.evaluation.measures.generation import Generated, GenerationMeasure
from ilm_jax.evaluation.measures.passes import ModelOnMesh, OnBatch
from ilm_jax.metrics.texts import NOT_AVAILABLE
from ilm_jax.metrics.values import Evaluation, MetricValues
from ilm_jax.metrics.words import words

NO_WORDS = f"{NOT_AVAILABLE} (no item has marked words)"
NO_OTHERS = f"{NOT_AVAILABLE} (all texts are of one item)"
# Words that more items have than this share are the texts' style, not what tells an item.
COMMON = 0.5


class NarrativeMeasure:
    """Greedily written texts behind the items that are given."""

    def __init__(
        self,
        model: ModelOnMesh,
        feed: Feed,
        tokenizer: Tokenizer,
        steps: int,
        stop_ids: Sequence[int] = (),
    ) -> None:
        """As `GenerationMeasure`."""
        converter = feed.converter
        assert isinstance(converter, PromptConverter)
        self._items: dict[int, int] = {}
        followed = Feed(_Followed(feed, self._items), converter.with_room_for_an_item())
        self._measure = GenerationMeasure(model, followed, tokenizer, steps, stop_ids)

    def __call__(
        self,
        params: PyTree[Array],
        numbers: Int[np.ndarray, " chosen"],
        items: Int[np.ndarray, " chosen"],
        on_batch: OnBatch = None,
    ) -> Generated:
        """The text behind every prompt and its item, a row of the catalogue."""
        self._items.clear()
        self._items.update(zip(numbers.tolist(), items.tolist(), strict=True))
        return self._measure(params, numbers, on_batch)


class _Followed:
    """A stream whose prompts are followed by items, by number of the example."""

    def __init__(self, feed: Feed, items: Mapping[int, int]) -> None:
        self._stream, self._items = feed.stream, items
        self.len_epoch = feed.len_epoch

    def __len__(self) -> int:
        return len(self._stream)

    def __getitem__(self, index: int) -> Example:
        return with_item(self._stream[index], self._items[index])


class Marked:
    """The words that tell items apart, as the catalogue marks them in their texts."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Of one catalogue."""
        self._catalogue = catalogue

    @functools.cached_property
    def known(self) -> frozenset[str]:
        """All of them, of any item."""
        items = self._catalogue.num_items
        counts: dict[str, int] = {}
        for row in range(items):
            for word in self.of(row):
                counts[word] = counts.get(word, 0) + 1
        return frozenset(word for word, count in counts.items() if count <= COMMON * items)

    def of(self, row: int) -> set[str]:
        """Of one item."""
        text = self._catalogue.texts[row]
        spans = self._catalogue.content[row]
        return {word for start, end in spans for word in words(text[start:end])}

    def truth(self, texts: Sequence[str], rows: Sequence[int]) -> np.ndarray:
        """Of each text the share of the marked words in it that its item's text or categories have;
        0 without any.
        """
        found = np.zeros(len(texts))
        for number, (text, row) in enumerate(zip(texts, rows, strict=True)):
            named = set(words(text)) & self.known
            shelves = words(" ".join(self._catalogue.categories[row]))
            found[number] = len(named & self.of(row).union(shelves)) / max(1, len(named))
        return found

    def evaluation(self, texts: Generated, rows: Sequence[int]) -> Evaluation:
        """`true_words`: the truth of texts about these items, or why there is none.

        Its floor is the truth of the same texts about other texts' items: what words that are said
        of any item have by chance.
        """
        if not self.known:
            return Evaluation([], missing={"true_words": NO_WORDS})
        values = self.truth(texts.predictions, rows)
        metric = MetricValues("true_words", "generated texts", texts.index, values)
        partners = _others(rows)
        if partners is None:
            return Evaluation([metric], missing={"true_words_floor": NO_OTHERS})
        others = self.truth(texts.predictions, partners)
        return Evaluation([metric], {"true_words_floor": float(others.mean())})


def _others(rows: Sequence[int]) -> list[int] | None:
    """For each text the item of the nearest one before it, around the end, that has another.

    None where all texts are of one item.
    """
    if len(set(rows)) < 2:
        return None
    found: list[int] = list(rows)
    for _ in range(2):  # the second time around, the first text knows those before it
        for place, row in enumerate(rows):
            before = place - 1
            found[place] = rows[before] if rows[before] != row else found[before]
    return found
