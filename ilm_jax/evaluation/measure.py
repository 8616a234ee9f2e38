"""Measures a trained run: nll and generated texts of held-out items, ranks of held-out choices."""

from collections.abc import Iterable

import numpy as np

from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.examples.prompts import PromptRenderer
from ilm_jax.data.streams.dataset_config import Feed
from ilm_jax.decoding.trie import Trie
from ilm_jax.evaluation.language import LanguageResult
from ilm_jax.evaluation.measures import (
    Generated,
    GenerationMeasure,
    LanguageMeasure,
    Ranked,
    RankingMeasure,
    target_trie,
)
from ilm_jax.evaluation.passes import Watch, unseen
from ilm_jax.evaluation.ratings import Rated, RatingMeasure, rating_scale, scale_trie
from ilm_jax.evaluation.trained import TrainedModel

DESCRIPTIONS, CHOICES = "long_description", "sequential_random"


def measure_language(
    trained: TrainedModel,
    task: str = DESCRIPTIONS,
    split: str = "test",
    texts: int | None = None,
    watch: Watch = unseen,
) -> LanguageResult:
    """nll of a task's targets; descriptions in split "test" are texts of held-out items.

    Args:
      trained: the model.
      task: whose targets are scored.
      split: "validation" or "test".
      texts: size of the fixed sample; None for all.
      watch: hears how far it is.
    """
    chosen = trained.texts(task, split, texts).numbers
    measure = LanguageMeasure(trained.setting, trained.feed(task, split))
    return measure(trained.params, chosen, watch(f"scoring {task}", len(chosen)))


def ranking_trie(trained: TrainedModel, task: str, split: str) -> Trie:
    """The strings by which a task's answers name the items."""
    settings = trained.dataset(task, split).naming(task)
    return target_trie(PromptRenderer(trained.splits, settings), trained.tokenizer)


def measure_ranking(
    trained: TrainedModel,
    users: int | None,
    beams: int = 10,
    split: str = "test",
    exclude_seen: bool = False,
    task: str = CHOICES,
    watch: Watch = unseen,
) -> Ranked:
    """Lists of items, by beams over the trie of a task's target strings.

    Args:
      trained: the model.
      users: size of the fixed sample; None for all.
      beams: list length; a target beyond it counts as missed.
      split: "validation" or "test".
      exclude_seen: a user's earlier choices are no candidates.
      task: whose answers are items; where its examples name candidates, only those are listed.
      watch: hears how far it is.
    """
    feed = trained.feed(task, split)
    seen = None
    if exclude_seen:
        seen = histories(trained.splits, feed, range(feed.len_epoch), split)
    chosen = trained.users(task, split, users).numbers
    trie = ranking_trie(trained, task, split)
    measure = RankingMeasure(trained.setting, feed, trie, beams, seen)
    return measure(trained.params, chosen, watch(f"ranking {task}", len(chosen)))


def measure_texts(
    trained: TrainedModel,
    task: str = DESCRIPTIONS,
    split: str = "test",
    texts: int | None = None,
    steps: int | None = None,
    watch: Watch = unseen,
    users: int | None = None,
) -> Generated:
    """Greedily generated answers; descriptions in split "test" are of held-out items.

    Args:
      trained: the model.
      task: whose prompts are answered.
      split: "validation" or "test".
      texts: size of the fixed sample; None for all.
      steps: tokens of an answer at most; None: as in training.
      watch: hears how far it is.
      users: instead of `texts`: all examples of so many users.
    """
    feed = trained.feed(task, split)
    if steps is None:
        steps = trained.data.task_feature_lengths["targets"]
    measure = GenerationMeasure(trained.setting, feed, trained.tokenizer, steps, trained.stop_ids)
    chosen = trained.texts(task, split, texts) if users is None else (
        trained.users(task, split, users))  # fmt: skip
    total = len(chosen.numbers)
    return measure(trained.params, chosen.numbers, watch(f"writing {task}", total))


def measure_ratings(
    trained: TrainedModel,
    task: str,
    split: str = "test",
    users: int | None = None,
    watch: Watch = unseen,
) -> Rated:
    """Predicted ratings of a fixed sample of users; errors as `rating_scale`."""
    feed, scale = trained.feed(task, split), rating_scale(trained.splits)
    chosen = trained.users(task, split, users).numbers
    trie = scale_trie(scale, trained.tokenizer)
    measure = RatingMeasure(trained.setting, feed, scale, trie)
    return measure(trained.params, chosen, watch(f"predicting {task}", len(chosen)))


def histories(splits: Splits, feed: Feed, numbers: Iterable[int], split: str) -> list[np.ndarray]:
    """What the users of these examples had chosen before their targets, all of it."""
    rows = {raw: row for row, raw in enumerate(splits.catalogue.user_ids)}
    of = splits.test_target if split == "test" else splits.valid_target
    found = [of(rows[feed.stream[int(i)]["user"]]) for i in numbers]
    return [pair[0] if pair else np.array([], int) for pair in found]
