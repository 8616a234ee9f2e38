"""Rules that map the tensors of published checkpoints to the entries of ours.

A family of models gives one rule for every entry on disk (`layer_07/attention/query/kernel`), so
the same table reads, writes and names what is missing or left over.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ilm_jax.checks import Dataclass

C = TypeVar("C", bound=Dataclass)


@dataclasses.dataclass(frozen=True)
class Rule:
    """The source of one entry.

    Attributes:
      source: the name of the other checkpoint's tensor.
      transposed: a matrix stands there as [out, in], here as [in, out].
      plus_row: name of another tensor whose row 0 is added to every row (BERT's token type 0,
        which is a constant part of the positions).
      shape: what is reshaped to on reading, after all else; None keeps it.
      rows: the table is cut to this many rows, or filled up with zeros; None keeps it.
    """

    source: str
    transposed: bool = False
    plus_row: str | None = None
    shape: tuple[int, ...] | None = None
    rows: int | None = None


@dataclasses.dataclass(frozen=True)
class Copy(Generic[C]):
    """A tensor that should equal another one, and is judged by its values (copies.py).

    Attributes:
      name: the copy.
      of: what rules read. Where the file lacks it, the copy is read in its place.
      untied: the configuration whose rules read the copy too, for a copy with other values; None:
        such a file is refused.
      remedy: what to do then.
    """

    name: str
    of: str
    untied: C | None = None
    remedy: str = "delete the one that the model does not read"


@dataclasses.dataclass(frozen=True)
class Buffer:
    """Numbers that files hold and this package computes: compared, and not read.

    Attributes:
      pattern: of their names, as rules speak of them.
      values: what a tensor of this name and size may be.
    """

    pattern: str
    values: Callable[[str, int], Sequence[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Family(Generic[C]):
    """One kind of published model.

    Attributes:
      model_types: `model_type` in the Hugging Face config.json of these models.
      config: turns that config.json into ours (DecoderConfig, T5Config, ...). Raises UserError for
        an option that our module does not have, naming it.
      rules: {entry on disk without the top key ("lm/"): Rule} of such a config.
      unused: patterns of tensors of parts that are not read here (BERT's pooler, a model's eyes).
        They are listed where a folder is opened.
      rename: gives the name that rules speak of, of a tensor's name in the file: the same model is
        saved with and without a prefix.
      copies: tensors that such files may hold twice, in the order in which they are judged.
      buffers: numbers that they hold and this package computes.
    """

    model_types: tuple[str, ...]
    config: Callable[[Mapping[str, Any]], C]
    rules: Callable[[C], dict[str, Rule]]
    unused: tuple[str, ...] = ()
    rename: Callable[[str], str] = str
    copies: Callable[[C], Sequence[Copy[C]]] = lambda config: ()
    buffers: Callable[[C], Sequence[Buffer]] = lambda config: ()


def apply(rule: Rule, read: Callable[[str], np.ndarray]) -> np.ndarray:
    """The whole entry, where `read` gives a tensor by its name."""
    value = read(rule.source)
    if rule.transposed:
        value = value.T
    if rule.plus_row:
        value = value + read(rule.plus_row)[:1]
    if rule.rows is not None:
        value = value[: rule.rows]
        missing = rule.rows - len(value)
        value = np.pad(value, [(0, missing)] + [(0, 0)] * (value.ndim - 1)) if missing else value
    return value if rule.shape is None else value.reshape(rule.shape)
