"""Settings of decoding, and the shapes that programs are compiled for."""

import dataclasses
from typing import Annotated, Literal

from ilm_jax.checks import Count, Number, Range, Seed, check
from ilm_jax.errors import UserError

EarlyStopping = Literal["never"] | bool
# Smaller temperatures and shares of probability may be 0 in float32.
LEAST = 1e-6


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """Settings of `generate`, named and meant as in Hugging Face's `generate`.

    The likeliest token again and again by default; drawn ones with `sample`; several
    continuations side by side with `beams` above 1.

    Attributes:
      max_new_tokens: length of a continuation at most, its end token included.
      stop_ids: tokens that end a continuation and are its last; none of them: only the length does.
      pad_id: stands behind the end.
      sample: draw tokens instead of taking the likeliest.
      temperature: log-probabilities are divided by it before a draw.
      top_k: draw among so many of the likeliest only; 0 for all.
      top_p: draw among the fewest likeliest tokens that hold this probability together.
      seed: of the draws; each row has its own, so neither batch nor mesh changes them.
      beams: continuations that are kept side by side, and returned.
      length_penalty: a finished continuation scores log p / (number of its tokens) ** this.
      early_stopping: True ends when `beams` continuations have finished; False when the best
        unfinished one, scored at its present length, is not better than the worst of them; "never"
        when it cannot become so at any length, where length_penalty is above 0.

    Raises:
      UserError: for a value that makes no sense, or for sampled beams.
    """

    max_new_tokens: Count = 64
    stop_ids: tuple[Number, ...] = (1,)
    pad_id: Number = 0
    sample: bool = False
    temperature: Annotated[float, Range(LEAST), "sample=False takes the likeliest"] = 1.0
    top_k: Annotated[Number, "0 takes all"] = 0
    top_p: Annotated[float, Range(LEAST, 1)] = 1.0
    seed: Seed = 0
    beams: Count = 1
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False

    def __post_init__(self) -> None:
        """Checks what would otherwise fail, or not fail, inside a compiled program."""
        check(self)
        if self.sample and self.beams > 1:
            raise UserError(
                f"DecodingConfig: beams={self.beams} with sample=True: beams are searched, not "
                "drawn; give one of the two"
            )


@dataclasses.dataclass(frozen=True)
class Buckets:
    """Shapes that prompts are padded to: one program is compiled for each that occurs.

    Attributes:
      lengths: of prompts, ascending; the last is the longest prompt that is taken.
      rows: of batches, ascending; larger batches are cut into pieces of the last.
      multiple: rows are a multiple of this, the batch shards of the mesh.
    """

    lengths: tuple[Count, ...] = (16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096)
    rows: tuple[Count, ...] = (1, 8, 32, 64)
    multiple: Count = 1

    def __post_init__(self) -> None:
        """Checks the order."""
        check(self)
        for field in ("lengths", "rows"):
            values = getattr(self, field)
            if not values or list(values) != sorted(set(values)):
                raise UserError(f"Buckets.{field}={values}: give ascending numbers from 1")

    def length(self, longest: int) -> int:
        """The bucket of a batch whose longest prompt has so many positions.

        Raises:
          UserError: if none is as long.
        """
        for bucket in self.lengths:
            if longest <= bucket:
                return bucket
        raise UserError(
            f"a prompt of {longest} positions is longer than the longest bucket, "
            f"{self.lengths[-1]}: shorten its history, or raise Buckets.lengths"
        )

    def batch(self, rows: int) -> int:
        """The number of rows that a batch is padded to, or cut into."""
        fits = [bucket for bucket in self.rows if rows <= bucket] or [self.rows[-1]]
        return -(-fits[0] // self.multiple) * self.multiple
