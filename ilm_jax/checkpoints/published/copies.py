"""Tensors that a file holds twice, or that this package computes itself: judged by their values.

A name says what a tensor should be, not what it is: full fine-tunes and merges leave an output
layer with numbers of its own in folders whose config.json still ties it. So what no entry reads is
compared with what stands for it, a block at a time, before it is left out.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Generic

import ml_dtypes
import numpy as np

from ilm_jax.checkpoints.published.entries import BLOCK_BYTES, Source
from ilm_jax.checkpoints.published.rules import C, Copy, Family
from ilm_jax.errors import UserError

# Largest relative error of a stored buffer, by its type; float32 is what both sides compute in.
_ROUNDING = {np.dtype(np.float16): 2e-3, np.dtype(ml_dtypes.bfloat16): 2e-2}


@dataclasses.dataclass
class Settled(Generic[C]):
    """A folder's tensors after duplicates were compared.

    Attributes:
      config: of the model that the tensors make: untied where its two tables differ.
      held: {name that rules speak of: tensor of the file}.
      notes: lines for a person.
    """

    config: C
    held: dict[str, str]
    notes: list[str]


def settle(source: Source, family: Family[C], config: C) -> Settled[C]:
    """Renames a source's tensors, and drops what was compared and found to be a copy.

    Raises:
      UserError: for two tensors of one meaning and different values that the model cannot both
        have.
    """
    settled = Settled(config, _renamed(source, family), [])
    for copy in family.copies(config):
        _judge(source, copy, settled)
    for buffer in family.buffers(config):
        for name in [n for n in settled.held if re.search(buffer.pattern, n)]:
            stored = source.read(settled.held.pop(name))
            if not any(_close(stored, values) for values in buffer.values(name, stored.size)):
                raise UserError(
                    f"{source.where}: {name} holds other numbers than config.json gives: is it "
                    "another model's config.json? delete the tensor if the model's card says so"
                )
    return settled


def differing_rows(source: Source, copy: str, of: str) -> int:
    """Rows of `copy` that are not those of `of` in the copy's type; -1: the shapes differ.

    So a copy in fewer bits equals what it was rounded from. NaN equals NaN.
    """
    if tuple(source.shape(copy)) != tuple(source.shape(of)):
        return -1
    count = 0
    for index in _blocks(source.shape(copy), source.dtype(copy).itemsize):
        left, right = source.read(copy, index), source.read(of, index)
        with np.errstate(over="ignore", invalid="ignore"):
            right = right.astype(left.dtype)
        same = (left == right) | ((left != left) & (right != right))
        count += int((~same).reshape(len(same), -1).any(axis=1).sum()) if same.ndim else not same
    return count


def _blocks(shape: tuple[int, ...], itemsize: int) -> Iterator[tuple[slice, ...]]:
    if not shape:
        yield ()
        return
    row = max(1, int(np.prod(shape[1:]))) * itemsize
    step = max(1, BLOCK_BYTES // row)
    for start in range(0, shape[0], step):
        yield (slice(start, min(start + step, shape[0])),)


def _renamed(source: Source, family: Family[C]) -> dict[str, str]:
    """{name that rules speak of: tensor}; two tensors of one name must be equal."""
    held: dict[str, str] = {}
    for name in source.names():
        first = held.setdefault(family.rename(name), name)
        if first != name and differing_rows(source, name, first):
            raise UserError(
                f"{source.where} holds {first} and {name}, which are one tensor of the model and "
                "differ: delete the one that is not the model's"
            )
    return held


def _judge(source: Source, copy: Copy[C], settled: Settled[C]) -> None:
    held = settled.held
    if copy.name not in held:
        return
    if copy.of not in held:
        held[copy.of] = held.pop(copy.name)
        settled.notes.append(
            f"{source.where}: {copy.of} is not there, and {copy.name} is read as it: the model "
            "has one table for both"
        )
        return
    rows = differing_rows(source, held[copy.name], held[copy.of])
    if not rows:
        del held[copy.name]
        return
    found = f"differ in {rows} of {source.shape(held[copy.of])[0]} rows"
    found = "have different shapes" if rows < 0 else found
    if copy.untied is None:
        raise UserError(
            f"{source.where}: {copy.name} and {copy.of} are one table of this model and {found}: "
            f"{copy.remedy}"
        )
    settled.config = copy.untied
    settled.notes.append(
        f"{source.where}: config.json ties {copy.name} to {copy.of}, but the two {found}: both are "
        "used, and the model is untied"
    )


def _close(stored: np.ndarray, values: np.ndarray) -> bool:
    if stored.size != values.size:
        return False
    error = _ROUNDING.get(stored.dtype, 1e-5)
    flat = stored.reshape(-1).astype(np.float64)
    return bool(np.allclose(flat, values.reshape(-1).astype(np.float64), rtol=error, atol=1e-7))
