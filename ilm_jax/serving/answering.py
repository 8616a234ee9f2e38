"""From requests to answers: texts, or items of the catalogue with their scores."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from ilm_jax.data.examples.mentions import with_item
from ilm_jax.data.examples.prompt_tokens import target_tokens
from ilm_jax.data.examples.prompts import PromptRenderer
from ilm_jax.data.examples.purchases import LumenSettings, PurchasePrompts
from ilm_jax.data.examples.task_specs import ITEM_THEN_TEXT
from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.decoding.config import Buckets, DecodingConfig
from ilm_jax.decoding.generator import Generator, Shelf
from ilm_jax.decoding.prompts import exclusions
from ilm_jax.decoding.soft_tokens import SoftTokenCache
from ilm_jax.decoding.trie import Trie, build_trie
from ilm_jax.errors import UserError
from ilm_jax.evaluation.trained import TrainedModel
from ilm_jax.serving.requests import Request, Writer, by_shape

Row = dict[str, Any]
NO_NUMBERS = (
    "the model's scores for prompt {!r} are not numbers (NaN): its parameters are not finite; "
    "choose an earlier --step"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Answerer:
    """A model, and what stands between words and its arrays.

    Attributes:
      generator: the model with its soft tokens.
      converter: of prompts.
      tokenizer: the model's.
      renderer: of the catalogue that items are ranked in; None for a model without one.
      shelf: the catalogue's items, where the model has an item head, which then ranks them.
      purchases: how a model is asked that learnt to speak behind an item (LUMEN); None for others.
    """

    generator: Generator
    converter: PromptConverter
    tokenizer: Tokenizer
    renderer: PromptRenderer | None = None
    shelf: Shelf | None = None
    purchases: PurchasePrompts | None = None

    @classmethod
    def of_trained(
        cls,
        trained: TrainedModel,
        *,
        length: int | None = None,
        slots: int | None = None,
        batch_size: int | None = None,
        task: str | None = None,
        by_names: bool = False,
    ) -> "Answerer":
        """A run's model.

        Args:
          trained: the run.
          length: positions of a prompt at most, without bos; None: as in training.
          slots: most slots of a prompt; None: of a history and one more.
          batch_size: prompts that are read at once; None for a few sizes, padded up to.
          task: whose catalogue and way to name items are used; None: those of the run's first
            dataset and of its first task whose answers are items.
          by_names: items are ranked by their strings, although the model has an item head.

        Raises:
          UserError: for `by_names` of a model that did not learn what answers say.
        """
        asked = trained.data if task is None else trained.data.alone(task, trained.catalogue)
        splits = trained.splits_of(asked.dataset)
        scorer = None if by_names else trained.objective.item_scorer
        if by_names and not trained.objective.predicts_text:
            raise UserError(f"{trained.model_dir} did not learn to name items: its item head ranks")
        shelf = None
        if scorer is not None:
            shelf = Shelf(scorer, scorer.rows_of(splits.catalogue.name), trained.vectors)
        settings = asked.naming(task).replace(text_only=trained.text_only)
        length = trained.data.task_feature_lengths["inputs"] if length is None else length
        slots = max(2, settings.history + 1) if slots is None else slots
        model, soft = trained.objective.model, None
        if not trained.text_only:
            cache = SoftTokenCache(model, trained.partitioner)
            with trained.partitioner.context():
                soft = cache(trained.params, trained.vectors).values
        converter = PromptConverter(
            {"inputs": length, "targets": 1},
            trained.tokenizer,
            num_queries=max(1, trained.objective.num_queries),
            max_entities=slots,
            rows=trained.tables.rows if trained.tables else None,
            word_begins=trained.tokenizer.word_begins if trained.objective.word_rows else None,
        )
        buckets = Buckets() if batch_size is None else Buckets(rows=(batch_size,))
        renderer = PromptRenderer(splits, settings)
        purchases = None
        if any(spec.answer == ITEM_THEN_TEXT for spec in trained.data.specs()):
            past = settings.of(LumenSettings).past_critiques
            purchases = PurchasePrompts(renderer, past=past)
        generator = Generator(model, trained.params, soft, buckets, trained.partitioner)
        return cls(generator, converter, trained.tokenizer, renderer, shelf, purchases)

    @functools.cached_property
    def trie(self) -> Trie:
        """Of all items' strings.

        Raises:
          UserError: for a catalogue without items.
        """
        if self.renderer is None:
            raise UserError("this model knows no catalogue: there are no items to rank")
        rows = range(self.renderer.catalogue.num_items)
        names = [self.renderer.target(row) for row in rows]
        return build_trie(self._item_tokens, names, share=True)

    @functools.cached_property
    def _item_tokens(self) -> list[list[int]]:
        assert self.renderer is not None
        return target_tokens(self.renderer, self.tokenizer)

    def ask(self, prompts: Sequence[str]) -> list[Request]:
        """Requests of prompts as people write them: "Describe {item:t0002}.".

        Raises:
          UserError: for an unknown item or user, a prompt that is too long, or a model without a
            catalogue.
        """
        if self.renderer is None:
            raise UserError("this model knows no catalogue: there is nothing to mention")
        converter = self.converter
        writer = Writer(
            self.renderer, self.tokenizer, converter.num_queries, converter.inputs_length
        )
        return [writer.request(number, number, text) for number, text in enumerate(prompts)]

    def batches(self, requests: Iterable[Request], size: int) -> Iterator[list[Request]]:
        """Requests whose prompts are padded to the same length, `size` at a time."""

        def shape(request: Request) -> int:
            """The bucket of lengths that the request's prompt falls into, in positions."""
            positions = int(self.converter.prompts([request.example])["lengths"][0])
            return self.generator.buckets.length(positions)

        return by_shape(requests, shape, size)

    def texts(self, requests: Sequence[Request], config: DecodingConfig) -> list[Row]:
        """{"text", "tokens", "stop", "score"} of every request; of beams the best, and all.

        "tokens" ends with the stop token, where one was written; "stop" says whether it was
        ("end") or the length was used up ("length"); "score" is the log-probability of the tokens,
        of beams divided by length ** length_penalty.
        """
        found = self.generator.generate(self._prompts(requests), config)
        _check_scores(np.asarray(found.scores), requests)
        several = config.beams > 1
        rows = []
        for tokens, lengths, scores in zip(*found, strict=True):
            if not several:
                rows.append(self._text(tokens, lengths, scores, config))
                continue
            beams = [
                self._text(*one, config)
                for one in zip(tokens, lengths, scores, strict=True)
                if np.isfinite(one[2])
            ]
            if not beams:
                raise UserError(NO_NUMBERS.format(requests[len(rows)].id))
            rows.append({**beams[0], "beams": beams})
        return rows

    def items(
        self,
        requests: Sequence[Request],
        beams: int,
        excluded: Sequence[Sequence[int]] | None = None,
        length_penalty: float = 0.0,
    ) -> list[Row]:
        """{"items": [{"id", "title", "score"}, …]} of every request, best first, and as `texts`
        what stands for the first: its string, tokens and score.

        Args:
          requests: the prompts.
          beams: length of the lists.
          excluded: rows of items that are no candidates, for every request.
          length_penalty: see `Generator.rank`; without meaning for an item head.
        """
        table = None
        if excluded is not None:
            table = exclusions([np.asarray(rows, np.int32) for rows in excluded])
        prompts = self._prompts(requests)
        if self.shelf is not None:
            found = self.generator.rank_by_head(prompts, self.shelf, beams, excluded=table)
        else:
            found = self.generator.rank(
                prompts, self.trie, beams, excluded=table, length_penalty=length_penalty
            )
        assert self.renderer is not None
        # An empty list of beams is one of a model without numbers, unless no candidate was left.
        gone = [0] * len(requests) if excluded is None else [len(set(rows)) for rows in excluded]
        left = np.array(gone) < self.renderer.catalogue.num_items
        empty = (found.items[:, :1] < 0) & left[:, None] & (self.shelf is None)
        _check_scores(np.where(empty, np.nan, found.scores), requests)
        catalogue, rows = self.renderer.catalogue, []
        for items, scores in zip(found.items.tolist(), found.scores.tolist(), strict=True):
            listed = [
                {"id": catalogue.item_ids[item], "title": catalogue.titles[item], "score": score}
                for item, score in zip(items, scores, strict=True)
                if item >= 0
            ]
            row: Row = {"items": listed, "text": "", "tokens": [], "stop": "no candidate"}
            if listed:
                best = items[0]
                row |= {"text": self.renderer.target(best), "tokens": self._item_tokens[best]}
                row |= {"stop": "end", "score": scores[0]}
            rows.append(row)
        return rows

    def narratives(
        self,
        requests: Sequence[Request],
        rows: Sequence[int],
        config: DecodingConfig,
    ) -> list[Row]:
        """As `texts`, what the model says of items whose soft tokens stand behind the prompts.

        Args:
          requests: the prompts, as items are ranked for.
          rows: of the catalogue, an item for each.
          config: how the texts are written.

        Raises:
          UserError: for a model that did not learn to, or an item without a vector.
        """
        if self.purchases is None or self.renderer is None or self.generator.soft is None:
            raise UserError(
                "the model did not learn to speak behind an item: train it with runs/lumen.gin"
            )
        if self.shelf is not None:
            first, vectors = self.shelf.rows.start, np.asarray(self.shelf.vectors)
            for row in rows:
                if not vectors[first + row].any():
                    name = self.renderer.catalogue.item_ids[row]
                    raise UserError(f"item {name!r} has no vector: there is nothing to speak of")
        followed = [
            dataclasses.replace(request, example=with_item(request.example, row))
            for request, row in zip(requests, rows, strict=True)
        ]
        return self._with_room.texts(followed, config)

    def items_and_texts(
        self,
        requests: Sequence[Request],
        count: int,
        config: DecodingConfig,
        excluded: Sequence[Sequence[int]] | None = None,
    ) -> list[Row]:
        """As `items`, by the item head, with the text about the first item as "text".

        Args:
          requests: the prompts.
          count: length of the lists.
          config: how the texts are written.
          excluded: see `items`.

        Raises:
          UserError: as `narratives`, or for a model without an item head.
        """
        if self.shelf is None:
            raise UserError("--answer=item_and_text: the model has no item head to rank by")
        found = self.items(requests, count, excluded)
        assert self.renderer is not None
        row = self.renderer.catalogue.item_row
        there = [number for number, one in enumerate(found) if one["items"]]
        chosen = [row[found[number]["items"][0]["id"]] for number in there]
        if there:
            texts = self.narratives([requests[number] for number in there], chosen, config)
            for number, text in zip(there, texts, strict=True):
                found[number] |= {name: text[name] for name in ("text", "tokens", "stop")}
        return found

    @functools.cached_property
    def _with_room(self) -> "Answerer":
        """The same for prompts that an item follows."""
        return dataclasses.replace(self, converter=self.converter.with_room_for_an_item())

    def _text(
        self, tokens: Int32[np.ndarray, " steps"], length: int, score: float, config: DecodingConfig
    ) -> Row:
        ids = [int(token) for token in tokens[: int(length)]]
        ended = bool(ids) and ids[-1] in config.stop_ids
        words = self.tokenizer.decode(ids[:-1] if ended else ids, continues=True).strip()
        stop = "end" if ended else "length"
        return {"text": words, "tokens": ids, "stop": stop, "score": float(score)}

    def _prompts(self, requests: Sequence[Request]) -> dict[str, np.ndarray]:
        examples = [request.example for request in requests]
        return self.converter.prompts(examples, [request.number for request in requests])


def _check_scores(scores: np.ndarray, requests: Sequence[Request]) -> None:
    """Raises UserError where a model gives no numbers, and its answers mean nothing."""
    wrong = np.isnan(scores).reshape(len(scores), -1).any(axis=1)
    if wrong.any():
        raise UserError(NO_NUMBERS.format(requests[int(np.argmax(wrong))].id))
