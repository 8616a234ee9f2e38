"""Stage 2 as a model of T5X: our objective and our data under T5X's trainer.

Imports without T5X, which is on no package index (docs/language-models.md installs it), and says so
when it is used. Recipe: gin/t5x/stage2.gin; t5x_run.py has what that binds beside the
model. What differs from our own trainer: the frozen language model is in T5X's train state and
checkpoints (its gradients are cut, and it has no optimizer slots).
"""

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import freeze
from flax.linen.partitioning import AxisMetadata
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, PyTree
from optax import multi_transform, set_to_zero

from ilm_jax.decoding.greedy import greedy
from ilm_jax.errors import UserError
from ilm_jax.models.applying import applied
from ilm_jax.runs.run import Run

try:
    import seqio
    from t5x import losses, models, optimizers
except ImportError as error:
    _MISSING: ImportError | None = error
    _Base: Any = object
else:
    _MISSING = None
    _Base = models.BaseTransformerModel


def need_t5x() -> None:
    """Raises UserError, with the remedy, where T5X cannot be imported."""
    if _MISSING is not None:
        raise UserError(
            f"T5X cannot be imported ({_MISSING}): pip install "
            "'t5x @ git+https://github.com/google-research/t5x' tensorboard"
        )


class ItemLanguageT5XModel(_Base):
    """A language objective with T5X's interface: initial variables, loss, predictions, scores."""

    if _MISSING is None:
        # Batches come as arrays from `get_dataset`; nothing is left to convert.
        FEATURE_CONVERTER_CLS = seqio.PassThroughFeatureConverter

    def __init__(self, run: Run, **settings: Any) -> None:
        """Wraps the objective of a run.

        Args:
          run: gives objective, tokenizer, optimizer with its schedule, and what trains.
          **settings: label_smoothing, z_loss, loss_normalizing_factor of T5X.

        Raises:
          UserError: without T5X, or for an objective that answers no prompts.
        """
        need_t5x()
        if run.objective.language is None:
            raise UserError("ItemLanguageT5XModel.run.objective answers no prompts: give stage 2")
        objective = run.sized_objective.language
        assert objective is not None
        self.run, self.objective = run, objective
        self.trainable = run.trainer.trains
        updates = {"trains": run.optimizer.build(run.trainer.total_steps), "stays": set_to_zero()}
        super().__init__(
            module=objective.model,
            input_vocabulary=None,
            output_vocabulary=None,
            optimizer_def=optimizers.OptaxWrapper(multi_transform(updates, self._labels)),
            **settings,
        )

    def get_initial_variables(
        self, rng: jax.Array, input_shapes: Mapping[str, object], input_types: object = None
    ) -> PyTree[Array]:
        """{"params": …, "params_axes": …} with our logical names of every dimension."""
        boxed = self.objective.init(rng)
        names = flatten_dict(nn.get_partition_spec(boxed))
        axes = {
            (*path[:-1], f"{path[-1]}_axes"): AxisMetadata(names=tuple(spec))
            for path, spec in names.items()
        }
        # T5X compares the structure with that of trees that it freezes.
        return freeze({"params": nn.unbox(boxed), "params_axes": unflatten_dict(axes)})

    def loss_fn(
        self, params: PyTree[Array], batch: Mapping[str, jax.Array], dropout_rng: jax.Array | None
    ) -> tuple[jax.Array, Any]:
        """(T5X's cross-entropy on target tokens, its metrics)."""
        logits, targets, weights = self._logits(params, batch, dropout_rng)
        factor, weights = losses.get_loss_normalizing_factor_and_weights(
            self._loss_normalizing_factor,
            {"decoder_target_tokens": targets, "decoder_loss_weights": weights},
        )
        loss, z_loss, _ = losses.compute_weighted_cross_entropy(
            logits,
            targets=targets,
            weights=weights,
            label_smoothing=self._label_smoothing,
            z_loss=self._z_loss,
            loss_normalizing_factor=factor,
        )
        metrics = self._compute_metrics(
            logits=logits, targets=targets, mask=weights, loss=loss, z_loss=z_loss
        )
        return loss, metrics

    def predict_batch_with_aux(
        self,
        params: PyTree[Array],
        batch: Mapping[str, jax.Array],
        rng: jax.Array | None = None,
        **ignored: Any,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(greedy continuations of the prompts [batch, targets length], {})."""
        table, entities = _as_table(batch["entity_vectors"])
        embeddings: Array = applied(
            self.module,
            params,
            batch["tokens"],
            batch["slot_entity"],
            batch["slot_query"],
            table[entities],
            method="embed",
        )
        tokens = greedy(
            self.module.lm,
            params["lm"],
            embeddings,
            jnp.argmax(batch["loss_weights"] > 0, axis=1) + 1,
            steps=self.objective.target_length or batch["targets"].shape[1],
            eos_id=self.run.tokenizer.eos_id,
            stop_ids=self.run.stop_ids,
            pad_id=self.run.tokenizer.pad_id,
        )
        return tokens, {}

    def score_batch(
        self,
        params: PyTree[Array],
        batch: Mapping[str, jax.Array],
        return_intermediates: bool = False,
    ) -> jax.Array:
        """log p(targets | prompt) of every row, in nats."""
        table, entities = _as_table(batch["entity_vectors"])
        nll, weights, _ = self.objective.token_losses(
            params, {**batch, "entities": entities}, table
        )
        return -jnp.sum(jnp.where(weights > 0, nll, 0), axis=1)

    def _compute_logits(
        self,
        params: PyTree[Array],
        batch: Mapping[str, jax.Array],
        dropout_rng: jax.Array | None = None,
    ) -> jax.Array:
        return self._logits(params, batch, dropout_rng)[0]

    def _logits(
        self, params: PyTree[Array], batch: Mapping[str, jax.Array], dropout_rng: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(logits, targets, weights) of the target window."""
        flat = flatten_dict(params, sep="/")
        kept = {k: v if self._trains(k) else jax.lax.stop_gradient(v) for k, v in flat.items()}
        table, entities = _as_table(batch["entity_vectors"])
        logits, at = self.objective.target_logits(
            unflatten_dict(kept, sep="/"), {**batch, "entities": entities}, table, dropout_rng
        )
        targets, weights = batch["targets"], batch["loss_weights"]
        if at is not None:
            targets, weights = (jnp.take_along_axis(x, at, axis=1) for x in (targets, weights))
        return logits, targets, weights

    def _labels(self, params: PyTree[Array]) -> PyTree[str]:
        def label(keys: tuple[jax.tree_util.DictKey, ...], _: Array) -> str:
            """optax.multi_transform's label of a leaf."""
            return "trains" if self._trains("/".join(key.key for key in keys)) else "stays"

        return jax.tree_util.tree_map_with_path(label, params)

    def _trains(self, path: str) -> bool:
        return any(re.search(pattern, path) for pattern in self.trainable)


def _as_table(vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Vectors [batch, entities, cf] as a table and the rows of it that each row of a batch has."""
    batch, entities, width = vectors.shape
    return vectors.reshape(-1, width), jnp.arange(batch * entities).reshape(batch, entities)
