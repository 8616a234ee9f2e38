"""Programs of a fit of vectors (`ilm fit_cf`): a step of each method that the trainer trains."""

from collections.abc import Iterator

import jax

from ilm_jax.compilation.abstract import Batches, Program, abstract_state, step_program
from ilm_jax.errors import UserError
from ilm_jax.runs.fitting import FitCF
from ilm_jax.runs.vector_fit import TrainedMethod
from ilm_jax.sharding.partitioning import Partitioner


def fit_programs(fit: FitCF, partitioner: Partitioner, num_items: int) -> Iterator[Program]:
    """A training step of every method that is trained step by step.

    Args:
      fit: from the recipe.
      partitioner: its mesh and rules over the devices to compile for.
      num_items: of the catalogue.

    Raises:
      UserError: if there is none, or one does not say what its steps are without its data.
    """
    methods = [method for method in fit.methods if isinstance(method, TrainedMethod)]
    if not methods:
        raise UserError("no method of the recipe is trained step by step: nothing to compile")
    for method in methods:
        shapes = method.shapes(num_items)
        optimizer = method.optimizer_config.build(1)
        state = abstract_state(shapes.objective, (".*",), partitioner, optimizer)
        table = jax.ShapeDtypeStruct(
            shapes.table.shape, shapes.table.dtype, sharding=partitioner.replicated
        )
        batches = Batches(shapes.batch_size, shapes.row, table)
        (kind,) = shapes.objective.kinds
        yield step_program(partitioner, shapes.objective, kind, batches, optimizer, state)
