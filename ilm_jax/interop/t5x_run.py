"""What T5X's trainer needs beside the model: data, initial parameters, rules, rates.

gin/t5x/stage2.gin binds these. Data is the run's own streams; a resumed run starts them from the
first example again, as T5X's runs do that do not save their datasets.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ilm_jax.checkpoints.loading import load_sources
from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.data.streams.feed import Feed
from ilm_jax.errors import UserError
from ilm_jax.interop.t5x_model import need_t5x
from ilm_jax.runs.run import Run
from ilm_jax.sharding.state import describe_variables
from ilm_jax.training.data_start import DataStart

try:
    from t5x import utils
except ImportError:
    _Base: Any = object
else:
    _Base = utils.TrainStateInitializer

# Of our batches; `entity_vectors` replaces the row numbers of a table that T5X knows nothing of.
FEATURES = (
    "tokens",
    "targets",
    "loss_weights",
    "content_weights",
    "positions",
    "segment_ids",
    "slot_entity",
    "slot_query",
    "entity_vectors",
)


def batches(
    run: Run, dataset: DatasetConfig, size: int, shard: int = 0, shards: int = 1
) -> Iterator[dict[str, np.ndarray]]:
    """This shard's rows of batches 0, 1, … of a dataset, as T5X's trainer takes them.

    Args:
      run: opens the data.
      dataset: of the run.
      size: rows of the global batch.
      shard, shards: every shard gets neighbouring rows.

    Raises:
      UserError: if the rows do not divide.
    """
    if size % shards:
        raise UserError(f"batch size {size} is no multiple of the {shards} shards of T5X's mesh")
    feed: Feed = run.feed(dataset)
    local = size // shards
    count = -(-feed.len_epoch // size) if not dataset.repeat else None
    number = 0
    while count is None or number < count:
        rows = feed.rows(number * size + shard * local + np.arange(local))
        entities = rows["entities"]
        vectors = np.where(entities[..., None] >= 0, run.vectors[np.maximum(entities, 0)], 0)
        rows["entity_vectors"] = vectors.astype(np.float32)
        yield {name: rows[name] for name in FEATURES}
        number += 1


def get_dataset(
    cfg: Any, shard_id: int, num_shards: int, converter: object = None, *, run: Run, **ignored: Any
) -> Any:
    """T5X's `get_dataset_fn`: the run's training stream as a tf.data.Dataset of batches.

    Of T5X's own DatasetConfig `cfg` only the batch size is read.
    """
    return _dataset(run, run.train["prompt"], cfg.batch_size, shard_id, num_shards)


def get_eval_datasets(
    cfg: Any,
    shard_id: int,
    num_shards: int,
    eval_steps: int,
    converter: object = None,
    *,
    run: Run,
    **ignored: Any,
) -> dict[str, Any]:
    """T5X's `train_eval_get_dataset_fn`: the first `eval_steps` batches of each evaluation set."""
    found = {}
    for name, dataset in run.train_eval.items():
        once = dataclasses.replace(dataset, shuffle=False, repeat=False)
        made = _dataset(run, once, cfg.batch_size, shard_id, num_shards)
        found[name] = made.take(eval_steps)
    return found


def _dataset(run: Run, dataset: DatasetConfig, size: int, shard: int, shards: int) -> Any:
    need_t5x()
    import tensorflow as tf

    make = functools.partial(batches, run, dataset, size, shard, shards)
    first = next(make())
    signature = {
        name: tf.TensorSpec(value.shape, tf.as_dtype(value.dtype)) for name, value in first.items()
    }
    return tf.data.Dataset.from_generator(make, output_signature=signature)


def logical_axis_rules(rules: Sequence[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    """T5X's rules and those for the names that only our models have."""
    return [*rules, ("queries", None), ("cf", None)]


def learning_rate(run: Run) -> Callable[[int], jax.typing.ArrayLike]:
    """The run's schedule; T5X writes it down, and the optimizer follows it by itself."""
    return run.optimizer.learning_rate_at(run.trainer.total_steps)


class SourcesInitializer(_Base):
    """T5X's initial state, with what `TrainerConfig.init` names in place of drawn parameters.

    So T5X starts from what `ilm train` starts from: Hugging Face folders, T5X's own checkpoints
    under their names, earlier stages; what may start fresh is drawn by the run's seed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes T5X's arguments; the run is that of the model that `init_fn` belongs to."""
        super().__init__(*args, **kwargs)
        self._run: Run = kwargs["init_fn"].__self__.run

    def from_scratch(self, init_rng: jax.Array) -> Any:
        """T5X's TrainState, on its mesh."""
        objective, config = self._run.sized_objective, self._run.trainer
        state = super().from_scratch(init_rng)
        placed = jax.tree.map(lambda leaf: leaf.sharding, state.params)
        # Only where they lie is asked of those that were drawn.
        jax.tree.map(lambda leaf: leaf.delete(), state.params)
        run = self._run
        start = DataStart(objective, run.partitioner, run.vectors, run.start_rows)
        loaded, report = load_sources(
            objective,
            describe_variables(objective),
            config.init,
            (*config.allow_fresh, *config.adapters),
            self._run.partitioner,
            jax.random.key(config.seed),
            self._run.made_from(),
            start,
        )
        print(f"parameters:\n{report}", file=sys.stderr)

        def place(
            keys: tuple[jax.tree_util.DictKey, ...], sharding: jax.sharding.Sharding
        ) -> jax.Array:
            """The leaf of this path, taken from `loaded` so that host memory falls as it goes."""
            return jax.device_put(loaded.pop("/".join(key.key for key in keys)), sharding)

        return state.replace_params(jax.tree_util.tree_map_with_path(place, placed))
