"""Measures a trained run: nll and generated texts of held-out items, ranks of held-out choices."""

import dataclasses
import functools
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from ilm_jax.data.dataset_config import DatasetConfig, Feed
from ilm_jax.data.prompts import PromptRenderer
from ilm_jax.data.splits import Splits
from ilm_jax.decoding.trie import Trie
from ilm_jax.errors import UserError
from ilm_jax.evaluation.language import LanguageResult
from ilm_jax.evaluation.measures import (
    Generated,
    GenerationMeasure,
    LanguageMeasure,
    Ranked,
    RankingMeasure,
    target_trie,
)
from ilm_jax.evaluation.passes import Setting, Watch, unseen
from ilm_jax.evaluation.ratings import Rated, RatingMeasure, rating_scale, scale_trie
from ilm_jax.evaluation.sampling import Sample, sample_examples, text_mark, user_mark
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.training import record
from ilm_jax.training.checkpoints import Checkpoints, InitFrom
from ilm_jax.training.freezing import count, matches, split_by_patterns
from ilm_jax.training.identity import of_meta
from ilm_jax.training.loading import fingerprint, load_sources
from ilm_jax.training.run import Run
from ilm_jax.training.state import FlatParams, describe_variables, nested

DESCRIPTIONS, CHOICES = "long_description", "sequential_random"


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run's model with its parameters.

    Attributes:
      run: what the recipe described.
      objective: with sizes.
      params: nested, on the run's mesh.
      step: of the checkpoint.
      trainable_params, frozen_params: their numbers.
      identity: digest of the weights and of what they were made from.
    """

    run: Run
    objective: LanguageModelling
    params: dict[str, Any]
    step: int
    trainable_params: int
    frozen_params: int
    identity: str = ""

    @property
    def text_only(self) -> bool:
        """Whether prompts must do without slots."""
        return self.objective.qformer is None

    @functools.cached_property
    def setting(self) -> Setting:
        """The model as measures take it."""
        return Setting(self.objective, self.run.partitioner, self.run.vectors)

    def dataset(self, task: str, split: str) -> DatasetConfig:
        """A prompt task in the form that this model reads, in the order of its cache."""
        base = self.run.dataset
        settings = base.settings.replace(text_only=self.text_only)
        return base.replace(
            mixture_or_task_name=task, split=split, shuffle=False, repeat=False, settings=settings
        )

    def feed(self, task: str, split: str) -> Feed:
        """Its examples."""
        return self.run.feed(self.dataset(task, split))

    def texts(self, task: str, split: str, size: int | None = None) -> Sample:
        """A fixed sample of a task's examples, by hash of their users or items; None: all."""
        if size is None:
            total = self.feed(task, split).len_epoch
            return Sample(np.arange(total), total, total)
        return sample_examples(self._marks(task, split, "text"), size)

    def users(self, task: str, split: str, size: int | None = None) -> Sample:
        """All examples of a fixed sample of the users; None: of all."""
        return sample_examples(self._marks(task, split, "user"), size)

    def _marks(self, task: str, split: str, kind: str) -> list[bytes]:
        if (task, split, kind) not in self._known_marks:
            items = self.run.catalogue.item_ids
            of = user_mark if kind == "user" else functools.partial(text_mark, item_ids=items)
            feed = self.feed(task, split)
            found = [of(feed.stream[number]) for number in range(feed.len_epoch)]
            self._known_marks[task, split, kind] = found
        return self._known_marks[task, split, kind]

    @functools.cached_property
    def _known_marks(self) -> dict[tuple[str, str, str], list[bytes]]:
        return {}


def load_trained(run: Run, step: int | str = "best") -> Trained:
    """Loads what a run trained, and the frozen weights that it names.

    Raises:
      UserError: for a stage-1 run, a missing checkpoint, or frozen weights that have changed.
    """
    objective = run.sized_objective
    if not isinstance(objective, LanguageModelling):
        raise UserError(
            f"{run.model_dir} is a stage-1 run, which has no language model: evaluate a stage-2 run"
        )
    variables = describe_variables(objective)
    trainable, frozen = split_by_patterns(variables, run.trainer.trains)
    checkpoints = Checkpoints(run.model_dir)
    found = checkpoints.resolve(step)
    sources = [InitFrom(run.model_dir, step=found)]
    sources += [s for s in run.trainer.init if any(matches(p, s.parameters) for p in frozen)]
    meta = checkpoints.meta(found)
    checkpoints.close()
    for line in record.check_use(meta.get("made_from"), run.made_from(), run.model_dir):
        print(line, file=sys.stderr)
    params, _ = load_sources(objective, variables, sources, (), run.partitioner, jax.random.key(0))
    _check_bits(run.model_dir, meta, {p: params[p] for p in frozen},
                {p: params[p] for p in trainable})  # fmt: skip
    return Trained(
        run, objective, nested(params), found, count(trainable), count(frozen), of_meta(meta)
    )


def _check_bits(
    model_dir: str, meta: Mapping[str, Any], frozen: FlatParams, trained: FlatParams
) -> None:
    if meta["frozen"] != fingerprint(frozen):
        raise UserError(
            f"the frozen weights named in {model_dir}/config.gin are not those that it was "
            "trained with: restore them, or train again"
        )
    if meta.get("weights", "") not in ("", fingerprint(trained)):
        raise UserError(
            f"{model_dir}: its checkpoint is damaged: the weights are not those that were saved"
        )


def measure_language(
    trained: Trained,
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


def ranking_trie(trained: Trained, task: str, split: str) -> Trie:
    """The strings by which a task's answers name the items."""
    settings = trained.dataset(task, split).naming(task)
    return target_trie(PromptRenderer(trained.run.splits, settings), trained.run.tokenizer)


def measure_ranking(
    trained: Trained,
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
        seen = histories(trained.run.splits, feed, range(feed.len_epoch), split)
    chosen = trained.users(task, split, users).numbers
    trie = ranking_trie(trained, task, split)
    measure = RankingMeasure(trained.setting, feed, trie, beams, seen)
    return measure(trained.params, chosen, watch(f"ranking {task}", len(chosen)))


def measure_texts(
    trained: Trained,
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
        steps = trained.run.dataset.task_feature_lengths["targets"]
    run = trained.run
    measure = GenerationMeasure(trained.setting, feed, run.tokenizer, steps, run.stop_ids)
    chosen = trained.texts(task, split, texts) if users is None else (
        trained.users(task, split, users))  # fmt: skip
    total = len(chosen.numbers)
    return measure(trained.params, chosen.numbers, watch(f"writing {task}", total))


def measure_ratings(
    trained: Trained,
    task: str,
    split: str = "test",
    users: int | None = None,
    watch: Watch = unseen,
) -> Rated:
    """Predicted ratings of a fixed sample of users; errors as `rating_scale`."""
    feed, scale = trained.feed(task, split), rating_scale(trained.run.splits)
    chosen = trained.users(task, split, users).numbers
    trie = scale_trie(scale, trained.run.tokenizer)
    measure = RatingMeasure(trained.setting, feed, scale, trie)
    return measure(trained.params, chosen, watch(f"predicting {task}", len(chosen)))


def histories(splits: Splits, feed: Feed, numbers: Iterable[int], split: str) -> list[np.ndarray]:
    """What the users of these examples had chosen before their targets, all of it."""
    rows = {raw: row for row, raw in enumerate(splits.catalogue.user_ids)}
    of = splits.test_target if split == "test" else splits.valid_target
    found = [of(rows[feed.stream[int(i)]["user"]]) for i in numbers]
    return [pair[0] if pair else np.array([], int) for pair in found]
