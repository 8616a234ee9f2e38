"""A language model of a folder, by itself: to write texts, or to judge them."""

import dataclasses
import sys

import jax
from jaxtyping import Array, PyTree

from ilm_jax.checkpoints.checkpoints import InitFrom
from ilm_jax.checkpoints.loading import load_sources
from ilm_jax.checkpoints.opening import open_language_model
from ilm_jax.checkpoints.published.configs import rebuild
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.sharding.state import describe_variables, nested

RUNS = {"remat": "none", "scan_layers": True}


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedModel:
    """A language model with its parameters.

    Attributes:
      objective: the model, with sizes; it reads no slots.
      params: nested, on the partitioner's mesh.
      partitioner: all devices, split by rows.
      tokenizer: the model's.
    """

    objective: LanguageModelling
    params: PyTree[Array]
    partitioner: Partitioner
    tokenizer: Tokenizer


def load_language_model(path: str, tokenizer: Tokenizer, dtype: str | None = None) -> LoadedModel:
    """The language model of a folder that `ilm convert` made, or as it was published.

    Args:
      path: the folder.
      tokenizer: the model's.
      dtype: of weights and computation; None: float32 on CPUs, where bfloat16 is no faster and
        its rounding decides close calls, else bfloat16.

    Raises:
      UserError: if the folder holds no language model, or fewer ids than the tokenizer gives.
    """
    opened = open_language_model(path)
    for note in opened.notes:
        print(note, file=sys.stderr, flush=True)
    dtype = dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    kind, fields = opened.configs["lm"]
    config = rebuild(kind, fields, **RUNS, dtype=dtype, param_dtype=dtype)
    objective = LanguageModelling(config).with_sizes(tokenizer=tokenizer, cf_dim=1)
    partitioner = Partitioner()
    source = InitFrom(path, parameters=("^lm/",))
    params, _ = load_sources(
        objective, describe_variables(objective), [source], (), partitioner, jax.random.key(0)
    )
    return LoadedModel(objective, nested(params), partitioner, tokenizer)
