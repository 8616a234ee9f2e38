"""Renderings of examples that are drawn anew in every epoch.

A task cache holds all renderings of a training example (`TaskSettings.variants`), neighbours. A
stream that draws reads some of them in an epoch, each drawn by itself as OpenP5 draws its prompts
(Xu et al. 2023, arXiv 2306.11134), and others in the next. What is drawn depends on seed and number
in the stream alone.
"""

from collections.abc import Mapping

import numpy as np

from ilm_jax.data.examples.example import Example
from ilm_jax.data.streams.streams import Source
from ilm_jax.errors import UserError


class Renderings:
    """Examples whose rendering is still to be drawn: `count` to each example of the cache."""

    def __init__(self, source: Source, variants: int, count: int, name: str) -> None:
        """Joins the renderings of an example.

        Args:
          source: with `variants` renderings of each example, neighbours.
          variants: see there.
          count: so many are drawn in an epoch.
          name: of the task, for messages.

        Raises:
          UserError: if the number of renderings is no multiple of `variants`.
        """
        if len(source) % variants:
            raise UserError(
                f"{name}: {len(source)} renderings are not {variants} of each example: leave "
                "DatasetConfig.redraw out"
            )
        self.source, self.variants, self._count = source, variants, count

    def __len__(self) -> int:
        return len(self.source) // self.variants * self._count

    def __getitem__(self, index: int) -> Example:
        return {"first": int(index) // self._count * self.variants}


class Draw:
    """The transform of a stream of `Renderings`: one of an example's, drawn."""

    def __init__(self, sources: Mapping[str, Renderings]) -> None:
        self._sources = sources

    def __call__(self, example: Example, generator: np.random.Generator) -> Example:
        """The rendering, with its task's name."""
        task = self._sources[example["task"]]
        number = example["first"] + int(generator.integers(task.variants))
        return {**task.source[number], "task": example["task"]}
