"""Measures a trained run: language figures on held-out items, ranking on held-out interactions."""

import dataclasses
import functools
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ilm_jax.data.converters import PromptConverter
from ilm_jax.data.dataset_config import DatasetConfig, Feed
from ilm_jax.data.prompt_tokens import target_tokens
from ilm_jax.data.prompts import PromptRenderer
from ilm_jax.decoding.beam import beam_search
from ilm_jax.decoding.trie import Trie, build_trie
from ilm_jax.errors import UserError
from ilm_jax.evaluation.language import LanguageAccumulator, LanguageResult, example_sums
from ilm_jax.evaluation.ranking import RankingResult, rank_users, sample_examples
from ilm_jax.models.ilm import gather_vectors
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.training.checkpoints import Checkpoints, InitFrom
from ilm_jax.training.freezing import count, matches, split_by_patterns
from ilm_jax.training.loading import fingerprint, load_sources
from ilm_jax.training.run import Run
from ilm_jax.training.state import FlatParams, describe_variables, nested

BATCH = 64


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run's model with its parameters.

    Attributes:
      run: what the recipe described.
      objective: with sizes.
      params: nested, on the run's mesh.
      step: of the checkpoint.
      trainable_params, frozen_params: their numbers.
    """

    run: Run
    objective: LanguageModelling
    params: dict[str, Any]
    step: int
    trainable_params: int
    frozen_params: int

    @property
    def text_only(self) -> bool:
        """Whether prompts must do without slots."""
        return self.objective.qformer is None

    def dataset(self, task: str, split: str) -> DatasetConfig:
        """A prompt task in the form that this model reads, in the order of its cache."""
        base = self.run.dataset
        settings = base.settings.replace(text_only=self.text_only)
        return base.replace(
            mixture_or_task_name=task, split=split, shuffle=False, repeat=False, settings=settings
        )


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
    sources = [InitFrom(run.model_dir, step=step)]
    sources += [s for s in run.trainer.init if any(matches(p, s.parameters) for p in frozen)]
    params, _ = load_sources(objective, variables, sources, (), run.partitioner, jax.random.key(0))
    _check_frozen(run, step, {path: params[path] for path in frozen})
    found = Checkpoints(run.model_dir).resolve(step)
    return Trained(run, objective, nested(params), found, count(trainable), count(frozen))


def _check_frozen(run: Run, step: int | str, frozen: FlatParams) -> None:
    checkpoints = Checkpoints(run.model_dir)
    if checkpoints.meta(checkpoints.resolve(step))["frozen"] != fingerprint(frozen):
        raise UserError(
            f"the frozen weights named in {run.model_dir}/config.gin are not those that it was "
            "trained with: restore them, or train again"
        )


def _batches(feed: Feed, numbers: np.ndarray, *, prompts: bool = False) -> Iterator[dict]:
    """Batches of BATCH rows, the last one filled up with padding."""
    for start in range(0, len(numbers), BATCH):
        chosen = numbers[start : start + BATCH]
        filled = np.concatenate([chosen, np.full(BATCH - len(chosen), len(feed.stream))])
        examples = feed.examples(filled)
        converter = feed.converter
        assert isinstance(converter, PromptConverter)
        yield converter.prompts(examples, filled) if prompts else converter(examples, filled)


def measure_language(
    trained: Trained, task: str = "long_description", split: str = "test"
) -> LanguageResult:
    """nll of a description task's targets; in split "test" they are texts of held-out items."""
    feed = trained.run.feed(trained.dataset(task, split))

    @jax.jit
    def sums(params: Any, batch: Any, table: Any) -> Any:
        return example_sums(*trained.objective.token_losses(params, batch, table))

    accumulator = LanguageAccumulator()
    with trained.run.partitioner.context():
        table = jax.device_put(trained.run.vectors, trained.run.partitioner.replicated)
        for batch in _batches(feed, np.arange(feed.len_epoch)):
            index = batch["example_index"]
            accumulator.add(index, sums(trained.params, batch, table))
    return accumulator.result()


def measure_ranking(
    trained: Trained, users: int | None, beams: int = 10, split: str = "test"
) -> RankingResult:
    """Ranks of the next items in the whole catalogue, by beams over the trie of target strings.

    Args:
      trained: the model.
      users: size of the fixed sample; None for all.
      beams: list length; a target beyond it counts as missed.
      split: "validation" or "test".
    """
    feed = trained.run.feed(trained.dataset("sequential_random", split))
    trie = target_trie(trained)
    chosen = sample_examples(feed.len_epoch, users)
    targets = np.full(feed.len_epoch, -1)
    targets[chosen] = [feed.stream[int(i)]["target_item"] for i in chosen]
    table = jax.device_put(trained.run.vectors, trained.run.partitioner.replicated)
    embed = _embed_function(trained)
    decoder = trained.objective.model.lm

    def ranked_rows(batch: Any) -> np.ndarray:
        embeddings = embed(trained.params, batch, table)
        lengths = np.maximum(batch["lengths"], 1)
        return np.asarray(
            beam_search(decoder, trained.params["lm"], trie, embeddings, lengths, beams)[0]
        )

    def progress(done: int) -> None:
        print(f"\rranking users {done}/{len(chosen)}", end="", file=sys.stderr, flush=True)

    with trained.run.partitioner.context():
        batches = _batches(feed, chosen, prompts=True)
        result = rank_users(ranked_rows, batches, targets, on_batch=progress)
    print(file=sys.stderr)
    return result


def target_trie(trained: Trained) -> Trie:
    """The trie of all items' target strings, tokenised as the task does."""
    settings = trained.dataset("sequential_random", "test").settings
    prompts = PromptRenderer(trained.run.splits, settings)
    names = [prompts.target(row) for row in range(trained.run.catalogue.num_items)]
    return build_trie(target_tokens(prompts, trained.run.tokenizer), names)


def _embed_function(trained: Trained) -> Any:
    model = trained.objective.model

    @functools.partial(jax.jit)
    def embed(params: Any, batch: Any, table: Any) -> Any:
        return model.apply(
            {"params": params},
            batch["tokens"],
            batch["slot_entity"],
            batch["slot_query"],
            gather_vectors(table, batch["entities"]),
            method="embed",
        )

    return embed
